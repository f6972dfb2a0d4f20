# Fashion-MNIST, 28 px, ten classes (docs/data.md). The last 10,000 training pictures are for validation; nothing trains on them
default_scope = 'mmpretrain'
custom_imports = dict(imports=['sfkd'])
# Pictures have one channel; a mean for each of three makes it three, as networks expect
data_preprocessor = dict(num_classes=10, mean=[72.94] * 3, std=[90.02] * 3, to_rgb=False)

train_pipeline = [dict(type='RandomFlip', prob=0.5, direction='horizontal'), dict(type='PackInputs')]
test_pipeline = [dict(type='PackInputs')]
dataset = dict(type='FashionMNIST', data_root='data/fashion_mnist')
# Workers restart every epoch, so that an interrupted run can resume exactly
loader = dict(batch_size=100, num_workers=1, persistent_workers=False, collate_fn=dict(type='default_collate'))

# Each picture comes in two forms, drawn once, so that what a teacher says of them can be kept (docs/guides/teacher_cache.md)
train_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=True),
                        dataset=dict(type='sfkd.ReplayedDataset', variants=2,
                                     dataset=dict(**dataset, split='train', indices=50000, pipeline=train_pipeline)))
val_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(**dataset, split='train', indices=-10000, pipeline=test_pipeline))
test_dataloader = dict(**loader, sampler=dict(type='DefaultSampler', shuffle=False),
                       dataset=dict(**dataset, split='test', test_mode=True, pipeline=test_pipeline))
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
