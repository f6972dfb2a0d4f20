# The CNN teacher, ResNet-18 for small pictures with 32 base channels: shipped as teachers/resnet.safetensors, with its log, made by
#   python tools/train.py configs/fashion/resnet.py --amp
#   python tools/export_student.py configs/fashion/resnet.py work_dirs/resnet/epoch_24.pth configs/fashion/teachers/resnet.safetensors --half
_base_ = '../_base_/fashion_mnist_teacher.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet_CIFAR', depth=18, stem_channels=32, base_channels=32),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=256, loss=dict(type='CrossEntropyLoss')))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4))
