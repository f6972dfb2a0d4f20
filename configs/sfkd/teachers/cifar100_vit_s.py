# CIFAR-100, teacher ViT-S/16 (with DeiT-S's weights, the same architecture), from ImageNet-1K; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/teachers/cifar100_vit_s.py 8
_base_ = [
    '../../_base_/datasets/cifar100_224_cnn.py',
    '../../_base_/schedules/cifar100_finetune.py',
    '../../_base_/cls_runtime.py',
]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch='deit-small', img_size=224, patch_size=16),
    head=dict(type='VisionTransformerClsHead', num_classes=100, in_channels=384,
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
load_from = ('https://mmassets.onedl.ai/mmclassification/v0/deit/'
             'deit-small_pt-4xb256_in1k_20220218-9425b9bb.pth')  # all but the 1000-class layer
