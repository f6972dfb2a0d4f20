"""Full checkpoints are never fewer than one, and a resumed run is the uninterrupted one."""
import os
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from small_run import SETTINGS, runner_of

from sfkd.checkpoint import read_checkpoint
from sfkd.errors import ConfigError
from sfkd.openmmlab import resuming, running
from sfkd.openmmlab.resuming import newest_checkpoint
from sfkd.openmmlab.workers import end_workers


class Stop(Exception):
    """Ends a run as a kill would: nothing more is written."""


def stop_after(runner, moment, count):
    """Raise at the count-th call of a hook's moment, before anything else is done there."""
    calls = []

    def called(*_, **__):
        calls.append(1)
        if len(calls) == count:
            raise Stop
    hook = Hook()
    setattr(hook, moment, called)
    runner.register_hook(hook, 'VERY_HIGH')


MOMENTS = [('after_train_iter', 10), ('after_train_epoch', 2), ('before_val_epoch', 2), ('before_train_epoch', 3)]


@pytest.mark.parametrize('setting, moment, count', [
    *((SETTINGS[0], *moment) for moment in MOMENTS), *((setting, *MOMENTS[2]) for setting in SETTINGS[1:]),
    *((setting, *MOMENTS[0]) for setting in SETTINGS[2:])], ids=str)
def test_a_killed_run_ends_as_the_uninterrupted_one(uninterrupted, tmp_path, setting, moment, count):
    runner = runner_of(tmp_path / 'run', *setting)
    stop_after(runner, moment, count)
    with pytest.raises(Stop):
        runner.train()
    end_workers(runner)
    again = runner_of(tmp_path / 'run', *setting, resume=newest_checkpoint(tmp_path / 'run'))
    again.train()
    for key, value in uninterrupted(*setting).items():
        assert torch.equal(again.model.state_dict()[key], value), key


@pytest.mark.parametrize('interval, moment, count', [
    (4, 'before_train_iter', 12), (6, 'after_train_epoch', 2), (6, 'before_val_epoch', 2)])
def test_epochs_with_checkpoints_by_iterations_validate_at_their_ends_alone(uninterrupted, tmp_path, interval, moment,
                                                                            count):
    runner = runner_of(tmp_path / 'run', by_epoch=False, interval=interval)
    stop_after(runner, moment, count)
    with pytest.raises(Stop):
        runner.train()
    file = newest_checkpoint(tmp_path / 'run')
    again, validated = runner_of(tmp_path / 'run', by_epoch=False, interval=interval, resume=file), []
    hook = Hook()
    hook.after_val_epoch = lambda runner, metrics: validated.append(runner.iter)
    again.register_hook(hook)
    again.train()
    assert Path(file).name == ('iter_8.pth' if interval == 4 else 'iter_12.pth') and validated == [12, 18, 24]
    for key, value in uninterrupted(*SETTINGS[0]).items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_a_run_that_is_killed_again_before_each_worker_has_made_a_batch(uninterrupted, tmp_path, said):
    """The checkpoint after the first step that is resumed holds the random state of the other worker too."""
    setting, file = ('iterations', 2, False), None
    for count in (8, 2, 2):
        runner = runner_of(tmp_path / 'run', *setting, resume=file)
        stop_after(runner, 'after_train_iter', count)
        with pytest.raises(Stop):
            runner.train()
        end_workers(runner)
        file = newest_checkpoint(tmp_path / 'run')
    assert Path(file).name == 'iter_9.pth'
    again = runner_of(tmp_path / 'run', *setting, resume=file)
    again.train()
    assert said == []
    for key, value in uninterrupted(*setting).items():
        assert torch.equal(again.model.state_dict()[key], value), key


