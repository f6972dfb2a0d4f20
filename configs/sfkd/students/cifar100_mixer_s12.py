# CIFAR-100, an MLP of ResMLP-S12's size alone; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/students/cifar100_mixer_s12.py 8
# mmpretrain has no ResMLP: this is its MLP-Mixer in ResMLP-S12's width, depth and patch size, with as many token-mixing weights
# (2 x 196 x 98 = 196 x 196). Published ResMLP-S12 results are of another network.
_base_ = [
    '../../_base_/datasets/cifar100_224_vit.py',
    '../../_base_/schedules/cifar100_vit.py',
    '../../_base_/cls_runtime.py',
]
model = dict(
    type='ImageClassifier',
    backbone=dict(type='MlpMixer', img_size=224, patch_size=16,
                  arch=dict(embed_dims=384, num_layers=12, tokens_mlp_dims=98, channels_mlp_dims=1536)),
    neck=dict(type='GlobalAveragePooling', dim=1),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=384,
              loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]))
