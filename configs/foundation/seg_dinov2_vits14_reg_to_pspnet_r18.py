# ADE20K, DINOv2 ViT-S/14 with registers to PSPNet R18-D8: bash tools/dist_train.sh configs/foundation/seg_dinov2_vits14_reg_to_pspnet_r18.py 8
# The student's own data and schedule. Not run to the end by this project: no accuracy is claimed (docs/foundation_teachers.md).
_base_ = ['../sfkd/students/pspnet_r18.py', 'teachers/dinov2_vits14_reg.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, teacher={{_base_.foundation}}, teacher_ckpt='init', input_size=512, teacher_input_size=518)
