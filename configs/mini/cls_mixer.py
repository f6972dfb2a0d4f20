# An MLP student, trained alone: 4-block MLP-Mixer of width 48, patch 8
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MlpMixer', img_size=64, patch_size=8,
                  arch=dict(embed_dims=48, num_layers=4, tokens_mlp_dims=32, channels_mlp_dims=192)),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=48, loss=dict(type='CrossEntropyLoss')))
