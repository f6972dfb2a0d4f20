"""What the command-line tools share: from a config file to a runner that is safe to start."""
from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import gc
import importlib.util
import inspect
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import VISBACKENDS, Registry
from mmengine.runner import Runner

from ..checkpoint import forbid_unsafe_loading, read_checkpoint
from ..errors import ConfigError
from ..registry import HOOKS, MODELS
from ..shipped import TOOLS
from . import mmrazor
from .building import merged, read_config
from .distiller import Distiller
from .resuming import Ended, newest_checkpoint
from .workers import end_with_parent

#: What a distillation config says about the pair; the rest of its model is the method.
PAIR_KEYS = ('student', 'student_options', 'teacher', 'teacher_ckpt', 'input_size', 'teacher_input_size',
             'teacher_precision', 'teacher_compile', 'channels_last', 'task_weight', 'data_preprocessor')
#: Hooks of every distillation run, unless the config names the same type itself.
DISTILLATION_HOOKS = ('StudentCheckpointHook', 'InvalidLossHook', 'DataCheckHook', 'ProgressHook', 'CurveGroupsHook')
#: The packages that can draw a run's curves, and mmengine's way to each.
LOGGERS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend', mlflow='MLflowVisBackend')


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """A user's mistake ends the program with its message and status 2, a signal to end with its own; without a
    traceback.
    """
    program = os.path.basename(sys.argv[0])
    try:
        yield
    except ConfigError as error:
        count = len(error.problems)
        print(f'{program}: {count} problem{"s" * (count > 1)} in the input\n{error}', file=sys.stderr)
        sys.exit(2)
    except Ended as ended:
        print(f'{program}: {ended}', file=sys.stderr)
        sys.exit(ended.status)


def tool_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that training and testing share, as OpenMMLab's tools have them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override parts of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0)
    return parser


def prepare_process(launcher: str = 'none', local_rank: int = 0) -> None:
    """Before anything is built: refuse unsafe checkpoints, quiet what no user can act on, keep memory, and join the
    other processes on a CPU.
    """
    if launcher == 'pytorch':
        end_with_parent()
        meet_anew()
    forbid_unsafe_loading()
    keep_freed_memory()
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    warnings.filterwarnings('ignore', category=FutureWarning)
    if launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')  # mmengine's own launcher knows GPUs only


def meet_anew() -> None:
    """After a restart by torchrun: the processes find each other through a store of their own, at MASTER_PORT plus the
    number of restarts.

    The agent's store lives on with a static rendezvous (``--master_addr``), and in it the addresses of the processes
    that died: who looks before the new ones are written there, calls the dead.
    """
    restarts = int(os.environ.get('TORCHELASTIC_RESTART_COUNT') or 0)
    if restarts and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == str(True):
        os.environ['TORCHELASTIC_USE_AGENT_STORE'] = str(False)
        os.environ['MASTER_PORT'] = str(int(os.environ['MASTER_PORT']) + restarts)


def keep_freed_memory() -> None:
    """Without a GPU: have glibc keep the memory of freed tensors for the next ones.

    By default it hands large ones back to the system, and each step asks for them anew, page by page, cleared by the
    kernel (docs/benchmarks.md). Other C libraries and systems are left as they are.
    """
    if sys.platform == 'linux' and not torch.cuda.is_available():
        most, trim_threshold, mmap_threshold = 2 ** 31 - 1, -1, -3  # the numbers are those of malloc.h
        with contextlib.suppress(AttributeError):  # no mallopt: not glibc
            allocator = ctypes.CDLL(None)
            allocator.mallopt(trim_threshold, most)
            allocator.mallopt(mmap_threshold, most)


@contextlib.contextmanager
def leaving_together() -> Iterator[None]:
    """End the process group after the work, once nothing of the work holds it any more.

    A group that is still alive when Python ends lets its threads release tensors of an interpreter that is gone, and
    the process aborts after its work is done, now and then. So the body is one call, whose locals are free when it
    returns.
    """
    try:
        yield
    except Ended as ended:
        traceback.clear_frames(ended.__traceback__)
        _leave()
        raise
    _leave()


def _leave() -> None:
    if torch.distributed.is_initialized():
        gc.collect()  # a distributed model is part of reference cycles
        torch.distributed.destroy_process_group()