def test_the_old_checkpoint_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    """At every rename and removal in a run there is a whole checkpoint, and ``last_checkpoint`` names one."""
    folder, seen = tmp_path / 'run', []
    replace, unlink = os.replace, os.unlink

    def look():
        if (folder / 'last_checkpoint').exists():
            named = Path((folder / 'last_checkpoint').read_text())
            seen.append(named.name)
            assert 'optimizer' in read_checkpoint(str(named), 'test')

    def looking(function):
        def looks(*args, **kwargs):
            look()
            result = function(*args, **kwargs)
            look()
            return result
        return looks
    monkeypatch.setattr(os, 'replace', looking(replace))
    monkeypatch.setattr(os, 'remove', looking(os.remove))
    monkeypatch.setattr(os, 'unlink', looking(unlink))
    runner_of(folder, end=3).train()
    assert set(seen) == {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'} and len(seen) > 10
    assert len(list(folder.glob('epoch_*.pth'))) == 1 and len(list(folder.glob('best_*.pth'))) == 1


def test_a_full_disk_leaves_what_was_saved(tmp_path, monkeypatch):
    folder, save, calls = tmp_path / 'run', torch.save, []

    def full(content, file):
        calls.append(file)
        if 'epoch_3' not in str(file):
            return save(content, file)
        Path(file).write_bytes(b'half')
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(torch, 'save', full)
    with pytest.raises(ConfigError,
                       match=r"cannot write '.*epoch_3.pth' \(.*No space left.*MiB are free there\): make room"):
        runner_of(folder).train()
    assert newest_checkpoint(folder) == str(folder / 'epoch_2.pth')
    assert not [file for file in folder.iterdir() if file.name.startswith('.')]


def test_the_newest_whole_checkpoint_is_found(tmp_path, said):
    folder = tmp_path / 'run'
    assert newest_checkpoint(folder) is None
    runner_of(folder, end=3, max_keep_ckpts=-1).train()
    assert newest_checkpoint(folder) == str(folder / 'epoch_3.pth')
    (folder / 'epoch_3.pth').write_bytes((folder / 'epoch_3.pth').read_bytes()[:1000])
    assert newest_checkpoint(folder) == str(folder / 'epoch_2.pth')
    assert 'epoch_3.pth' in said[-1] and 'damaged' in said[-1] and 'skipped' in said[-1]
    (folder / 'last_checkpoint').write_text('')
    assert newest_checkpoint(folder) == str(folder / 'epoch_2.pth')
    moved = folder.rename(tmp_path / 'moved')
    (moved / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))
    assert newest_checkpoint(moved) == str(moved / 'epoch_1.pth')


def test_checkpoints_without_an_optimizer_are_no_beginning_anew(tmp_path):
    runner_of(tmp_path / 'run', end=2, save_optimizer=False).train()
    assert newest_checkpoint(tmp_path / 'run') is None
    with pytest.raises(ConfigError, match='--resume: .*epoch_2.pth. holds no optimizer .*save_optimizer.*load_from='):
        running.prepare_resume(Config(dict(work_dir=str(tmp_path / 'run'))), 'auto')


def test_a_config_may_ask_to_resume(tmp_path):
    """As by the flag: with the run's seed, and not from a damaged checkpoint."""
    runner_of(tmp_path / 'run', end=2, max_keep_ckpts=2).train()
    (tmp_path / 'run/epoch_2.pth').write_bytes(b'PK')
    for given in {}, dict(load_from=str(tmp_path / 'run/epoch_1.pth')):
        config = Config(dict(work_dir=str(tmp_path / 'run'), resume=True, randomness=dict(seed=None), **given))
        running.prepare_resume(config, None)
        assert config.resume and config.load_from == str(tmp_path / 'run/epoch_1.pth')
        assert config.randomness.seed == 3
    config = Config(dict(work_dir=str(tmp_path / 'other'), resume=True))
    running.prepare_resume(config, None)
    assert not config.resume


def test_what_is_not_exact_is_said(tmp_path, said):
    runner_of(tmp_path / 'run', workers=2).train()
    file = newest_checkpoint(tmp_path / 'run')
    whole = read_checkpoint(file, 'test')
    runner_of(tmp_path / 'run', workers=1, resume=file, end=5).train()
    assert 'of 2 data workers a process, and this run has 1: the resumed run sees other random numbers' in said[-1]
    whole['resume']['processes'] *= 2
    assert resuming._inexact(whole['resume'], 2) == 'the checkpoint is of 2 processes, and this run has 1'
    assert 'holds no random states' in resuming._inexact({}, 2)


