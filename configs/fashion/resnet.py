# The CNN teacher, ResNet-18 for small pictures with 16 base channels: not shipped yet; made by
#   python tools/train.py configs/fashion/resnet.py --amp
#   python tools/export_student.py configs/fashion/resnet.py work_dirs/resnet/epoch_30.pth configs/fashion/teachers/resnet.safetensors --half
_base_ = '../_base_/fashion_mnist_teacher.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=128, loss=dict(type='CrossEntropyLoss')))
