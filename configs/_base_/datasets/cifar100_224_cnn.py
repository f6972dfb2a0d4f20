# CIFAR-100 at 224 px, augmented for CNN students by crop and flip (docs/data.md; 8 x 128 pictures a step)
# Pictures are RGB arrays already (to_rgb=False), normalised as the teachers' ImageNet weights expect
data_preprocessor = dict(num_classes=100, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=False)

train_pipeline = [
    dict(type='RandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='ResizeEdge', scale=224, interpolation='bicubic'), dict(type='PackInputs')]
dataset = dict(type='CIFAR100', data_root='data/cifar100')
loader = dict(batch_size=128, num_workers=5, collate_fn=dict(type='default_collate'))

train_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(**dataset, split='train', pipeline=train_pipeline))
val_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(**dataset, split='test', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
