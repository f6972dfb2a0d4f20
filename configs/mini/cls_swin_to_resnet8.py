# Transformer to CNN. This Swin stayed at chance alone, so the teacher is the one that the ResNet taught:
#   python tools/train.py configs/mini/cls_resnet_to_swin.py --no-validate
#   python tools/export_student.py configs/mini/cls_resnet_to_swin.py work_dirs/cls_resnet_to_swin/epoch_15.pth OUT.safetensors --half
_base_ = 'cls_resnet8.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=64,
    teacher='sfkd::mini/cls_swin.py', teacher_ckpt='sfkd::mini/teachers/swin.safetensors')
