# Digits in the Wild, EfficientNet-Lite0 of ImageNet to a ResNet-18 of 8 channels; runs as it is, without a network:
#   python tools/make_digits_wild.py cls && python tools/train.py configs/foundation/cls_efficientnet_lite0_to_resnet8.py
# The teacher never saw such pictures. No accuracy is claimed (docs/foundation_teachers.md).
_base_ = ['../mini/cls_resnet8.py', 'teachers/efficientnet_lite0.py']
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, teacher={{_base_.foundation}}, teacher_ckpt='init',
    input_size=64, teacher_input_size=128)
