# The CNN detector that teaches in this folder, GFL on a ResNet-18 of 32 base channels that begins as the shipped classifier: shipped as
# teachers/det_gfl_resnet.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/det_gfl_resnet.py
#   python tools/export_student.py configs/pretrained/det_gfl_resnet.py work_dirs/det_gfl_resnet/epoch_16.pth OUT.safetensors --half
_base_ = '../mini/det_gfl_resnet8.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32,
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::mini/teachers/resnet.safetensors', prefix='backbone.')),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=16, T_max=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16)
