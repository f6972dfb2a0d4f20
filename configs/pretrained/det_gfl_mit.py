# A small transformer detector, trained alone from a classifier's backbone
_base_ = '../mini/det_gfl_resnet8.py'
model = dict(
    backbone=dict(_delete_=True, type='mmseg.MixVisionTransformer', embed_dims=16, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 8],
                  patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3), mlp_ratio=4, qkv_bias=True, drop_path_rate=0.0,
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::pretrained/students/cls_mit.safetensors', prefix='backbone.')),
    neck=dict(in_channels=[16, 32, 64, 128]))
optim_wrapper = dict(optimizer=dict(lr=0.012))  # the student's own (docs/ablation.md)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=16, T_max=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16)
