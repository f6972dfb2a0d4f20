# COCO, DINOv3 ConvNeXt-T to RetinaNet R18: bash tools/dist_train.sh configs/foundation/det_dinov3_convnext_tiny_to_retinanet_r18.py 8
# The student's own data and schedule. Not run to the end by this project: no accuracy is claimed (docs/foundation_teachers.md).
_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', 'teachers/dinov3_convnext_tiny.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, teacher={{_base_.foundation}}, teacher_ckpt='init', input_size=512)
