# CIFAR-100, DeiT-T (without distillation token) alone; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/students/cifar100_deit_t.py 8
_base_ = [
    '../../_base_/datasets/cifar100_224_vit.py',
    '../../_base_/schedules/cifar100_vit.py',
    '../../_base_/cls_runtime.py',
]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch='deit-tiny', img_size=224, patch_size=16),
    head=dict(type='VisionTransformerClsHead', num_classes=100, in_channels=192,
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    init_cfg=[dict(type='TruncNormal', layer='Linear', std=0.02), dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0)],
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
