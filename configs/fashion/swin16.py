# A transformer student, trained alone: Swin of 16 channels and two stages (patch 4, window 4); it needs twice the epochs of the others to converge
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='SwinTransformer', img_size=28, patch_size=4, window_size=4, out_indices=(1, ), drop_path_rate=0.0,
                  arch=dict(embed_dims=16, depths=[2, 2], num_heads=[1, 2])),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=32, loss=dict(type='CrossEntropyLoss')))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=32, T_max=31, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=32)
