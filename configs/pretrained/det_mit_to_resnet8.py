# Transformer detector to a CNN
_base_ = 'det_gfl_resnet8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=(128, 160),
    teacher='sfkd::pretrained/det_gfl_mit.py', teacher_ckpt='sfkd::pretrained/teachers/det_gfl_mit.safetensors')
