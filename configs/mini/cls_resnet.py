# The CNN teacher of the mini pairs, ResNet-18 with 32 base channels: shipped as teachers/resnet.safetensors, with its log, made by
#   python tools/train.py configs/mini/cls_resnet.py
#   python tools/export_student.py configs/mini/cls_resnet.py work_dirs/cls_resnet/epoch_40.pth OUT.safetensors --half
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=32, base_channels=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256, loss=dict(type='CrossEntropyLoss')))
train_dataloader = dict(batch_size=100)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=40, T_max=39, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=40)
