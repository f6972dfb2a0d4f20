# An MLP student, trained alone: 6-block MLP-Mixer of width 64, patch 8
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MlpMixer', img_size=64, patch_size=8,
                  arch=dict(embed_dims=64, num_layers=6, tokens_mlp_dims=32, channels_mlp_dims=256)),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')))
