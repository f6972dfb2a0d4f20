# A backbone that learns from the teacher alone, from pictures without labels (docs/without_labels.md). The head of student_latest.pth
# has learned nothing; into a stock config goes the backbone:
#   init_cfg=dict(type='Pretrained', checkpoint='.../student_latest.pth', prefix='backbone.')
_base_ = 'cls_swin_to_resnet8.py'
# This teacher has no stage of stride 32, which the last stage of the student could be paired with by itself
model = dict(task_weight=0, pairs=['auto', dict(student='backbone.layer4', teacher='backbone.norm2')])
train_dataloader = dict(dataset=dict(
    _delete_=True, type='sfkd.PictureFolder', data_root='data/digits_wild/cls/train', pipeline={{_base_.train_pipeline}}))
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None  # a student without a head has no score
