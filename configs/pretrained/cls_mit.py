# The transformer students of this folder begin with its backbone, a Mix Transformer of width 16, one block a stage: shipped as
# students/cls_mit.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/cls_mit.py
#   python tools/zoo.py add sfkd::pretrained/cls_mit.py work_dirs/cls_mit
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmseg.MixVisionTransformer', embed_dims=16, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8],
                  patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(3, ), mlp_ratio=4, qkv_bias=True, drop_path_rate=0.0),
    # It gives a list, which no neck of mmpretrain takes; this head averages maps itself
    head=dict(type='CSRAClsHead', num_classes=10, in_channels=128, num_heads=1, lam=0.1, topk=1,
              loss=dict(type='CrossEntropyLoss', use_sigmoid=True)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=24, T_max=23, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=24)
