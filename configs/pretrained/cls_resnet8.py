# The CNN students of this folder begin with its backbone: shipped as students/cls_resnet8.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/cls_resnet8.py
#   python tools/zoo.py add sfkd::pretrained/cls_resnet8.py work_dirs/cls_resnet8
_base_ = '../mini/cls_resnet8.py'
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=24, T_max=23, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=24)
