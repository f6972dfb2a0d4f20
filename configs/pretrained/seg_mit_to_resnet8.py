# Transformer to dilated CNN
_base_ = 'seg_fcn_resnet8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=128,
    teacher='sfkd::pretrained/seg_segformer_mit.py', teacher_ckpt='sfkd::pretrained/teachers/seg_segformer_mit.safetensors')
