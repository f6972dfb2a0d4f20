# A CNN student, trained alone: ResNet-18 with 8 base channels
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')))
