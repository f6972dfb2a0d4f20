# The CNN detector that teaches in this folder, GFL on a ResNet-18 of 32 base channels that begins as the shipped classifier: shipped as
# teachers/det_gfl_resnet.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/det_gfl_resnet.py
#   python tools/zoo.py add sfkd::pretrained/det_gfl_resnet.py work_dirs/det_gfl_resnet --teacher
_base_ = 'det_gfl_resnet8.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32,
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::mini/teachers/resnet.safetensors', prefix='backbone.')),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64))
optim_wrapper = dict(optimizer=dict(lr=0.008))
