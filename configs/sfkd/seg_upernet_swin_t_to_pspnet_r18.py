# ADE20K, UPerNet Swin-T to PSPNet R18-D8 (transformer of strides 4 to 32 to dilated CNN): bash tools/dist_train.sh configs/sfkd/seg_upernet_swin_t_to_pspnet_r18.py 4
# Total batch 4 x 4 = 16, the student's own schedule (80k iterations, SGD). Not run to the end by this project: no mIoU is claimed.
_base_ = ['students/pspnet_r18.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    teacher_ckpt='https://mmassets.onedl.ai/mmsegmentation/v0.5/swin/upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K/'
                 'upernet_swin_tiny_patch4_window7_512x512_160k_ade20k_pretrain_224x224_1K_20210531_112542-e380ad3e.pth')
