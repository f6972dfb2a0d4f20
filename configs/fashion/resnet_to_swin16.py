# CNN to transformer
_base_ = 'swin16.py'
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=28,
    teacher='sfkd::fashion/resnet.py', teacher_ckpt='sfkd::fashion/teachers/resnet.safetensors')
