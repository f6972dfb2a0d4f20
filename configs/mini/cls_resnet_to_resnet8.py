# CNN to smaller CNN: the homogeneous pair
_base_ = 'cls_resnet8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=64,
    teacher='sfkd::mini/cls_resnet.py', teacher_ckpt='sfkd::mini/teachers/resnet.safetensors')
