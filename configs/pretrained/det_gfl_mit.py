# The transformer detector that teaches in this folder, GFL on a Mix Transformer of width 24 that begins as the shipped classifier:
# shipped as teachers/det_gfl_mit.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/det_gfl_mit.py
#   python tools/zoo.py add sfkd::pretrained/det_gfl_mit.py work_dirs/det_gfl_mit --teacher
_base_ = 'det_gfl_mit8.py'
model = dict(
    backbone=dict(embed_dims=24, num_layers=[2, 2, 2, 2],
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::pretrained/teachers/cls_mit.safetensors', prefix='backbone.')),
    neck=dict(in_channels=[24, 48, 96, 192], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64))
optim_wrapper = dict(optimizer=dict(lr=0.006))
