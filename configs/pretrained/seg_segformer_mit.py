# The transformer segmentor that teaches in this folder, SegFormer on a Mix Transformer of width 24 that begins as the shipped classifier:
# shipped as teachers/seg_segformer_mit.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/seg_segformer_mit.py
#   python tools/zoo.py add sfkd::pretrained/seg_segformer_mit.py work_dirs/seg_segformer_mit --teacher
_base_ = 'seg_segformer_mit8.py'
model = dict(
    backbone=dict(embed_dims=24, num_layers=[2, 2, 2, 2],
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::pretrained/teachers/cls_mit.safetensors', prefix='backbone.')),
    decode_head=dict(in_channels=[24, 48, 96, 192], channels=64))
optim_wrapper = dict(optimizer=dict(lr=0.004))
