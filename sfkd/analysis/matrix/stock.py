"""The configs that the stock libraries ship, smallest first, and models from them without a download."""
from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict
from torch import nn

from ...openmmlab.building import read_config
from ..trial import initialise, without_downloads

LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')
#: What stock configs call their small versions, smallest first: a matrix of small networks is a matter of minutes.
SMALL = ('atto femto pico nano xxs xxsmall xs xsmall tiny t 5m r18 hr18 18 s0 b0 A0 m0 small s s12 s16 x0 mini effb3 '
         'r50 50 b base 31B 100').split()


def configs(library: str) -> Path:
    return Path(importlib.import_module(library).__file__).parent / '.mim/configs'


def smallest_first(files: Iterable[Path]) -> list[Path]:
    def rank(file: Path) -> tuple:
        words = re.split(r'[-_.]', file.stem)
        return min([SMALL.index(word) for word in words if word in SMALL],
                   default=len(SMALL)), len(file.stem), str(file)
    return sorted(files, key=rank)


def within(config, kind: str) -> ConfigDict | None:
    """The part of a config that has this type."""
    if isinstance(config, (list, tuple)):
        config = dict(enumerate(config))
    if not isinstance(config, dict):
        return None
    if config.get('type') == kind:
        return config
    return next((found for value in config.values() if (found := within(value, kind)) is not None), None)


def stock_backbones(library: str, kind: str) -> Iterator[tuple[str, ConfigDict]]:
    """Where stock configs name a backbone, the smallest first: (path, its arguments)."""
    names = re.compile(rf"""type=(['"]){kind}\1""")
    for file in smallest_first([file for file in configs(library).rglob('*.py') if names.search(file.read_text())]):
        found = within(Config.fromfile(file).get('model'), kind)
        if found is not None:
            yield str(file.relative_to(configs(library))), found


def stock(path: str, **backbone) -> nn.Module:
    """A stock model with random weights."""
    config = read_config(path, path)
    model = dict(config.model, backbone=dict(config.model.backbone, **backbone)) if backbone else config.model
    return initialise(without_downloads(model, path, config.get('data_preprocessor'), config.get('default_scope')))


def one_line(error: Exception) -> str:
    """What an error says, without the folders of the machine that it came from."""
    return re.sub(r'(?<![:/\w])(/[\w.+-]+){3,}/', '', re.sub(r'\s+', ' ', f'{type(error).__name__}: {error}'))[:400]
