"""A run's config: read, changed by the command line, asked what it is, and checked before anything is built."""
from __future__ import annotations

import copy
import importlib.util
import inspect
import os
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import VISBACKENDS, Registry

from ..datasets.checking import elsewhere
from ..errors import ConfigError
from ..registry import MODELS
from ..shipped import TOOLS
from . import mmrazor
from .building import merged, read_config
from .distiller import SFKD, Distiller

#: What a distillation config says about the pair, and when it is taught; the rest of its model is the method.
PAIR_KEYS = ('student', 'student_options', 'teacher', 'teacher_ckpt', 'input_size', 'teacher_input_size',
             'teacher_precision', 'teacher_compile', 'channels_last', 'task_weight', 'data_preprocessor', 'every',
             'until', 'share')
#: The packages that can draw a run's curves, and mmengine's way to each.
LOGGERS = dict(tensorboard='TensorboardVisBackend', wandb='WandbVisBackend', mlflow='MLflowVisBackend')


def load_config(path: str, work_dir: str | None = None, options: dict | None = None,
                method: str | None = None) -> Config:
    """Read a config, apply command-line options, and choose the work directory (argument, config, then
    ``work_dirs/<name>``; behind the last two, of another method, its name).

    Args:
        path: the config, as :func:`~sfkd.openmmlab.building.read_config` takes it.
        work_dir, options: from the command line.
        method: a config file as those of ``configs/peers/``: how the pair in ``path`` is distilled, see
            :func:`by_method`.

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
        how = read_method(method, '--method')
        config.model = by_method(config, how)
        _import_too(config, how)
    if options:
        try:
            config.merge_from_dict(options)
        except (KeyError, TypeError) as error:
            raise ConfigError(_within_paths(config, options) or f'--cfg-options: {error}') from error
    if str(config.get('model', {}).get('type')).endswith('SingleTeacherDistill'):
        config = mmrazor.translate(config)
    folder = config.get('work_dir') or str(Path('work_dirs', Path(path).stem))
    config.work_dir = work_dir or (f'{folder}_{Path(method).stem}' if method else folder)
    return config


def read_method(path: str, where: str) -> Config:
    """Read a method: a config of a model that distils, without student and teacher.

    Args:
        path, where: see :func:`~sfkd.openmmlab.building.read_config`.

    Raises:
        ConfigError: as there, or if it has no such model.
    """
    config = read_config(path, where)
    if 'type' not in (config.get('model') or {}):
        raise ConfigError(f"{where}: '{path}' has no model with a type; write it as the files in configs/peers")
    return config


def is_sfkd(model: dict, config: Config) -> bool:
    """Whether a model of a config, or of a method for it, is the preset or derived from it."""
    kind = class_of(model, MODELS, config)
    return inspect.isclass(kind) and issubclass(kind, SFKD)


def _import_too(config: Config, method: Config) -> None:
    """Have a config import what a method's does, so that the copy of it in the work directory can be built from."""
    named = [(part.get('custom_imports') or {}).get('imports') or [] for part in (config, method)]
    ours, theirs = ([names] if isinstance(names, str) else list(names) for names in named)
    if theirs:
        config.custom_imports = dict(config.get('custom_imports') or {}, imports=list(dict.fromkeys(ours + theirs)))


def by_method(config: Config, method: Config) -> dict:
    """The model of a pair that another method teaches.

    What the config says of both networks, and of when the student is taught (``PAIR_KEYS``), stays; so do, where the
    method takes the automatic pairs, those of its own that have no connector or losses of their own, and its stages.
    A form of SFKD, such as ``configs/ablation/sfkd_lean.py``, changes the pair's own SFKD where it says so.
    """
    pair, model = config.model, method.model
    if all(is_sfkd(part, config) for part in (pair, model)):
        return merged(pair, {key: value for key, value in model.items() if key != 'type'}, '--method')
    kept = {key: pair[key] for key in PAIR_KEYS if key in pair}
    if model.get('pairs', 'auto') != 'auto':
        return dict(model, **kept)
    own = pair.get('pairs', 'auto')
    plain = [] if isinstance(own, str) else [entry for entry in own if entry == 'auto' or isinstance(entry, dict)
                                             and not {'connector', 'losses'} & entry.keys()]
    stages = dict(stages=pair.stages) if 'stages' in pair and 'stages' not in model else {}
    return dict(model, **kept, **stages, pairs=plain or 'auto')


def _within_paths(config: Config, options: dict) -> list[str]:
    """What is wrong with options that reach into a student or teacher which another config file has."""
    ways = dict(student='give model.student_options.{} instead',
                teacher='write a config of which it is the _base_ with {} in its model, and give that as model.teacher')
    paths = {side: config.model[side] for side in ways if isinstance(config.get('model', {}).get(side), str)}
    return [f"{key}: model.{side} is the path '{path}', in which no key can be set; "
            + ways[side].format(key.removeprefix(f'model.{side}.'))
            for side, path in paths.items() for key in options if key.startswith(f'model.{side}.')]


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


def check_model(config: Config) -> None:
    """Check that a config is one of a whole run, not a part that others inherit.

    Raises:
        ConfigError: if it has no model.
    """
    if not config.get('model'):
        raise ConfigError(f"model: '{config.filename}' has none; give the config of a whole run, not a part that "
                          'others inherit')


def is_distillation(config: Config) -> bool:
    """Whether a config's model distils: :class:`Distiller`, ``SFKD`` or a registered subclass of them.

    Raises:
        ConfigError: if it has no model.
    """
    check_model(config)
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
        if elsewhere(part.get('backend_args') for part in (dataset, *(dataset.get('pipeline') or ()))):
            continue
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
    for part in ('dataloader', 'evaluator'):
        config[f'test_{part}'] = config.get(f'{split}_{part}')
    if config.get('test_cfg') is None:  # a val_cfg may say type='ValLoop'
        config.test_cfg = dict()
