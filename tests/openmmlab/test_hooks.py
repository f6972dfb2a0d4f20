"""Hooks around a run, in short real ones on random pictures."""
import re

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from small_run import Model, runner_of
from torch import nn
from torch.utils.data import Dataset

from sfkd.openmmlab import hooks
from sfkd.openmmlab.amp import CPUAmpOptimWrapper
from sfkd.openmmlab.hooks import InvalidLossHook, TeacherCacheHook, TeacherReportHook

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


def test_a_teacher_of_other_pictures_or_without_predictions_is_not_scored(zoo, tmp_path, caplog):
    run = runner(zoo, tmp_path, zoo.distil(zoo.mixer(), zoo.resnet(), teacher_input_size=96), [])
    run.logger.addHandler(caplog.handler)
    TeacherReportHook().before_train(run)
    assert 'the teacher is shown pictures of 96x96 px, not those of the data set, so it is not scored' in caplog.text
    teacher = run.model.distillation.teacher
    teacher.input_size, teacher.network = None, teacher.network.backbone
    TeacherReportHook().before_train(run)
    assert 'the teacher, ResNet, is no model of OpenMMLab and predicts nothing, so it is not scored' in caplog.text


def test_an_averaged_copy_does_not_hold_a_teacher_whose_features_are_all_kept(zoo, tmp_path, monkeypatch):
    run = runner(zoo, tmp_path, zoo.distil(zoo.mixer(), zoo.resnet()), [dict(type='EMAHook')])
    kept = object()
    monkeypatch.setattr(hooks, 'TeacherCache', lambda *args: kept)
    monkeypatch.setattr(hooks, 'ReplayedDataset', Pictures)
    monkeypatch.setattr(Pictures, 'variants', 1, raising=False)
    monkeypatch.setattr(TeacherCacheHook, '_fingerprint', lambda *args: {})
    run.call_hook('before_run')
    TeacherCacheHook(str(tmp_path)).before_train(run)
    averaged = next(hook for hook in run.hooks if isinstance(hook, EMAHook)).ema_model.module
    assert run.model.distillation.teacher is kept and averaged.distillation.teacher is kept


def test_the_teachers_preprocessor_follows_the_student_to_another_device(zoo):
    """val_step casts the batch by it."""
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(mean=(1, 2, 3))).to('meta')
    teacher = distiller.distillation.teacher
    assert teacher.network.data_preprocessor.device.type == distiller.data_preprocessor.device.type == 'meta'
    assert {tensor.device.type for tensor in teacher.affine[:2]} == {'meta'}


# ---- steps whose losses are no numbers ----

class PoisonHook(Hook):
    """Makes pictures of some iterations no numbers."""

    def __init__(self, *at):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 in self.at:
            data_batch['inputs'][0].fill_(torch.nan)


class Scaled(AmpOptimWrapper):
    """mmengine's, with torch's scaler for CPUs."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler, self._scale_update_param = torch.amp.GradScaler('cpu'), None

    optim_context = OptimWrapper.optim_context


@pytest.mark.parametrize('wrapper', [OptimWrapper, CPUAmpOptimWrapper, Scaled])
def test_as_many_steps_are_left_out_as_were_allowed(tmp_path, wrapper):
    def run(name, *at):
        runner = runner_of(tmp_path / name, end=1)
        runner.optim_wrapper['type'] = wrapper
        runner.model.net.insert(0, nn.BatchNorm1d(2))
        runner.register_hook(PoisonHook(*at))
        hook = next(hook for hook in runner.hooks if isinstance(hook, InvalidLossHook))
        hook.skip = 1
        runner.train()
        return runner.model, hook
    model, hook = run('one', 2)
    assert hook.skipped == (wrapper is not Scaled) and all(value.isfinite().all()
                                                           for value in model.state_dict().values())
    assert model.net[0].running_mean.abs().min() > 0
    message = ('iteration 2: not finite: loss .2 times, more than InvalidLossHook.skip=1' if wrapper is Scaled else
               'iteration 4: more than InvalidLossHook.skip=1 steps')
    with pytest.raises(FloatingPointError, match=message):
        run('two', 2, 4)
    assert not list((tmp_path / 'two').glob('epoch_*.pth'))


def test_the_steps_left_out_are_counted_over_the_whole_run(tmp_path):
    """Also where it was interrupted in between."""
    def start(resume=None, *at):
        runner = runner_of(tmp_path / 'run', end=2, resume=resume)
        runner.register_hook(PoisonHook(*at))
        next(hook for hook in runner.hooks if isinstance(hook, InvalidLossHook)).skip = 1
        return runner
    runner = start(None, 2)
    runner._train_loop['max_epochs'] = 1
    runner.train()
    with pytest.raises(FloatingPointError, match='iteration 8: more than InvalidLossHook.skip=1 steps'):
        start(str(tmp_path / 'run/epoch_1.pth'), 8).train()


def test_where_no_step_can_be_left_out_the_losses_are_looked_at(tmp_path):
    """Nobody knows which of several optimizers' steps belong together."""
    class Alternating(Model):
        def train_step(self, data, optim_wrapper):
            return super().train_step(data, optim_wrapper['net'])
    runner = runner_of(tmp_path, end=1)
    runner.model.__class__ = Alternating
    runner.optim_wrapper = OptimWrapperDict(net=OptimWrapper(torch.optim.SGD(runner.model.parameters(), lr=0.01)))
    runner.register_hook(PoisonHook(2))
    next(hook for hook in runner.hooks if isinstance(hook, InvalidLossHook)).skip = 1
    with pytest.raises(FloatingPointError, match='iteration 2: not finite: loss; the last checkpoint is kept'):
        runner.train()
