# The teachers of Fashion-MNIST: 30 epochs, half the students' learning rate
_base_ = 'fashion_mnist.py'
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=30, T_max=29, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=30)
