# ADE20K, UPerNet DeiT-S to DeepLabV3+ MobileNetV2-D8 (transformer of one stride to dilated CNN): bash tools/dist_train.sh configs/sfkd/seg_upernet_deit_s_to_deeplabv3plus_mnv2.py 4
# Total batch 4 x 4 = 16, the student's own schedule (160k iterations, SGD). Not run to the end by this project: no mIoU is claimed.
_base_ = ['mmseg::mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmseg::vit/vit_deit-s16_upernet_8xb2-160k_ade20k-512x512.py',
    teacher_ckpt='https://mmassets.onedl.ai/mmsegmentation/v0.5/vit/upernet_deit-s16_512x512_160k_ade20k/'
                 'upernet_deit-s16_512x512_160k_ade20k_20210621_160903-5110d916.pth')
auto_scale_lr = dict(enable=False, base_batch_size=16)  # mmseg's configs have none
