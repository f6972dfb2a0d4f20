"""From a config to a runner that is safe to start, or to the student that a run has trained."""
from __future__ import annotations

import contextlib
import inspect
import logging
import os
import socket
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import nn

from ..checkpoint import load_strictly, read_checkpoint, unwritable
from ..errors import ConfigError
from ..registry import HOOKS
from .building import build_model
from .configs import class_of, is_distillation, student_config
from .resuming import newest_checkpoint

AUTO = 'auto'  # the newest checkpoint in the work directory
BEGUN = '.begun'  # a file there, with a job's name behind: as old as the first start of that job's run
#: Hooks of every distillation run, unless the config names the same type itself.
DISTILLATION_HOOKS = ('StudentCheckpointHook', 'InvalidLossHook', 'DataCheckHook', 'ProgressHook', 'CurveGroupsHook')


def prepare_resume(config: Config, asked: str | None) -> None:
    """Say in the config where a run goes on.

    A run that torchrun (``MAX_RESTARTS``) or Slurm (requeue) has started again goes on by itself. Without a checkpoint
    to go on from it begins anew, as its first start did.

    Args:
        config: of the run; gets ``resume``, ``load_from`` and, if it has none, the interrupted run's seed.
        asked: a checkpoint, 'auto' for the newest whole one in the work directory, or None.

    Raises:
        ConfigError: if the checkpoint that is asked for cannot be read, or is of a student alone; or if there are only
            such in the work directory.
    """
    again = any(int(os.environ.get(name) or 0) for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))
    if asked is None and config.get('resume'):
        asked = config.get('load_from') or AUTO
    begun = _beginning(config)
    if begun and asked != AUTO and not again:
        with contextlib.suppress(OSError):  # that nothing can be written there is said where the runner is built
            begun.parent.mkdir(parents=True, exist_ok=True)
            begun.write_text('')
    if asked is None and not again:
        return
    # Started again by the same command: from what it has written since; what lay there before is another run's
    since = begun.stat().st_mtime if begun and asked != AUTO and again and begun.is_file() else None
    if asked in (None, AUTO):
        file = newest_checkpoint(config.work_dir, since or 0, strict=True)
        print_log(f"--resume: {'from ' + file if file else f'no checkpoint in {config.work_dir}: the run begins anew'}",
                  'current')
    else:
        file = (since and newest_checkpoint(config.work_dir, since)) or asked
    if file is None:
        if config.get('resume'):
            config.resume = False  # or mmengine would look for one itself
        return
    checkpoint = read_checkpoint(file, '--resume')
    if 'optimizer' not in checkpoint:
        raise ConfigError(
            f"--resume: '{file}' holds no optimizer: it is a student's or a model's alone; start from it with "
            f'--cfg-options load_from={file}')
    if not {'epoch', 'iter'} <= checkpoint.get('meta', {}).keys():
        raise ConfigError(f"--resume: '{file}' does not say at which epoch and iteration it was saved; start from it "
                          f'with --cfg-options load_from={file}')
    config.resume, config.load_from = True, file
    seed = checkpoint.get('meta', {}).get('seed')
    if seed is not None and (config.get('randomness')
                             or {}).get('seed') is None:  # or the data would come in another order
        config.randomness = dict(config.get('randomness') or {}, seed=seed)


def _beginning(config: Config) -> Path | None:
    """The file by which a job that is started again knows when it began; None where nothing starts it again. A job is
    Slurm's, or an agent of torchrun's: both outlive its processes.
    """
    job = os.environ.get('SLURM_JOB_ID')
    if not job and 'TORCHELASTIC_RUN_ID' in os.environ:
        job = f'{socket.gethostname()}-{os.getppid()}'
    return Path(config.work_dir, f'{BEGUN}-{job}') if job else None


def add_hooks(config: Config) -> None:
    """Add the hooks of a distillation run, and put the checkpoint hook that survives in the place of mmengine's."""
    hooks = list(config.get('custom_hooks') or [])
    present = [kind for hook in hooks if inspect.isclass(kind := class_of(hook, HOOKS, config))]
    wanted = DISTILLATION_HOOKS if is_distillation(config) else DISTILLATION_HOOKS[1:]
    config.custom_hooks = hooks + [dict(type=f'sfkd.{name}') for name in wanted
                                   if not any(issubclass(kind, HOOKS.get(name)) for kind in present)]
    config.default_hooks = config.get('default_hooks') or {}
    config.default_hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))  # as mmengine would
    saving = config.default_hooks.checkpoint  # None saves nothing
    if saving and class_of(saving, HOOKS, config) is CheckpointHook:
        saving.type = 'sfkd.ResumableCheckpointHook'


