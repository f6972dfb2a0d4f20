# CIFAR-100, ResNet-18 (ImageNet stem) alone; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/students/cifar100_r18.py 8
_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../../_base_/datasets/cifar100_224_cnn.py',
    '../../_base_/schedules/cifar100_cnn.py',
    '../../_base_/cls_runtime.py',
]
model = dict(head=dict(num_classes=100, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))
