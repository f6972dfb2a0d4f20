# The CNN teacher of the mini segmentors: PSPNet on a ResNet-18 of 32 base channels whose last two stages keep stride 8; it starts from the
# shipped classifier. Made by
#   python tools/train.py configs/mini/seg_pspnet_resnet.py
#   python tools/export_student.py configs/mini/seg_pspnet_resnet.py work_dirs/seg_pspnet_resnet/epoch_16.pth OUT.safetensors --half
_base_ = 'seg_fcn_resnet8.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32,
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::mini/teachers/resnet.safetensors', prefix='backbone.')),
    decode_head=dict(_delete_=True, type='PSPHead', in_channels=256, in_index=3, channels=64, pool_scales=(1, 2, 3, 6), dropout_ratio=0.1,
                     num_classes=11, norm_cfg=dict(type='BN', requires_grad=True), align_corners=False, loss_decode={{_base_.loss}}),
    auxiliary_head=dict(in_channels=128))
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=16, T_max=15, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=16)
