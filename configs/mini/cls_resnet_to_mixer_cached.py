# The quickstart pair with a teacher cache: four augmentations of each picture, drawn anew every epoch; once the teacher has seen them all,
# no teacher runs. 0.9 GiB at most; a second run (another seed, other losses on the same taps) needs no teacher at all.
_base_ = 'cls_resnet_to_mixer.py'
train_dataloader = dict(dataset=dict(_delete_=True, type='sfkd.ReplayedDataset', dataset={{_base_.train_dataloader.dataset}}, variants=4))
custom_hooks = [dict(type='sfkd.TeacherCacheHook', folder='work_dirs/teacher_cache/cls_resnet_to_mixer')]
