# CNN to transformer
_base_ = 'vit.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=28,
    teacher='configs/fashion/resnet.py', teacher_ckpt='configs/fashion/teachers/resnet.safetensors')
