# The transformer students of this folder begin with its backbone, a Mix Transformer of width 8, one block a stage: shipped as
# students/cls_mit8.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/cls_mit8.py
#   python tools/zoo.py add sfkd::pretrained/cls_mit8.py work_dirs/cls_mit8
_base_ = 'cls_resnet8.py'
model = dict(
    _delete_=True, type='ImageClassifier',
    backbone=dict(type='mmseg.MixVisionTransformer', embed_dims=8, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8],
                  patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(3, ), mlp_ratio=4, qkv_bias=True, drop_path_rate=0.0),
    # It gives a list, which no neck of mmpretrain takes; this head averages maps itself
    head=dict(type='CSRAClsHead', num_classes=10, in_channels=64, num_heads=1, lam=0.1, topk=1,
              loss=dict(type='CrossEntropyLoss', use_sigmoid=True)))
