# Transformer to CNN
_base_ = 'resnet4.py'
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=28,
    teacher='sfkd::fashion/swin.py', teacher_ckpt='sfkd::fashion/students/resnet_to_swin.safetensors')
