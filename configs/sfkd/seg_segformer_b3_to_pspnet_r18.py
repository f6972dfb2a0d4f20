# ADE20K, SegFormer MiT-B3 to PSPNet R18-D8 (transformer to dilated CNN): bash tools/dist_train.sh configs/sfkd/seg_segformer_b3_to_pspnet_r18.py 4
# Total batch 4 x 4 = 16, the student's own schedule (80k iterations, SGD). Not run to the end by this project: no mIoU is claimed.
_base_ = ['students/pspnet_r18.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    teacher='mmseg::segformer/segformer_mit-b3_8xb2-160k_ade20k-512x512.py',
    teacher_ckpt='https://mmassets.onedl.ai/mmsegmentation/v0.5/segformer/segformer_mit-b3_512x512_160k_ade20k/'
                 'segformer_mit-b3_512x512_160k_ade20k_20210726_081410-962b98d2.pth')
