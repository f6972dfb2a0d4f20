# A transformer student, trained alone: Swin of width 32, three stages of two blocks, patch 4, window 4. It learns slowly: 15 epochs
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='SwinTransformer', img_size=64, patch_size=4, window_size=4, out_indices=(2, ), drop_path_rate=0.0,
                  arch=dict(embed_dims=32, depths=[2, 2, 2], num_heads=[2, 4, 8])),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, loss=dict(type='CrossEntropyLoss')))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=15, T_max=14, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=15)
