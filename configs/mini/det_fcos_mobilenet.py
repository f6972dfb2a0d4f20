# Another small CNN detector with another kind of head, trained alone: FCOS with a MobileNetV2 of a quarter of the width
_base_ = ['../_base_/datasets/digits_wild_det.py', '../_base_/mini_dense_runtime.py']
model = dict(
    type='FCOS',
    backbone=dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 6), norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False),
    neck=dict(type='FPN', in_channels=[8, 8, 24, 80], out_channels=32, start_level=1, num_outs=3),
    bbox_head=dict(
        type='FCOSHead', num_classes=10, in_channels=32, feat_channels=32, stacked_convs=1, strides=[8, 16, 32],
        regress_ranges=((-1, 24), (24, 48), (48, 1e8)), center_sampling=True, norm_on_bbox=True, centerness_on_reg=True,
        norm_cfg=dict(type='GN', num_groups=8),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    test_cfg=dict(nms_pre=300, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=50))
