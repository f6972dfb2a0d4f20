# The transformer teacher of the mini segmentors: SegFormer's head on the mini Swin, whose backbone starts from the shipped classifier:
#   python tools/train.py configs/mini/seg_segformer_swin.py
#   python tools/export_student.py configs/mini/seg_segformer_swin.py work_dirs/seg_segformer_swin/epoch_16.pth OUT.safetensors --half
_base_ = 'seg_fcn_resnet8.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.SwinTransformer', img_size=64, patch_size=4, window_size=4, out_indices=(0, 1, 2),
        drop_path_rate=0.0, arch=dict(embed_dims=32, depths=[2, 2, 2], num_heads=[2, 4, 8]),
        init_cfg=dict(type='Pretrained', checkpoint='sfkd::mini/teachers/swin.safetensors', prefix='backbone.')),
    decode_head=dict(
        _delete_=True, type='SegformerHead', in_channels=[32, 64, 128], in_index=[0, 1, 2], channels=64, dropout_ratio=0.1, num_classes=11,
        norm_cfg=dict(type='BN', requires_grad=True), align_corners=False,
        loss_decode={{_base_.loss}}),
    auxiliary_head=None)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=16, T_max=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16)
