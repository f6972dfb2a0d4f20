# CIFAR-100, teacher ResNet-50, from ImageNet-1K; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/teachers/cifar100_r50.py 8
_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../../_base_/datasets/cifar100_224_cnn.py',
    '../../_base_/schedules/cifar100_finetune.py',
    '../../_base_/cls_runtime.py',
]
model = dict(head=dict(num_classes=100))
load_from = ('https://mmassets.onedl.ai/mmclassification/v0/resnet/'
             'resnet50_8xb32_in1k_20210831-ea4938fc.pth')  # all but the 1000-class layer
