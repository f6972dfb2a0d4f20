# A transformer student, trained alone: 3-block ViT of width 32, patch 4
_base_ = ['../_base_/datasets/fashion_mnist.py', '../_base_/schedules/fashion_mnist.py']
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', img_size=28, patch_size=4,
                  arch=dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=64)),
    head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=32, loss=dict(type='CrossEntropyLoss')))
