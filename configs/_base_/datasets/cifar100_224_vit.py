# CIFAR-100 at 224 px, augmented for ViT and MLP students: RandAugment (rand-m9-mstd0.5-inc1) and erasing 0.25.
# Mixup 0.8 and CutMix 1 are batch augmentations, in the students' train_cfg
_base_ = 'cifar100_224_cnn.py'

mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # in the pictures' own order, RGB
train_pipeline = [
    dict(type='RandomResizedCrop', scale=224, interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='RandAugment', policies='timm_increasing', num_policies=2, total_level=10, magnitude_level=9, magnitude_std=0.5,
         hparams=dict(pad_val=[124, 116, 104], interpolation='bicubic')),
    dict(type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02, max_area_ratio=1 / 3, fill_color=mean, fill_std=std),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
