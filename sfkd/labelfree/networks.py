"""Networks by name: timm's, torchvision's, those of transformers, and what a function in a file returns."""
from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch
from torch import nn

from ..checkpoint import CONVERT, refused_code
from ..errors import ConfigError, nearest
from ..image_processors import IMAGENET, processing_of

SIZE = 224  # what a network without a word on it is taken to expect
KINDS = ('timm:NAME', 'torchvision:NAME', 'transformers:FOLDER_OR_NAME', 'file.py:function')


class Network(NamedTuple):
    """A network and what it expects.

    Attributes:
        module: takes pictures (N, 3, H, W).
        mean, std: (3,), how these are normalised, of values 0 to 1.
        size: (H, W), the one size that it takes; None where it takes what is asked for.
        call: the Python that makes the same network anew.
    """
    module: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None
    call: str


def network_of(name: str, where: str, size: int, pretrained: bool = False, resized: bool = False) -> Network:
    """A network by its name, one of :data:`KINDS`.

    Args:
        name: see :data:`KINDS`.
        where: the argument that named it, for messages.
        size: H and W of the pictures.
        pretrained: with the weights of its library, which are downloaded. Those of transformers always have theirs, and
            a function gives what it gives.
        resized: whether pictures can be resized for it, where it takes another size alone. Otherwise timm's and
            torchvision's are built for the size that is asked for.

    Raises:
        ConfigError: if there is no such network or library, if it cannot be built, or takes no pictures of the size.
    """
    kind, _, rest = name.partition(':') if not name.partition(':')[0].endswith('.py') else ('file', '', name)
    makers = dict(timm=_of_timm, torchvision=_of_torchvision, transformers=_of_transformers, file=_of_file)
    if not rest or kind not in makers:
        raise ConfigError(f"{where}: '{name}' is no name of a network; give {', '.join(KINDS)}")
    found = makers[kind](rest, where, pretrained)
    native = found.size or (SIZE, SIZE)
    if (problem := _refusal(found.module, (size, size))) is None:
        return found._replace(size=None)
    if _refusal(found.module, native) is not None:
        raise ConfigError(f"{where}: '{name}' does not run on pictures alone ({problem}); name a network that does, or "
                          'a function in a file that makes one of it')
    if resized:
        return found._replace(size=native)
    if kind in ('timm', 'torchvision'):
        with contextlib.suppress(ConfigError):
            found = makers[kind](rest, where, pretrained, size)
            if _refusal(found.module, (size, size)) is None:
                return found._replace(size=None)
    raise ConfigError(f"{where}: '{name}' takes no pictures of {size} px ({problem}); give --input-size {native[0]}")


@torch.no_grad()
def _refusal(module: nn.Module, size: tuple[int, int]) -> str | None:
    """Why a network does not run on pictures of a size; None where it does."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()(torch.zeros(1, 3, *size))
    except Exception as error:  # each library has types of its own
        return str(error).partition('\n')[0] or type(error).__name__
    finally:
        for part, training in modes:
            part.training = training
    return None


# ---- the libraries ----

def _of_timm(name: str, where: str, pretrained: bool, size: int | None = None) -> Network:
    timm = _library('timm', where)
    if not timm.is_model(name):
        raise ConfigError(f"{where}: timm has no model '{name}'; nearest: {nearest(name, timm.list_models())}")
    options = {} if size is None else dict(img_size=size)
    with _building(f'timm:{name}', where):
        module = timm.create_model(name, pretrained=pretrained, **options)
    expects = timm.data.resolve_data_config({}, model=module)
    return Network(module, expects['mean'], expects['std'], tuple(expects['input_size'][1:]),
                   f'timm.create_model({_arguments(name, **options)})')


def _of_torchvision(name: str, where: str, pretrained: bool, size: int | None = None) -> Network:
    models = _library('torchvision.models', where)
    if name not in (known := models.list_models(module=models)):
        raise ConfigError(f"{where}: torchvision has no classifier '{name}'; nearest: {nearest(name, known)}")
    weights, options = models.get_model_weights(name).DEFAULT, {} if size is None else dict(image_size=size)
    with _building(f'torchvision:{name}', where):
        module = models.get_model(name, weights=weights if pretrained else None, **options)
    expects = weights.transforms()
    return Network(module, tuple(expects.mean), tuple(expects.std), (expects.crop_size[0], ) * 2,
                   f'torchvision.models.get_model({_arguments(name, **options)})')


def _of_transformers(name: str, where: str, pretrained: bool) -> Network:
    transformers = _library('transformers', where)
    with _building(f'transformers:{name}', where):
        module = transformers.AutoModel.from_pretrained(name)
    side = getattr(module.config, 'image_size', None) or SIZE
    return Network(module, *_processed(name, where), tuple(side) if isinstance(side, (tuple, list)) else (side, side),
                   f'transformers.AutoModel.from_pretrained({name!r})')


def _processed(name: str, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    mean, std, bgr = processing_of(name) or (*IMAGENET, False)
    if bgr:
        raise ConfigError(f"{where}: '{name}' takes pictures as BGR; give file.py:function that returns a module which "
                          'turns the channels round first')
    return mean, std


def _of_file(name: str, where: str, pretrained: bool) -> Network:
    file, _, function = name.rpartition(':')
    if not Path(file).is_file():
        raise ConfigError(f"{where}: there is no file '{file or name}'; give file.py:function")
    spec = importlib.util.spec_from_file_location(f'sfkd_{Path(file).stem}', file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    if (folder := str(Path(file).resolve().parent)) not in sys.path:
        sys.path.insert(0, folder)  # for good, as of a script: functions may import what lies beside it later
    with _building(name, where):
        spec.loader.exec_module(module)
        if not callable(maker := getattr(module, function, None)):
            raise ConfigError(f"{where}: '{file}' has no function '{function}'; nearest: "
                              + nearest(function, vars(module)))
        network = maker()
    if not isinstance(network, nn.Module):
        raise ConfigError(f"{where}: '{name}' returns a {type(network).__name__}, and must return a torch.nn.Module")
    expects = getattr(network, 'pretrained_cfg', None) or {}
    paths = (getattr(getattr(part, 'config', None), '_name_or_path', None) for part in network.modules())
    usual = IMAGENET  # or what lies beside the folder of transformers that it was made of
    if not expects and (folder := next(filter(None, paths), None)):
        usual = _processed(folder, where)
    mean, std = (tuple(expects.get(key, value)) for key, value in zip(('mean', 'std'), usual))
    return Network(network, mean, std, tuple(expects.get('input_size', (3, SIZE, SIZE))[1:]), f'{function}()')


def _library(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition('.')[0]
        raise ConfigError(f"{where}: {package} cannot be imported ({error}); pip install {package}") from error


@contextlib.contextmanager
def _building(name: str, where: str) -> Iterator[None]:
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # of a download, a file, or somebody's function
        if refused := refused_code(error):
            raise ConfigError(f"{where}: cannot build '{name}': it loads a file that needs pickled code ({refused}), "
                              'which could run anything and which TORCH_FORCE_WEIGHTS_ONLY_LOAD forbids in this '
                              f'command, whatever torch.load is told. {CONVERT}') from error
        raise ConfigError(f"{where}: cannot build '{name}' ({type(error).__name__}: "
                          f"{str(error).partition(chr(10))[0]})") from error


def _arguments(name: str, **options: int) -> str:
    return ', '.join([repr(name), *(f'{key}={value}' for key, value in options.items())])
