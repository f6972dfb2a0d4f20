# CNN to transformer
_base_ = 'seg_segformer_mit8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=128,
    teacher='sfkd::pretrained/seg_fpn_resnet.py', teacher_ckpt='sfkd::pretrained/teachers/seg_fpn_resnet.safetensors')
