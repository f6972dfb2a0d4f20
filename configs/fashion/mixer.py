# An MLP student, trained alone: 3-block MLP-Mixer of width 32, patch 4
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MlpMixer', img_size=28, patch_size=4,
                  arch=dict(embed_dims=32, num_layers=3, tokens_mlp_dims=24, channels_mlp_dims=64)),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=32, loss=dict(type='CrossEntropyLoss')))
