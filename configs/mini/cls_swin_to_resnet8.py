# Transformer to CNN
_base_ = 'cls_resnet8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}},
    teacher='configs/mini/cls_swin.py', teacher_ckpt='configs/mini/teachers/swin.safetensors')
