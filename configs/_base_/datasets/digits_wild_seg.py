# Digits in the Wild, segmentation, 128x128 and 128x160 px: python tools/make_digits_wild.py seg
default_scope = 'mmseg'
data_preprocessor = dict(type='SegDataPreProcessor', mean=[127.5] * 3, std=[64.0] * 3, bgr_to_rgb=True, pad_val=0, seg_pad_val=255,
                         size=(128, 128))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # No flip: a digit's mirror image is no digit, or another one
    dict(type='RandomResize', scale=(160, 128), ratio_range=(0.8, 1.4), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(128, 128)),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
# ADE20KDataset takes no class names but its own. Background is a class, unlike in ADE20K: without it, a digit predicted there costs nothing
classes = ('background', *'0123456789')
palette = [[0, 0, 0], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48], [145, 30, 180], [70, 240, 240],
           [240, 50, 230], [210, 245, 60], [250, 190, 212]]
dataset = dict(type='BaseSegDataset', data_root='data/digits_wild/seg', img_suffix='.png', seg_map_suffix='.png', reduce_zero_label=False,
               metainfo=dict(classes=classes, palette=palette))
# Workers restart every epoch, so that an interrupted run can resume exactly
loader = dict(num_workers=1, persistent_workers=False)

train_dataloader = dict(**loader, batch_size=8, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(**dataset, pipeline=train_pipeline,
                                     data_prefix=dict(img_path='images/training', seg_map_path='annotations/training')))
# One picture at a time, because mmseg asks for a single shape in a batch when it tests
val_dataloader = dict(**loader, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(**dataset, pipeline=test_pipeline, test_mode=True,
                                   data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation')))
test_dataloader = dict(**loader, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False),
                       dataset=dict(**dataset, pipeline=test_pipeline, test_mode=True,
                                    data_prefix=dict(img_path='images/test', seg_map_path='annotations/test')))
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
