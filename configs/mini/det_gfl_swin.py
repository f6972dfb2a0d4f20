# The transformer teacher of the mini detectors: GFL with the mini Swin, whose backbone starts from the shipped classifier:
#   python tools/train.py configs/mini/det_gfl_swin.py
#   python tools/export_student.py configs/mini/det_gfl_swin.py work_dirs/det_gfl_swin/epoch_16.pth OUT.safetensors --half
_base_ = 'det_gfl_resnet8.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.SwinTransformer', img_size=64, patch_size=4, window_size=4, out_indices=(0, 1, 2), drop_path_rate=0.0,
        arch=dict(embed_dims=32, depths=[2, 2, 2], num_heads=[2, 4, 8]),
        init_cfg=dict(type='Pretrained', checkpoint='sfkd::mini/teachers/swin.safetensors', prefix='backbone.')),
    neck=dict(in_channels=[32, 64, 128], out_channels=64, start_level=1, add_extra_convs='on_output'),
    bbox_head=dict(in_channels=64, feat_channels=64))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=16, T_max=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16)
