# The teachers of Fashion-MNIST: 24 epochs with crops and grey squares, batches of 100 and a third of the students' learning rate
_base_ = ['datasets/fashion_mnist.py', 'schedules/fashion_mnist.py']
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=24, T_max=23, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=24)
train_dataloader = dict(batch_size=100, dataset=dict(
    _delete_=True, type='FashionMNIST', data_root='data/fashion_mnist', split='train', indices=50000, pipeline=[
        dict(type='RandomCrop', crop_size=28, padding=2),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='Cutout', shape=8, pad_val=73, prob=0.5),
        dict(type='PackInputs'),
    ]))
