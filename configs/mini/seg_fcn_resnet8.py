# A small dilated CNN segmentor, trained alone: FCN on a ResNet-18 of 8 base channels whose last two stages keep stride 8
_base_ = ['../_base_/datasets/digits_wild_seg.py', '../_base_/mini_dense_runtime.py']
# Background is 87% of the pixels: at its full weight nothing else is predicted for epochs
loss = dict(type='CrossEntropyLoss', use_sigmoid=False, class_weight=[0.3] + [1.0] * 10)
model = dict(
    type='EncoderDecoder',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3),
                  strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), contract_dilation=True, norm_cfg=dict(type='BN', requires_grad=True),
                  norm_eval=False, style='pytorch'),
    decode_head=dict(type='FCNHead', in_channels=64, in_index=3, channels=32, num_convs=1, concat_input=False, dropout_ratio=0.1,
                     num_classes=11, norm_cfg=dict(type='BN', requires_grad=True), align_corners=False,
                     loss_decode=loss),
    auxiliary_head=dict(type='FCNHead', in_channels=32, in_index=2, channels=16, num_convs=1, concat_input=False, dropout_ratio=0.1,
                        num_classes=11, norm_cfg=dict(type='BN', requires_grad=True), align_corners=False,
                        loss_decode=dict(**loss, loss_weight=0.4)),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
default_hooks = dict(checkpoint=dict(save_best='mIoU'))  # 'auto' would take the first of IoUMetric's measures, pixel accuracy
