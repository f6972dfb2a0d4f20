# Digits in the Wild, classification, 64 px: python tools/make_digits_wild.py cls
default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # Without augmentation the teacher is one-hot on the training set, and its logits teach nothing that the labels do not
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.8, 1.0), aspect_ratio_range=(0.9, 1.1)),
    dict(type='Rotate', angle=15.0, prob=0.5, random_negative_prob=0.5, pad_val=(128, 128, 128), interpolation='bilinear'),
    dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3, backend='cv2'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
dataset = dict(type='CustomDataset', data_root='data/digits_wild/cls', with_label=True)
# Workers restart every epoch, so that an interrupted run can resume exactly
loader = dict(batch_size=25, num_workers=1, persistent_workers=False, collate_fn=dict(type='default_collate'))

train_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(**dataset, data_prefix='train', pipeline=train_pipeline))
val_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(**dataset, data_prefix='val', pipeline=test_pipeline))
test_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                       dataset=dict(**dataset, data_prefix='test', pipeline=test_pipeline))
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
