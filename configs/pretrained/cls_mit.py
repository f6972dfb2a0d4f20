# The transformer teachers of this folder begin with its backbone, a Mix Transformer of width 24, two blocks a stage: shipped as
# teachers/cls_mit.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/cls_mit.py
#   python tools/zoo.py add sfkd::pretrained/cls_mit.py work_dirs/cls_mit --teacher
_base_ = 'cls_mit8.py'
model = dict(backbone=dict(embed_dims=24, num_layers=[2, 2, 2, 2]), head=dict(in_channels=192))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
