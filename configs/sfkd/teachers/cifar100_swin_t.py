# CIFAR-100, teacher Swin-T, from ImageNet-1K; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/teachers/cifar100_swin_t.py 8
_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    '../../_base_/datasets/cifar100_224_cnn.py',
    '../../_base_/schedules/cifar100_finetune.py',
    '../../_base_/cls_runtime.py',
]
model = dict(head=dict(num_classes=100), train_cfg=None)  # no Mixup or CutMix
load_from = ('https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/'
             'swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth')  # all but the 1000-class layer
