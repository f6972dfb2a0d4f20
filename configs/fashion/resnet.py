# The CNN teacher, ResNet-18 for small pictures with 32 base channels, 24 epochs with crops and grey squares: shipped as teachers/resnet.safetensors, with
# its log, made by
#   python tools/train.py configs/fashion/resnet.py --amp
#   python tools/export_student.py configs/fashion/resnet.py work_dirs/resnet/epoch_24.pth configs/fashion/teachers/resnet.safetensors --half
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=32, base_channels=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256, loss=dict(type='CrossEntropyLoss')))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=24, T_max=23, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=24)
train_dataloader = dict(dataset=dict(
    _delete_=True, type='FashionMNIST', data_root='data/fashion_mnist', split='train', indices=50000, pipeline=[
        dict(type='RandomCrop', crop_size=28, padding=2),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='Cutout', shape=8, pad_val=73, prob=0.5),
        dict(type='PackInputs'),
    ]))