class _Formatted(Config):
    """A config whose text is formatted once for as long as nothing in it changes. mmengine wants it four times at a
    start, and again at each checkpoint.
    """

    _kept = None, None  # what was formatted, its text

    @classmethod
    def of(cls, config: Config) -> _Formatted:
        """The same values, shared."""
        formatted = cls.__new__(cls)
        formatted.__setstate__(config.__getstate__())
        return formatted

    @property
    def pretty_text(self) -> str:
        values = repr(self._cfg_dict)
        if self._kept[0] != values:
            object.__setattr__(self, '_kept', (values, super().pretty_text))  # a Config's own makes a key of it
        return self._kept[1]


class _Runner(Runner):
    """mmengine's, which names a data set that is empty, and a checkpoint whose optimizer or schedules are not this
    run's; a test leaves a training's copy of its config as it is.
    """

    def dump_config(self) -> None:
        if self._train_loop is not None:
            super().dump_config()

    @staticmethod
    def build_dataloader(dataloader, *args, **kwargs):
        try:
            return Runner.build_dataloader(dataloader, *args, **kwargs)
        except ValueError as error:
            if 'need at least one array to concatenate' not in str(error):  # mmengine, of what the set lists
                raise
            dataset = dataloader['dataset']
            files = [str(dataset[key]) for key in ('data_root', 'ann_file', 'data_prefix') if dataset.get(key)]
            raise ConfigError(f"dataset: the {dataset['type']} of {', '.join(files)} lists no picture, or filter_cfg "
                              'leaves none; see docs/data.md for how to lay it out') from error

    def resume(self, filename: str, *args, **kwargs) -> None:
        try:
            super().resume(filename, *args, **kwargs)
        except ConfigError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"--resume: the optimizer or the schedules in '{filename}' are not of this run "
                              f'({type(error).__name__}: {error}); resume with the config that the run had, or begin '
                              f'from its weights with --cfg-options load_from={filename}') from error


def _runner_class(config: Config) -> type[Runner]:
    """Ours, or a subclass of mmengine's Runner that the config names, with what ours has."""
    named = config.get('runner_type') or 'Runner'
    kind = class_of(dict(type=named), RUNNERS, config)
    if not (inspect.isclass(kind) and issubclass(kind, Runner)):
        raise ConfigError(f"runner_type: '{named}' is no Runner of mmengine's, which checkpoints and resumed runs rely "
                          'on; leave runner_type and strategy out, or give a registered subclass of Runner')
    return _Runner if kind is Runner else type(kind.__name__, (_Runner, kind), {})


def build_runner(config: Config, launcher: str = 'none') -> Runner:
    """A runner with the hooks of a distillation run and, on a CPU, one that can join other processes.

    Raises:
        ConfigError: if nothing can be written into the work directory, or if its runner is none of mmengine's Runner.
    """
    if why := unwritable(Path(config.work_dir)):
        raise ConfigError(f"--work-dir: nothing can be written into '{config.work_dir}' ({why}); give another")
    config.launcher = launcher
    add_hooks(config)
    if not config.model.get('task_weight', 1):  # a head without a loss gets no gradient, for which DDP would wait
        config.find_unused_parameters = True
    if launcher == 'pytorch' and not torch.cuda.is_available():
        config.setdefault('model_wrapper_cfg', dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False)))
    runner = _runner_class(config).from_cfg(_Formatted.of(config))
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:  # mmengine's entry for each weight stays in the file
            handler.addFilter(lambda record: ' - torch.Size([' not in record.getMessage())
    return runner


def trained_student(config: Config, checkpoint: str) -> nn.Module:
    """The student alone, in eval mode, with a run's weights.

    Args:
        config: of the run, or of a model alone.
        checkpoint: full, or of the student.

    Raises:
        ConfigError: if it cannot be built, or the checkpoint does not fit.
    """
    config = student_config(config) if is_distillation(config) else config
    network = build_model(config.model, 'model', config.get('data_preprocessor'), config.get('default_scope'))
    load_strictly(network, checkpoint)
    return network.eval()


def plain_scores(scores: dict) -> dict:
    """A runner's scores as JSON takes them: numbers as float, tensors and arrays, such as a confusion matrix, as lists;
    what else a metric gives as it is.
    """
    values = {key: value.tolist() if hasattr(value, 'tolist') else value for key, value in scores.items()}
    return {key: float(value) if isinstance(value, (int, float)) else value for key, value in values.items()}
