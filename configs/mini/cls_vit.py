# A transformer student, trained alone: 4-block ViT of width 48, patch 8
_base_ = ['../_base_/datasets/digits_wild_cls.py', '../_base_/mini_runtime.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=64, patch_size=8,
                  arch=dict(embed_dims=48, num_layers=4, num_heads=4, feedforward_channels=192)),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=48, loss=dict(type='CrossEntropyLoss')))