def load_config(path: str, work_dir: str | None = None, options: dict | None = None,
                method: str | None = None) -> Config:
    """Read a config, apply command-line options, and choose the work directory (argument, config, then
    ``work_dirs/<name>``).

    Args:
        path: the config, as :func:`~sfkd.openmmlab.building.read_config` takes it.
        work_dir, options: from the command line.
        method: a config file of ``configs/peers/``: how the pair in ``path`` is distilled, in place of what ``path``
            says about that.

    A config of mmrazor becomes one of ours (mmrazor.py).

    Raises:
        ConfigError: if there is no such file, if its library is not installed, if ``method`` is given and the config
            has no pair, if an option is of what has no keys, or if mmrazor's cannot be expressed.
    """
    config = read_config(path, 'config')
    scope = config.get('default_scope')
    if scope in ('mmpretrain', 'mmdet', 'mmseg') and importlib.util.find_spec(scope) is None:
        raise ConfigError(f"default_scope: '{scope}' is not installed; get the libraries of configs and tools with: "
                          "pip install 'sfkd[mm]'")
    if method is not None:
        if not is_distillation(config):
            raise ConfigError(
                f"--method: '{path}' trains a model alone; give the config of a pair (model.student, model.teacher)")
        config.model = dict(
            read_config(method, '--method').model, **{key: config.model[key]
                                              for key in PAIR_KEYS if key in config.model})
    if options:
        try:
            config.merge_from_dict(options)
        except (KeyError, TypeError) as error:
            raise ConfigError(_within_paths(config, options) or f'--cfg-options: {error}') from error
    if str(config.get('model', {}).get('type')).endswith('SingleTeacherDistill'):
        config = mmrazor.translate(config)
    config.work_dir = work_dir or config.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    return config


def _within_paths(config: Config, options: dict) -> list[str]:
    """What is wrong with options that reach into a student or teacher which another config file has."""
    ways = dict(student='give model.student_options.{} instead',
                teacher='write a config of which it is the _base_ with {} in its model, and give that as model.teacher')
    paths = {side: config.model[side] for side in ways if isinstance(config.get('model', {}).get(side), str)}
    return [f"{key}: model.{side} is the path '{path}', in which no key can be set; "
            + ways[side].format(key.removeprefix(f'model.{side}.'))
            for side, path in paths.items() for key in options if key.startswith(f'model.{side}.')]


def check_data(config: Config, splits: tuple[str, ...] = ('train', 'val', 'test')) -> None:
    """Check that the folders and files that the config's data sets name are there.

    Raises:
        ConfigError: naming each missing one and the command or page that makes it.
    """
    problems = {}
    for split in splits:
        dataset = (config.get(f'{split}_dataloader') or {}).get('dataset') or {}
        while 'dataset' in dataset and isinstance(dataset['dataset'], dict):
            dataset = dataset['dataset']
        root = dataset.get('data_root') or ''
        prefix = dataset.get('data_prefix') or ''
        named = dict(data_root='', ann_file=dataset.get('ann_file') or '')
        named |= {f'data_prefix.{key}': value
                  for key, value in prefix.items()} if isinstance(prefix, dict) else {'data_prefix': prefix}
        for key, value in named.items():
            path = Path(root, value)
            remote = '://' in f'{root} {value}'  # a path prints one slash of the two
            if (root or value) and not remote and not path.exists() and path not in problems:
                problems[path] = f"{split}_dataloader.dataset.{key}: there is no '{path}'; {_remedy(path)}"
    if problems:
        raise ConfigError(list(problems.values()))


def _remedy(path: Path) -> str:
    if 'digits_wild' in path.parts:
        task = path.parts[path.parts.index('digits_wild') + 1:][:1]
        return f'make it with: sfkd make {"".join(task)}'.rstrip()
    if path.name == 'fashion_mnist':
        return f"get it with: bash {TOOLS / 'get_fashion_mnist.sh'}"
    return 'see docs/data.md for how to lay it out, or set data_root'


def log_to(config: Config, names: Sequence[str]) -> None:
    """Have a run's curves go to other loggers too, beside those that its config names.

    Args:
        config: of the run.
        names: some of ``LOGGERS``.

    Raises:
        ConfigError: where one is not installed.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"--log-to: not installed; pip install {' '.join(missing)}")
    os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')  # MLflow 3 keeps runs in files only where told to
    if not names:
        return
    if config.get('visualizer') is None:
        config.visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
    backends = config.visualizer.get('vis_backends') or []
    backends = [backends] if isinstance(backends, dict) else backends  # mmengine takes a single one too
    present = [class_of(backend, VISBACKENDS, config) for backend in backends]
    config.visualizer.vis_backends = [*backends, *(dict(type=LOGGERS[name]) for name in names
                                                   if VISBACKENDS.get(LOGGERS[name]) not in present)]


def is_distillation(config: Config) -> bool:
    """Whether a config's model distils: :class:`Distiller`, ``SFKD`` or a registered subclass of them."""
    kind = class_of(config.model, MODELS, config)
    return inspect.isclass(kind) and issubclass(kind, Distiller)


