# CIFAR-100, Swin-T to ResNet-18; total batch 8 x 128 = 1024:
# bash tools/dist_train.sh configs/sfkd/cls_cifar100_swin_t_to_r18.py 8
# The recipe is the student's base's, the distillation weights are SFKD's defaults. Not run to the end by this project.
_base_ = 'students/cifar100_r18.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, logit_weight=1.0,
    teacher='sfkd::sfkd/teachers/cifar100_swin_t.py',
    teacher_ckpt='work_dirs/cifar100_swin_t/epoch_50.pth')  # bash tools/dist_train.sh configs/sfkd/teachers/cifar100_swin_t.py 8
