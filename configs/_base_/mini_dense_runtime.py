# Eight epochs of the embedded detection or segmentation benchmark on two cores
_base_ = 'mini_runtime.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=8, T_max=7, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=8)
