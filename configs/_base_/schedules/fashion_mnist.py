# Fashion-MNIST: 16 epochs of 50,000 pictures
_base_ = '../mini_runtime.py'
# fused: one call for a weight in place of a dozen
optim_wrapper = dict(optimizer=dict(lr=3e-3, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=16, T_max=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16)
default_hooks = dict(logger=dict(interval=100))
