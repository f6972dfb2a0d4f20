# CIFAR-100, MLP-Mixer-B to ResNet-18; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/cls_cifar100_mixer_b_to_r18.py 8
# The recipe is the student's base's, the distillation weights are SFKD's defaults. Not run to the end by this project.
_base_ = 'students/cifar100_r18.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, logit_weight=1.0,
    teacher='sfkd::sfkd/teachers/cifar100_mixer_b.py',
    teacher_ckpt='work_dirs/cifar100_mixer_b/epoch_50.pth')  # bash tools/dist_train.sh configs/sfkd/teachers/cifar100_mixer_b.py 8
