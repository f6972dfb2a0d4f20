# ADE20K, UPerNet ConvNeXt-T to SegFormer MiT-B0 (CNN to transformer): bash tools/dist_train.sh configs/sfkd/seg_upernet_convnext_t_to_segformer_b0.py 8
# Total batch 8 x 2 = 16, the student's own schedule (160k iterations, AdamW). Not run to the end by this project: no mIoU is claimed.
_base_ = ['mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmseg::convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py',
    teacher_ckpt='https://mmassets.onedl.ai/mmsegmentation/v0.5/convnext/upernet_convnext_tiny_fp16_512x512_160k_ade20k/'
                 'upernet_convnext_tiny_fp16_512x512_160k_ade20k_20220227_124553-cad485de.pth')
auto_scale_lr = dict(enable=False, base_batch_size=16)  # mmseg's configs have none
