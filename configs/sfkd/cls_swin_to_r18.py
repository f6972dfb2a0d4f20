# ImageNet-1K, Swin-T to ResNet-18: bash tools/dist_train.sh configs/sfkd/cls_swin_to_r18.py 8   (total batch 8 x 64 = 512)
# Recipe of the heterogeneous literature's CNN students (SGD 0.1, weight decay 1e-4, 100 epochs, x0.1 every 30), which but for the batch
# is the base's own; the distillation weights are SFKD's defaults. Not run to the end by this project: no accuracy is claimed.
_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, logit_weight=1.0,
    teacher='mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',  # pictures are normalised as the student's
    teacher_ckpt='https://mmassets.onedl.ai/mmclassification/v0/swin-transformer/'
                 'swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth')
train_dataloader = dict(batch_size=64)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best='auto'))
auto_scale_lr = dict(base_batch_size=512)
