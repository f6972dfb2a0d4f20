"""A run that is told to end: nothing of what it has computed is lost."""
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from small_run import SETTINGS, runner_of

from sfkd.checkpoint import read_checkpoint
from sfkd.openmmlab import resuming
from sfkd.openmmlab.resuming import newest_checkpoint


class SignalHook(Hook):
    """Somebody ends the run while a step is at hand."""

    def __init__(self, at, validation=None):
        self.at, self.validation = at, validation  # steps; how many validations have begun

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        if self.validation is not None and batch_idx == 1:
            self.validation -= 1
            if not self.validation:
                os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('setting', [SETTINGS[1], SETTINGS[2]], ids=str)
def test_a_run_that_is_told_to_end_twice_in_an_epoch(uninterrupted, tmp_path, said, setting):
    for at in (9, 10, 11):
        runner = runner_of(tmp_path / 'run', *setting, resume=newest_checkpoint(tmp_path / 'run'))
        runner.register_hook(SignalHook(at))
        with pytest.raises(resuming.Ended):
            runner.train()
    assert Path(newest_checkpoint(tmp_path / 'run')).name == 'iter_11.pth'
    again = runner_of(tmp_path / 'run', *setting, resume=newest_checkpoint(tmp_path / 'run'))
    again.train()
    assert said == []
    for key, value in uninterrupted(*setting).items():
        assert torch.equal(again.model.state_dict()[key], value), key


@pytest.mark.parametrize('steps', [9, 12])
@pytest.mark.parametrize('setting', SETTINGS, ids=str)
def test_a_signal_saves_in_the_middle_of_an_epoch(uninterrupted, tmp_path, setting, steps):
    runner = runner_of(tmp_path / 'run', *setting)
    runner.register_hook(SignalHook(steps))
    with pytest.raises(resuming.Ended, match='SIGTERM: the run has ended; .* has it all.*--resume') as ended:
        runner.train()
    assert ended.value.status == 143
    file = newest_checkpoint(tmp_path / 'run')
    assert Path(file).name == f'iter_{steps}.pth'
    again = runner_of(tmp_path / 'run', *setting, resume=file)
    again.train()
    for key, value in uninterrupted(*setting).items():
        assert torch.equal(again.model.state_dict()[key], value), key
    assert setting[0] == 'iterations' or not Path(file).exists()  # the next checkpoint has taken its place


@pytest.mark.parametrize('interval, name', [(1, None), (3, 'iter_12.pth')])
@pytest.mark.parametrize('setting', SETTINGS, ids=str)
def test_a_signal_in_a_validation_loses_no_step(uninterrupted, tmp_path, setting, interval, name):
    """Whatever the last checkpoint was; the validation is made up for."""
    iterations = setting[0] == 'iterations'  # with a validation every third step
    interval = interval * 4 if iterations and interval > 1 else interval
    runner = runner_of(tmp_path / 'run', *setting, interval=interval)
    runner.register_hook(SignalHook(None, validation=4 if iterations else 2))
    with pytest.raises(resuming.Ended, match='SIGTERM: the run has ended; .* has it all.*--resume'):
        runner.train()
    file = newest_checkpoint(tmp_path / 'run')
    assert read_checkpoint(file, 'test')['meta']['iter'] == 12
    assert name is None or iterations or Path(file).name == name
    again = runner_of(tmp_path / 'run', *setting, interval=interval, resume=file)
    again.register_hook(counter := SignalHook(None, validation=99))
    again.train()
    assert 99 - counter.validation == (5 if iterations else 3)  # of 8 or 4, that one again
    for key, value in uninterrupted(*setting).items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_a_best_score_that_is_made_up_for_keeps_the_checkpoint_that_is_gone_on_from(tmp_path):
    """It is saved again under its name, which is that of the one a signal has left."""
    class Killed(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            raise SystemExit

    runner = runner_of(tmp_path / 'run', 'iterations', interval=6)
    runner.register_hook(SignalHook(None, validation=1))  # after three steps
    with pytest.raises(resuming.Ended):
        runner.train()
    file = newest_checkpoint(tmp_path / 'run')
    again = runner_of(tmp_path / 'run', 'iterations', interval=6, resume=file)
    again.register_hook(Killed())
    with pytest.raises(SystemExit):
        again.train()
    assert list((tmp_path / 'run').glob('best_score_iter_3.pth'))
    assert newest_checkpoint(tmp_path / 'run') == file and Path(file).name == 'iter_3.pth'


class NaNHook(Hook):
    """From the fifth step on a weight is no number."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 4:
            runner.model.net[0].bias.data.fill_(torch.nan)


@pytest.mark.parametrize('at', [None, 5])
def test_what_ends_a_run_out_of_turn_does_not_replace_a_good_checkpoint_by_one_of_nan(tmp_path, at):
    """The last step, or a signal: neither waits for the next look at the losses."""
    runner = runner_of(tmp_path / 'run', 'iterations', interval=4, end=1 if at is None else 4)
    runner.register_hook(NaNHook())
    if at is not None:
        runner.register_hook(SignalHook(at))
    with pytest.raises(FloatingPointError, match='iteration 5: not finite: loss; the last checkpoint is kept'):
        runner.train()
    assert Path(newest_checkpoint(tmp_path / 'run')).name == 'iter_4.pth'


def test_a_signal_in_a_validation_that_is_made_up_for(uninterrupted, tmp_path):
    runner = runner_of(tmp_path / 'run', interval=3)
    runner.register_hook(SignalHook(None, validation=2))
    with pytest.raises(resuming.Ended):
        runner.train()
    for _ in range(2):
        file = newest_checkpoint(tmp_path / 'run')
        again = runner_of(tmp_path / 'run', interval=3, resume=file)
        again.register_hook(SignalHook(None, validation=1))
        with pytest.raises(resuming.Ended, match='iter_12.pth has it all'):
            again.train()
    again = runner_of(tmp_path / 'run', interval=3, resume=newest_checkpoint(tmp_path / 'run'))
    again.train()
    for key, value in uninterrupted('epochs', 0, False).items():
        assert torch.equal(again.model.state_dict()[key], value), key


class LooksHook(Hook):
    """Looks at the validation set before the training, as TeacherReportHook does; later the whole process group is told
    to end, as Slurm does it.
    """

    def before_train(self, runner):
        for _ in runner.val_dataloader:
            pass

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 8:
            workers = multiprocessing.active_children()
            assert len(workers) == 2
            for process in (*workers, multiprocessing.current_process()):
                os.kill(process.pid, signal.SIGTERM)
            time.sleep(0.2)


def test_a_signal_to_workers_that_a_hook_had_begun(tmp_path):
    runner = runner_of(tmp_path / 'run', workers=1, persistent=True)
    runner._val_dataloader.update(num_workers=1, persistent_workers=True)
    runner.register_hook(LooksHook(), 'HIGH')
    with pytest.raises(resuming.Ended, match='iter_9.pth has it all'):
        runner.train()
