# A transformer, trained alone: Swin of two stages (width 32, patch 2, window 7); resnet_to_swin.py makes a teacher of it
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='SwinTransformer', img_size=28, patch_size=2, window_size=7, out_indices=(1, ), drop_path_rate=0.1,
                  arch=dict(embed_dims=32, depths=[2, 4], num_heads=[2, 4])),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=10, T_max=9, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=10)