@pytest.mark.parametrize('name', ['TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'])
def test_a_run_that_is_started_again_goes_on_by_itself(tmp_path, monkeypatch, name):
    config = Config(dict(work_dir=str(tmp_path / 'run'), load_from='start.pth', randomness=dict(deterministic=True)))
    running.prepare_resume(config, None)
    assert 'resume' not in config
    monkeypatch.setenv(name, '1')
    running.prepare_resume(config, None)  # nothing to go on from: as the first start
    assert 'resume' not in config and config.load_from == 'start.pth'
    runner_of(tmp_path / 'run', end=1).train()
    running.prepare_resume(config, None)
    assert config.resume and config.load_from == str(tmp_path / 'run/epoch_1.pth')
    assert config.randomness == dict(seed=3, deterministic=True)


def test_a_run_that_is_started_again_does_not_go_on_from_what_an_earlier_one_left(tmp_path, monkeypatch):
    """That fell before its first checkpoint, in a folder that was used before. Another job there changes nothing."""
    monkeypatch.setenv('SLURM_JOB_ID', '6')
    runner_of(tmp_path / 'run', end=2).train()
    time.sleep(0.05)
    config = Config(dict(work_dir=str(tmp_path / 'run')))
    running.prepare_resume(config, None)
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    running.prepare_resume(config, None)
    assert 'resume' not in config
    time.sleep(0.05)
    runner_of(tmp_path / 'run', end=1).train()
    time.sleep(0.05)
    with monkeypatch.context() as other:  # which is refused later, say
        other.setenv('SLURM_JOB_ID', '7')
        other.setenv('SLURM_RESTART_COUNT', '0')
        running.prepare_resume(Config(dict(work_dir=str(tmp_path / 'run'))), None)
    running.prepare_resume(config, None)
    assert config.load_from == str(tmp_path / 'run/epoch_1.pth')


def test_a_run_from_a_named_checkpoint_that_is_started_again_goes_on_from_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv('SLURM_JOB_ID', '6')
    runner_of(tmp_path / 'run', end=3, max_keep_ckpts=-1).train()  # an earlier one, which had gone further
    named = str(tmp_path / 'run/epoch_1.pth')

    def goes_on_from():
        config = Config(dict(work_dir=str(tmp_path / 'run')))
        running.prepare_resume(config, named)
        return config.load_from
    time.sleep(0.05)
    assert goes_on_from() == named
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert goes_on_from() == named
    time.sleep(0.05)
    runner_of(tmp_path / 'run', end=2, resume=named, max_keep_ckpts=-1).train()
    assert goes_on_from() == str(tmp_path / 'run/epoch_2.pth')


def test_a_students_checkpoint_is_none_to_resume_from(tmp_path):
    def refused(message, **others):
        torch.save(dict(dict(state_dict={}, meta={}), **others), tmp_path / 'student.pth')
        with pytest.raises(ConfigError, match=f'--resume: .*student.pth. {message}.*load_from='):
            running.prepare_resume(Config(dict(work_dir=str(tmp_path))), str(tmp_path / 'student.pth'))
    refused('holds no optimizer')
    refused('holds no optimizer', optimizer=None, meta=dict(epoch=1, iter=3))
    refused('does not say at which epoch', optimizer={}, meta='text')
    refused('does not say at which epoch', optimizer={}, meta=dict(epoch=1.5, iter=3))


@pytest.mark.parametrize('key, value', [('optimizer', {}), ('param_schedulers', ['x'])])
def test_an_optimizer_or_schedules_of_another_run_are_named(tmp_path, key, value):
    runner = runner_of(tmp_path / 'run', end=2)
    runner.train()
    checkpoint = torch.load(tmp_path / 'run/epoch_2.pth', weights_only=False)
    torch.save(dict(checkpoint, **{'param_schedulers': [], key: value}), tmp_path / 'other.pth')
    again = runner_of(tmp_path / 'again', resume=str(tmp_path / 'other.pth'))
    again.__class__ = running._Runner
    if key == 'param_schedulers':
        again.param_schedulers = [dict(type='ConstantLR')]
    with pytest.raises(ConfigError, match='--resume: the optimizer or the schedules in .*other.pth. are not of this'):
        again.train()


def test_a_work_directory_that_takes_nothing(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ConfigError, match="--work-dir: nothing can be written into '.*file/run'"):
        running.build_runner(Config(dict(work_dir=str(tmp_path / 'file/run'))))
