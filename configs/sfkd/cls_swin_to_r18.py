_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, logit_weight=1.0,
    teacher='mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    teacher_ckpt='https://download.openmmlab.com/mmclassification/v0/swin-transformer/'
                 'swin_tiny_224_b16x64_300e_imagenet_20210616_090925-66df6be6.pth')
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=512)
