# A CNN student, trained alone: ResNet-18 with 8 base channels
_base_ = 'cls_resnet.py'
model = dict(backbone=dict(stem_channels=8, base_channels=8), head=dict(in_channels=64))
