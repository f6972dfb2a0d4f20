# A small CNN segmentor, trained alone from a classifier's backbone
_base_ = '../mini/seg_fcn_resnet8.py'
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='sfkd::pretrained/students/cls_resnet8.safetensors', prefix='backbone.')))
# The student's own rate (docs/ablation.md); fused: one call for a weight in place of a dozen
optim_wrapper = dict(optimizer=dict(lr=0.012, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=32, T_max=31, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=32)
