"""Builds a model of another library from a config path, a config dict or a module, in that library's own scope."""
from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from torch import nn

from ..distillation import Normalisation
from ..errors import ConfigError
from ..registry import MODELS
from ..shipped import CONFIGS, located


def read_config(path: str, where: str) -> Config:
    """Read a config file. What lies beside it, or in the folder that one starts in, can be imported from then on, as
    beside a script: ``custom_imports`` of one's own parts.

    Args:
        path: a file, or ``library::folder/config.py`` for one that an installed library ships (of ``sfkd::`` the
            ``.py`` may be left out).
        where: the config key that named it, for the message.

    Raises:
        ConfigError: if there is no such file, or if what it imports cannot be found.
    """
    file = located(path, where)
    if '::' in file:
        try:
            file, _ = Config._get_cfg_path(path, '')
        except (ImportError, FileNotFoundError, AssertionError, ValueError) as error:
            raise ConfigError(f"{where}: '{path}' cannot be found ({error})") from error
    if not Path(file).is_file():
        raise ConfigError(f"{where}: there is no config file '{path}' (looked from {Path.cwd().name}/); "
                          "give a path from the folder you start in, or 'mmpretrain::folder/config.py' for a library's "
                          'own')
    beside = Path(file).resolve().parent
    if '::' not in path and not beside.is_relative_to(CONFIGS):
        sys.path += [folder for folder in dict.fromkeys(map(str, (beside, Path.cwd()))) if folder not in sys.path]
    try:
        return Config.fromfile(file)
    except ImportError as error:
        raise ConfigError(f"{where}: '{path}': {error.__cause__ or error}; modules of custom_imports are looked for "
                          "beside the config, in the folder that you start in, and where PYTHONPATH says") from error


def build_model(spec: str | dict | nn.Module, where: str, data_preprocessor: dict | None = None,
                scope: str | None = None, options: dict | None = None) -> nn.Module:
    """Build a student or a teacher.

    Args:
        spec: a config path (its ``model`` and ``data_preprocessor`` are used, in its ``default_scope``), a model dict,
            or a module.
        where: the config key, for messages.
        data_preprocessor: what the runner would hand to a model whose own config has none.
        scope: where the names in it are looked up; None for the running config's default scope.
        options: merged into the model dict as an inheriting config's own would be.

    Raises:
        ConfigError: if it is none of these, or if the model cannot be built.
    """
    if not isinstance(options, dict | None):
        raise ConfigError(f'{where}_options: {options!r} is no dict of changes to the model, such as '
                          'dict(head=dict(num_classes=10))')
    if isinstance(spec, nn.Module):
        if options:
            raise ConfigError(f'{where}_options: the model is built already; give its config, or build it with them')
        return spec
    if isinstance(spec, str):
        config = read_config(spec, where)
        if 'model' not in config:
            raise ConfigError(f"{where}: '{spec}' has no 'model'")
        scope = config.get('default_scope', scope)
        data_preprocessor = config.get('data_preprocessor', data_preprocessor)
        spec = config.model
    if not isinstance(spec, dict) or 'type' not in spec:
        raise ConfigError(f"{where}: {spec!r} is no config path, no dict with a 'type', and no module")
    # A copy: building changes dicts within it, too (mmseg hands 'pretrained' on to the backbone's)
    spec = merged(spec, options, f'{where}_options') if options else ConfigDict(copy.deepcopy(spec))
    if data_preprocessor is not None:
        spec.setdefault('data_preprocessor', data_preprocessor)
    if isinstance(spec.type, str) and '.' in spec.type:
        scope = spec.type.partition('.')[0]  # 'mmdet.RetinaNet': its parts are mmdet's too
    with MODELS.switch_scope_and_registry(scope) as registry:
        try:
            return registry.build(spec)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            given = f' with {where}_options={dict(options)}' if options else ''
            raise ConfigError(f"{where}{given}: cannot build '{spec['type']}': {error}") from error


def merged(spec: dict, options: dict, where: str) -> ConfigDict:
    """A model dict with some of its keys changed, as an inheriting config changes them (``_delete_`` and indices of
    lists included).

    Raises:
        ConfigError: where they cannot be merged.
    """
    config = Config(dict(model=copy.deepcopy(spec)))
    try:
        config.merge_from_dict(dict(model=copy.deepcopy(options)))
    except (KeyError, TypeError) as error:
        raise ConfigError(f'{where}: {error}') from error
    return config.model


def initialise(network: nn.Module) -> None:
    """Give a network the weights of its own ``init_cfg``, without mmengine's log entry for each of them."""
    if hasattr(network, 'init_weights'):
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel('WARNING')
        network.init_weights()
        logger.setLevel(level)


def normalisation_of(network: nn.Module, always: bool = False) -> Normalisation | None:
    """How a model's data preprocessor normalises.

    None where it states no normalisation, or with ``always`` that of raw pictures: a student without one is fed raw
    pictures, a teacher without one takes the student's.
    """
    preprocessor = getattr(network, 'data_preprocessor', None)
    if preprocessor is None or not always and getattr(preprocessor, 'mean', None) is None:
        return None
    reverses = getattr(preprocessor, 'to_rgb', False) or getattr(preprocessor, '_channel_conversion', False)
    if getattr(preprocessor, 'mean', None) is None:
        return Normalisation(torch.zeros(3), torch.ones(3), bool(reverses))
    return Normalisation(preprocessor.mean.flatten().float(), preprocessor.std.flatten().float(), bool(reverses))
