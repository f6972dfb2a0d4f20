"""How a pair may be taught: the methods that comparisons name, as configs in configs/peers/ and configs/ablation/, or
as files of one's own.
"""
from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict, DictAction

from .. import shipped
from ..distillation import sfkd
from ..errors import ConfigError, nearest
from .configs import is_distillation, is_sfkd, load_config, read_method, student_config

#: Other methods; those of them that take class maps, which classifiers have none of; parts of ours alone.
PEERS, DENSE_PEERS, ABLATION = ({path.stem: path for path in sorted((shipped.CONFIGS / folder).glob('*.py'))}
                                for folder in ('peers', 'peers/dense', 'ablation'))
CONFIGS = PEERS | DENSE_PEERS | ABLATION
METHODS = ['alone', 'sfkd', *CONFIGS]


def budget(epochs: int) -> dict:
    """Config options of so many epochs, 2 at least, of which the first warms the learning rate up."""
    return {'train_cfg.max_epochs': epochs, 'param_scheduler.1.end': epochs, 'param_scheduler.1.T_max': epochs - 1}


def file_of(name: str) -> str | None:
    """The config of a method, without options; None for those that are none's: alone, and the pair's own."""
    return None if name in ('alone', 'sfkd') else str(CONFIGS.get(name, name))


def is_file(name: str) -> bool:
    """Whether a method or pair is named by its config file, not by a name of ours."""
    return name.endswith('.py') or '::' in name


def check_name(method: str, where: str = '--methods', others: Sequence[str] = ()) -> None:
    """
    Args:
        method: with options or without.
        where: the argument that named it.
        others: what may stand there besides.

    Raises:
        ConfigError: if it is, without its options, neither a method's name nor a config file's, or holds quotes.
    """
    name = method.partition('+')[0]
    if '"' in method or "'" in method:  # it is a key of the config, which mmengine writes as it stands
        raise ConfigError(f'{where}: {method}: write its options without quotes, as in pairs=[auto,classes]')
    if name not in (*METHODS, *others) and not is_file(name):
        raise ConfigError(f"{where}: there is no '{name}'; nearest are {nearest(name, [*METHODS, *others])}; of a "
                          'method of your own give the file, written as those in configs/peers: mine.py')


def folder_of(method: str) -> str:
    """The name of a folder for what a method gives."""
    name, *options = method.split('+')
    return '+'.join([Path(name).stem, *(option.replace('/', '_') for option in options)])


def model_of(config_path: str, method: str, given: dict | None = None) -> dict | str:
    """The model config of a pair's student by a method; alone, the student as the pair's config names it.

    Args:
        config_path: of the pair.
        method: its name, or a config file's (``mine.py``, ``sfkd::peers/cwd.py``), and options of its model:
            'sfkd+refine=within'.
        given: config options for every method, as ``--cfg-options`` takes them; a method's own come before.

    Raises:
        ConfigError: if there is no such method, or if what follows it is no option.
    """
    name, *options = method.split('+')
    check_name(method)
    if wrong := [option for option in options if '=' not in option] or name == 'alone' and options:
        raise ConfigError(f"--methods: '{method}': {wrong} cannot be; after a distilling method give options of its "
                          "model, '+key=value'")
    own = {f'model.{key}': DictAction._parse_iterable(value)
           for key, value in (option.split('=', 1) for option in options)}
    config = load_config(config_path, options=(given or {}) | own, method=file_of(name))
    if not is_distillation(config):
        raise ConfigError(f"'{config_path}' trains a model alone; give the config of a pair (model.student, "
                          'model.teacher)')
    return student_config(config).model if name == 'alone' else config.model


def weights_of(name: str) -> dict[str, float]:
    """Keys, within the model, and values of a method's weights.

    Args:
        name: of one that distils, without options.

    Raises:
        ConfigError: if its file cannot be read.
    """
    model = _config_of(name)
    if is_sfkd(model, Config()):
        default = inspect.signature(sfkd).parameters
        return {key: model.get(key, default[key].default) for key in ('spatial_weight', 'frequency_weight')}
    anchor = {'anchor.weight': model.anchor.weight} if model.get('anchor') else {}
    return {f'{kind}.{i}.weight': loss.get('weight', 1.0) for kind in ('losses', 'logits')
            for i, loss in enumerate(model.get(kind, [])) if loss.get('weight', 1.0)} | anchor


def switch_of(name: str, dense: bool = False) -> str:
    """The options by which a method distils the logits too or, where it does nothing else, has another temperature.

    Args:
        name: see :func:`weights_of`, as for errors.
        dense: whether the logits are class maps, for which CWD with its authors' weight takes the place of KD.
    """
    model = _config_of(name)
    if is_sfkd(model, Config()):
        return 'logit_weight=5.0+logit_loss=ChannelWiseDivergence' if dense else 'logit_weight=1.0'
    logits = [] if model.get('pairs') == 'classes' else model.get('logits', [])  # class maps are these already
    for i, loss in enumerate(logits):
        if not loss.get('weight', 1.0):
            cwd = dict(weight=5.0, type='ChannelWiseDivergence', temperature=1.0) if dense else dict(weight=1.0)
            return '+'.join(f'logits.{i}.{key}={value}' for key, value in cwd.items())
    kind = 'logits' if logits else 'losses'
    return f'{kind}.0.temperature={1.0 if model[kind][0].get("temperature", 1.0) == 4.0 else 4.0}'


def _config_of(name: str) -> ConfigDict:
    """What a distilling method says of the model."""
    return ConfigDict(type='SFKD') if name == 'sfkd' else read_method(file_of(name), '--methods').model
