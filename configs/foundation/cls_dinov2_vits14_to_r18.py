# ImageNet-1K, DINOv2 ViT-S/14 to ResNet-18: bash tools/dist_train.sh configs/foundation/cls_dinov2_vits14_to_r18.py 8
# The student's own data and schedule. Not run to the end by this project: no accuracy is claimed (docs/foundation_teachers.md).
_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py', 'teachers/dinov2_vits14.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, teacher={{_base_.foundation}}, teacher_ckpt='init', input_size=224)
