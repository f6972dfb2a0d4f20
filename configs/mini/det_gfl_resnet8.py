# A small CNN detector, trained alone: GFL with a ResNet-18 of 8 base channels, FPN of width 32, strides 8 to 32
_base_ = ['../_base_/datasets/digits_wild_det.py', '../_base_/mini_dense_runtime.py']
model = dict(
    type='GFL',
    backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3), frozen_stages=-1,
                  norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False, style='pytorch'),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=32, start_level=1, num_outs=3),
    bbox_head=dict(
        type='GFLHead', num_classes=10, in_channels=32, feat_channels=32, stacked_convs=1, norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=3, scales_per_octave=1, strides=[8, 16, 32]),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25), reg_max=8,
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=300, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=50))
