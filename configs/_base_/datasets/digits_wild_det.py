# Digits in the Wild, detection, 128x128 and 128x160 px: python tools/make_digits_wild.py det
default_scope = 'mmdet'
data_root = 'data/digits_wild/det'
data_preprocessor = dict(type='DetDataPreprocessor', mean=[127.5] * 3, std=[64.0] * 3, bgr_to_rgb=True, pad_size_divisor=32)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),  # with_mask=True for a model with masks, and pad_mask=True above
    # No flip: a digit's mirror image is no digit, or another one
    dict(type='RandomResize', scale=(160, 128), ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 128), keep_ratio=True),  # changes nothing, but leaves the scale_factor that detectors ask for
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
dataset = dict(type='CocoDataset', data_root=data_root, metainfo=dict(classes=tuple('0123456789')))
# Workers restart every epoch, so that an interrupted run can resume exactly
loader = dict(batch_size=8, num_workers=1, persistent_workers=False)

train_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(**dataset, ann_file='annotations/train.json', data_prefix=dict(img='train'), pipeline=train_pipeline))
val_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(**dataset, ann_file='annotations/val.json', data_prefix=dict(img='val'), pipeline=test_pipeline,
                                   test_mode=True))
test_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                       dataset=dict(**dataset, ann_file='annotations/test.json', data_prefix=dict(img='test'), pipeline=test_pipeline,
                                    test_mode=True))
# COCO's areas for small and medium objects would call nearly every digit small, so only the overall figures
evaluator = dict(type='CocoMetric', metric='bbox', metric_items=['mAP', 'mAP_50', 'mAP_75'])
val_evaluator = dict(**evaluator, ann_file=data_root + '/annotations/val.json')
test_evaluator = dict(**evaluator, ann_file=data_root + '/annotations/test.json')
