# An MLP student, trained alone: 3-block MLP-Mixer of width 48, patch 7
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MlpMixer', img_size=28, patch_size=7,
                  arch=dict(embed_dims=48, num_layers=3, tokens_mlp_dims=16, channels_mlp_dims=96)),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=48, loss=dict(type='CrossEntropyLoss')))
