# CNN to transformer: the Swin that teaches, shipped as students/resnet_to_swin.safetensors, with its log, made by
#   python tools/train.py configs/fashion/resnet_to_swin.py
#   python tools/zoo.py add sfkd::fashion/resnet_to_swin.py work_dirs/resnet_to_swin
_base_ = 'swin.py'
model = dict(
    _delete_=True, type='SFKD', student={{_base_.model}}, input_size=28, spatial_weight=0.625, frequency_weight=0.625, logit_weight=1.0,
    teacher='sfkd::fashion/resnet.py', teacher_ckpt='sfkd::fashion/teachers/resnet.safetensors')
custom_hooks = [dict(type='sfkd.TeacherCacheHook', folder='work_dirs/teacher_cache/{fingerprint}', stored='bf16')]
