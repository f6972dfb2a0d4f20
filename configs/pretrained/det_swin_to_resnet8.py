# Transformer detector to a CNN
_base_ = 'det_gfl_resnet8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=(128, 160),
    teacher='sfkd::mini/det_gfl_swin.py', teacher_ckpt='sfkd::mini/teachers/det_gfl_swin.safetensors')
