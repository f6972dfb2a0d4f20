# The transformer teacher, Swin of two stages (width 32, patch 2, window 7): not shipped yet; made by
#   python tools/train.py configs/fashion/swin.py --amp
#   python tools/export_student.py configs/fashion/swin.py work_dirs/swin/epoch_24.pth configs/fashion/teachers/swin.safetensors --half
_base_ = '../_base_/fashion_mnist_teacher.py'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='SwinTransformer', img_size=28, patch_size=2, window_size=7, out_indices=(1, ), drop_path_rate=0.1,
                  arch=dict(embed_dims=32, depths=[2, 4], num_heads=[2, 4])),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64, loss=dict(type='CrossEntropyLoss')))
