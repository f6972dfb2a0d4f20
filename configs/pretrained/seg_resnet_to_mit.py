# A dilated CNN segmentor to a transformer
_base_ = 'seg_segformer_mit.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=128,
    teacher='sfkd::mini/seg_pspnet_resnet.py', teacher_ckpt='sfkd::mini/teachers/seg_pspnet_resnet.safetensors')
