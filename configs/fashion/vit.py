# A transformer student, trained alone: 3-block ViT of width 48, patch 7
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=28, patch_size=7,
                  arch=dict(embed_dims=48, num_layers=3, num_heads=2, feedforward_channels=96)),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=48, loss=dict(type='CrossEntropyLoss')))
