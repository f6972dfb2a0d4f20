# ImageNet-1K, CLIP ViT-B/16 to MobileNetV2: bash tools/dist_train.sh configs/foundation/cls_clip_b16_to_mobilenet_v2.py 8
# The student's own data and schedule. Not run to the end by this project: no accuracy is claimed (docs/foundation_teachers.md).
_base_ = ['mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py', 'teachers/clip_b16.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, teacher={{_base_.foundation}}, teacher_ckpt='init', input_size=224)
