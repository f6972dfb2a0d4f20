# ADE20K, PSPNet R101-D8 to R18-D8 (the homogeneous case): bash tools/dist_train.sh configs/sfkd/seg_pspnet_r101_to_pspnet_r18.py 4
# Total batch 4 x 4 = 16, the student's own schedule (80k iterations, SGD). Not run to the end by this project: no mIoU is claimed.
# Both score the same classes, so the class maps are distilled too, channel by channel (CWD, arXiv 2011.13256: temperature 1, weight 5).
_base_ = ['students/pspnet_r18.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=512,
    pairs=['auto', dict(student='decode_head.conv_seg', teacher='decode_head.conv_seg', connector=dict(type='CommonGrid'),
                        losses=[dict(type='ChannelWiseDivergence', name='cwd', weight=5.0)])],
    teacher='mmseg::pspnet/pspnet_r101-d8_4xb4-80k_ade20k-512x512.py',
    teacher_ckpt='https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x512_80k_ade20k/'
                 'pspnet_r101-d8_512x512_80k_ade20k_20200614_031423-b6e782f0.pth')
