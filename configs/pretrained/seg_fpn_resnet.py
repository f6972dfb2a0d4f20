# The CNN segmentor that teaches in this folder, Semantic FPN (Kirillov et al., arXiv 1901.02446) on a ResNet-18 of 32 base channels that
# begins as the shipped classifier: shipped as teachers/seg_fpn_resnet.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/seg_fpn_resnet.py
#   python tools/zoo.py add sfkd::pretrained/seg_fpn_resnet.py work_dirs/seg_fpn_resnet --teacher
_base_ = 'seg_fcn_resnet8.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), contract_dilation=False,
                  init_cfg=dict(type='Pretrained', checkpoint='sfkd::mini/teachers/resnet.safetensors', prefix='backbone.')),
    neck=dict(type='FPN', in_channels=[32, 64, 128, 256], out_channels=64, num_outs=4),
    decode_head=dict(_delete_=True, type='FPNHead', in_channels=[64, 64, 64, 64], in_index=[0, 1, 2, 3], feature_strides=[4, 8, 16, 32],
                     channels=64, dropout_ratio=0.1, num_classes=11, norm_cfg=dict(type='BN', requires_grad=True), align_corners=False,
                     loss_decode={{_base_.loss}}),
    auxiliary_head=None)
optim_wrapper = dict(optimizer=dict(lr=0.008))
