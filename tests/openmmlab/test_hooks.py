"""Hooks around a run, in short real ones on random pictures."""
import re

import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from sfkd.openmmlab.hooks import TeacherReportHook

PICTURES = 8


class Pictures(Dataset):
    metainfo = dict(classes=tuple('abcde'))

    def __init__(self, zoo):
        batch = zoo.batch(PICTURES)
        self.items = [dict(inputs=x, data_samples=s) for x, s in zip(batch['inputs'], batch['data_samples'])]

    def __len__(self):
        return PICTURES

    def __getitem__(self, index):
        return self.items[index]


def runner(zoo, tmp_path, distiller, hooks, lr=0.1, epochs=3, **optim_wrapper):
    loader = dict(dataset=Pictures(zoo), batch_size=4, num_workers=0, collate_fn=dict(type='default_collate'),
                  sampler=dict(type='DefaultSampler', shuffle=False))
    evaluator = dict(type='mmpretrain.Accuracy')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Runner(distiller, str(tmp_path), train_dataloader=loader, val_dataloader=loader,
                      train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=epochs + 1), val_cfg={},
                      val_evaluator=evaluator, cfg=dict(val_evaluator=evaluator), custom_hooks=hooks,
                      optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr), **optim_wrapper),
                      default_scope='mmpretrain', log_level='WARNING', experiment_name=tmp_path.name)


def test_a_loss_that_is_no_number_stops_the_run_before_its_checkpoint_and_is_named(zoo, tmp_path):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), frequency_weight=0.0, stages=[-1])
    run = runner(zoo, tmp_path, distiller, [dict(type='sfkd.InvalidLossHook', interval=1)])

    def overflow(_, inputs, output):
        return output * float('nan') if run.iter == 3 else output  # in the second epoch, in one term alone
    distiller.distillation.pairs[0].losses['spatial'].register_forward_hook(overflow)
    with pytest.raises(FloatingPointError) as caught:
        run.train()
    message = str(caught.value)
    assert 'iteration 4' in message and 'distill.layers_3.loss_spatial' in message and 'task.loss' not in message
    assert (tmp_path / 'epoch_1.pth').exists() and not (tmp_path / 'epoch_2.pth').exists()


def test_the_first_failure_is_named_where_some_steps_do_not_distil(zoo, tmp_path):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), every=2)
    run = runner(zoo, tmp_path, distiller, [dict(type='sfkd.InvalidLossHook')])

    def overflow(_, inputs, output):
        return output * float('nan') if run.iter == 0 else output  # from then on the weights are no numbers
    distiller.student.head.fc.register_forward_hook(overflow)
    with pytest.raises(FloatingPointError, match=r'iteration 1: not finite: task\.loss;'):
        run.train()


def test_a_training_that_diverges_is_stopped(zoo, tmp_path):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet())
    run = runner(zoo, tmp_path, distiller, [dict(type='sfkd.InvalidLossHook')], lr=1e12, epochs=20)
    with pytest.raises(FloatingPointError, match='not finite: .*the last checkpoint is kept'):
        run.train()
    saved = [torch.load(file, weights_only=False)['state_dict'] for file in tmp_path.glob('epoch_*.pth')]
    assert len(saved) < 20 and all(torch.isfinite(value).all() for weights in saved for value in weights.values())


def test_with_all_weights_zero_no_teacher_is_scored(zoo, tmp_path, caplog):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), spatial_weight=0.0, frequency_weight=0.0)

    def never(*_):
        raise AssertionError('the teacher ran, and was never loaded')
    distiller.distillation.teacher.network.backbone.register_forward_pre_hook(never)
    run = runner(zoo, tmp_path, distiller, [])
    run.logger.addHandler(caplog.handler)
    TeacherReportHook().before_train(run)
    assert 'every weight is 0, so no teacher was loaded and none is scored' in caplog.text


def test_the_teacher_report_is_the_teachers_accuracy(zoo, tmp_path, caplog):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet())
    run = runner(zoo, tmp_path, distiller, [])
    run.logger.setLevel('INFO')
    run.logger.addHandler(caplog.handler)
    TeacherReportHook().before_train(run)
    teacher, batch = distiller.distillation.teacher.network, zoo.batch(PICTURES)
    right = sum(int(sample.pred_label) == int(sample.gt_label) for sample in teacher.val_step(batch))
    assert f'teacher on the validation set: accuracy/top1: {100 * right / PICTURES:.4f}' in caplog.text


def test_the_teacher_report_has_scores_that_are_no_single_number(zoo, tmp_path, caplog):
    run = runner(zoo, tmp_path, zoo.distil(zoo.mixer(), zoo.resnet()), [])
    run.cfg.val_evaluator = [dict(type='mmpretrain.Accuracy'),
                             dict(type='mmpretrain.SingleLabelMetric', average=None, items=['support'])]
    run.logger.setLevel('INFO')
    run.logger.addHandler(caplog.handler)
    TeacherReportHook().before_train(run)
    assert re.search(r'accuracy/top1: [\d.]+  single-label/support_classwise: \[2, 2, 2, 1, 1\]', caplog.text)


def test_the_teachers_preprocessor_follows_the_student_to_another_device(zoo):
    """val_step casts the batch by it."""
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(mean=(1, 2, 3))).to('meta')
    teacher = distiller.distillation.teacher
    assert teacher.network.data_preprocessor.device.type == distiller.data_preprocessor.device.type == 'meta'
    assert {tensor.device.type for tensor in teacher.affine[:2]} == {'meta'}
