# CIFAR-100, teacher ConvNeXt-T, from ImageNet-1K; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/teachers/cifar100_convnext_t.py 8
_base_ = [
    'mmpretrain::_base_/models/convnext/convnext-tiny.py',
    '../../_base_/datasets/cifar100_224_cnn.py',
    '../../_base_/schedules/cifar100_finetune.py',
    '../../_base_/cls_runtime.py',
]
model = dict(head=dict(num_classes=100), train_cfg=None)  # no Mixup or CutMix
load_from = ('https://mmassets.onedl.ai/mmclassification/v0/convnext/'
             'convnext-tiny_32xb128_in1k_20221207-998cf3e9.pth')  # all but the 1000-class layer
