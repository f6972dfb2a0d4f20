# CNN to transformer: the segmentor that teaches in seg_swin_to_resnet8.py, shipped as students/seg_resnet_to_swin.safetensors, with its log, made by
#   python tools/train.py configs/pretrained/seg_resnet_to_swin.py
#   python tools/zoo.py add sfkd::pretrained/seg_resnet_to_swin.py work_dirs/seg_resnet_to_swin
_base_ = '../mini/seg_segformer_swin.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=128,
    teacher='sfkd::mini/seg_pspnet_resnet.py', teacher_ckpt='sfkd::mini/teachers/seg_pspnet_resnet.safetensors')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=1, end=32, T_max=31, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=32)