def class_of(part: dict, registry: Registry, config: Config) -> type | None:
    """What a part of a config is to become: its type may be a class, a name in the config's scope or another, or, in
    the dump of a config of classes, a module's path.

    Returns:
        type: or None where nothing has that name.
    """
    kind = part.get('type')
    if isinstance(kind, str):
        with registry.switch_scope_and_registry(config.get('default_scope')) as scoped:
            kind = scoped.get(kind)
    return kind


def student_config(config: Config) -> Config:
    """The config of a distillation run with its student alone as the model, which sees pictures as it does in
    training: no teacher is built or loaded.
    """
    config = copy.deepcopy(config)
    student, options = config.model.student, config.model.get('student_options')
    if 'data_preprocessor' in config.model:
        config.data_preprocessor = config.model.data_preprocessor
    if isinstance(student, str):
        stock = read_config(student, 'model.student')
        student = dict(stock.model, _scope_=stock.get('default_scope'))
        if 'data_preprocessor' in stock:
            config.data_preprocessor = stock.data_preprocessor
    config.model = merged(student, options, 'model.student_options') if options else student
    if config.get('data_preprocessor') is not None:  # a cohort takes the model alone
        config.model.setdefault('data_preprocessor', config.data_preprocessor)
    return config


def prepare_resume(config: Config, asked: str | None) -> None:
    """Say in the config where a run goes on.

    A run that torchrun (``MAX_RESTARTS``) or Slurm (requeue) has started again goes on by itself. Without a checkpoint
    to go on from it begins anew, as its first start did.

    Args:
        config: of the run; gets ``resume``, ``load_from`` and, if it has none, the interrupted run's seed.
        asked: a checkpoint, 'auto' for the newest whole one in the work directory, or None.

    Raises:
        ConfigError: if the checkpoint that is asked for cannot be read, or is of a student alone.
    """
    again = any(int(os.environ.get(name) or 0) for name in ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT'))
    if asked is None and not again:
        return
    if asked in (None, 'auto'):
        file = newest_checkpoint(config.work_dir)
        print_log(f"--resume: {'from ' + file if file else f'no checkpoint in {config.work_dir}: the run begins anew'}",
                  'current')
    else:
        file = asked
    if file is None:
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


def build_runner(config: Config, launcher: str = 'none') -> Runner:
    """A runner with the hooks of a distillation run and, on a CPU, one that can join other processes.

    Raises:
        ConfigError: if nothing can be written into the work directory.
    """
    try:
        Path(config.work_dir).mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=config.work_dir).close()
    except OSError as error:
        raise ConfigError(
            f"--work-dir: nothing can be written into '{config.work_dir}' ({error.strerror}); give another") from error
    config.launcher = launcher
    add_hooks(config)
    if not config.model.get('task_weight', 1):  # a head without a loss gets no gradient, for which DDP would wait
        config.find_unused_parameters = True
    if launcher == 'pytorch' and not torch.cuda.is_available():
        config.setdefault('model_wrapper_cfg', dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False)))
    runner = _Runner.from_cfg(config)
    for handler in runner.logger.handlers:
        if type(handler) is logging.StreamHandler:  # mmengine's entry for each weight stays in the file
            handler.addFilter(lambda record: ' - torch.Size([' not in record.getMessage())
    return runner


def score_on(config: Config, split: str) -> None:
    """Have a config's test be of one of its splits.

    Args:
        config: of a run.
        split: 'test' or 'val'.

    Raises:
        ConfigError: if it has none.
    """
    if not config.get(f'{split}_dataloader'):
        raise ConfigError(f'{split}_dataloader: the config has none, so there is nothing to score on; give the config '
                          'that the run was started with, or another --split')
    for part in ('cfg', 'dataloader', 'evaluator'):
        config[f'test_{part}'] = config.get(f'{split}_{part}')


def plain_scores(scores: dict) -> dict:
    """A runner's scores as JSON takes them: numbers as float, tensors and arrays, such as a confusion matrix, as lists;
    what else a metric gives as it is.
    """
    values = {key: value.tolist() if hasattr(value, 'tolist') else value for key, value in scores.items()}
    return {key: float(value) if isinstance(value, (int, float)) else value for key, value in values.items()}
