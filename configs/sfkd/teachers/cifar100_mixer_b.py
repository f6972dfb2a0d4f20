# CIFAR-100, teacher MLP-Mixer-B/16, from ImageNet-1K; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/teachers/cifar100_mixer_b.py 8
_base_ = [
    'mmpretrain::_base_/models/mlp_mixer_base_patch16.py',
    '../../_base_/datasets/cifar100_224_cnn.py',
    '../../_base_/schedules/cifar100_finetune.py',
    '../../_base_/cls_runtime.py',
]
model = dict(head=dict(num_classes=100))
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)  # its weights' own; the distiller converts
load_from = ('https://mmassets.onedl.ai/mmclassification/v0/mlp-mixer/'
             'mixer-base-p16_3rdparty_64xb64_in1k_20211124-1377e3e0.pth')  # all but the 1000-class layer
