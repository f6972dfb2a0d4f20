"""The seam between a student and its distillation: whether the stock tools that work by the names of a model's parts
find in the distilled student what they find in the stock one.
"""
from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint, save_checkpoint
from torch import nn

from ... import SFKD
from ...distillation.distillation import as_size
from ..trial import without_downloads
from .stock import LIBRARIES, configs, one_line, smallest_first, stock

OURS = 'distillation.'
#: What a group says of its weights besides their options.
NO_OPTIONS = ('params', 'param_names')
MOST_WEIGHTS = 400e6  # of two models and a checkpoint in memory
ATTEMPTS = 3  # how many of a family's configs may fail to be built or distilled


def stock_class(library: str) -> type[BaseModel]:
    """What a library's models of its task are."""
    name = dict(mmpretrain='BaseClassifier', mmdet='BaseDetector', mmseg='BaseSegmentor')[library]
    return getattr(importlib.import_module(f'{library}.models'), name)


# ---- the stock recipes ----

@functools.cache
def family_configs(library: str, family: str) -> tuple[tuple[str, Config], ...]:
    """A family's configs that can be read and have a model to train, smallest first: (path, config)."""
    folder, found = configs(library), []
    for file in smallest_first((folder / family).rglob('*.py')):
        if 'deploy' in file.parts:  # merged branches, for inference only
            continue
        try:
            config = Config.fromfile(file)
        except Exception:  # a base of another library, or a path of its authors' machine: no config that anyone can run
            continue
        if isinstance(config.get('model'), dict) and 'type' in config.model:
            found.append((str(file.relative_to(folder)), config))
    return tuple(found)


def of_task(library: str, family: str) -> list[tuple[str, Config]]:
    """Those whose model is of the library's task."""
    registry, task = importlib.import_module(f'{library}.registry').MODELS, stock_class(library)
    kinds = [(recipe, registry.get(recipe[1].model.type)) for recipe in family_configs(library, family)]
    return [recipe for recipe, kind in kinds if inspect.isclass(kind) and issubclass(kind, task)]


def with_groups(found: list[tuple[str, Config]]) -> list[tuple[str, Config]]:
    """Those that treat weights by their names; those with a constructor of their own (layer decay) first."""
    special = [(path, config) for path, config in found if {'constructor', 'paramwise_cfg'} & set(config.optim_wrapper)]
    return sorted(special, key=lambda recipe: 'constructor' not in recipe[1].optim_wrapper)


# ---- what is compared ----

def weight_names(network: nn.Module) -> dict[str, list[str]]:
    """The names of parameters, buffers and saved tensors, each in its order."""
    return dict(parameters=[name for name, _ in network.named_parameters()],
                buffers=[name for name, _ in network.named_buffers()], saved=list(network.state_dict()))


def name_problems(stock: nn.Module, distilled: nn.Module) -> Iterator[str]:
    """Where the names or the order of the student's weights are not the stock model's."""
    theirs, ours = weight_names(stock), weight_names(distilled)
    for kind, names in theirs.items():
        if ours[kind][:len(names)] != names:
            yield f'other {kind}: ' + ', '.join(sorted(set(ours[kind]) ^ set(names))[:3])
        if strange := [name for name in ours[kind][len(names):] if not name.startswith(OURS)]:
            yield f'{kind} of nobody: ' + ', '.join(strange[:3])


def optim_wrapper(network: nn.Module, recipe: dict) -> OptimWrapper:
    """A config's own, by its own constructor. Mixed precision and DeepSpeed, which want a GPU, are left out: groups do
    not depend on them.
    """
    recipe = {key: value for key, value in recipe.items() if key not in ('loss_scale', 'dtype', 'use_fsdp')}
    return build_optim_wrapper(network, dict(recipe, type='OptimWrapper'))


def options_of_weights(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict]:
    """``{name: options}`` of every weight that the optimiser has: learning rate, weight decay, and whatever else."""
    groups = {id(weight): group for group in optimizer.param_groups for weight in group['params']}
    return {name: {key: value for key, value in groups[id(weight)].items() if key not in NO_OPTIONS}
            for name, weight in network.named_parameters() if id(weight) in groups}


def group_problems(stock: nn.Module, distilled: nn.Module, recipe: dict) -> Iterator[str]:
    """Where the optimiser treats a student weight otherwise than the stock model's, or misses a connector's."""
    theirs, ours = (options_of_weights(network, optim_wrapper(network, recipe).optimizer)
                    for network in (stock, distilled))
    students = {name: options for name, options in ours.items() if not name.startswith(OURS)}
    if theirs.keys() != students.keys():
        yield 'weights in one optimiser only: ' + ', '.join(sorted(theirs.keys() ^ students.keys())[:3])
    if other := [name for name in theirs.keys() & students.keys() if theirs[name] != students[name]]:
        yield (f'{len(other)} weights with other options, such as {other[0]}: {students[other[0]]}, not '
               f'{theirs[other[0]]}')
    connectors = {name for name, weight in distilled.named_parameters() if name.startswith(OURS)}
    if missing := connectors - ours.keys():
        yield 'not in the optimiser: ' + ', '.join(sorted(missing)[:3])


@torch.no_grad()
def change(network: nn.Module) -> dict[str, torch.Tensor]:
    """Give a network's saved tensors values that none of them had; those."""
    for i, value in enumerate(network.state_dict().values()):
        if value.is_floating_point():
            value.copy_(torch.linspace(0.1, 0.9, value.numel()).reshape(value.shape) + i % 100)
        else:
            value.copy_(~value if value.dtype == torch.bool else value + 1)
    return {name: value.clone() for name, value in network.state_dict().items()}


@torch.no_grad()
def checkpoint_problems(stock: nn.Module, distilled: nn.Module) -> Iterator[str]:
    """Where a checkpoint of the stock model with other values, loaded as mmengine's runner loads ``load_from``, does
    not arrive. The stock model is changed.
    """
    saved = change(stock)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, 'stock.pth'))
        save_checkpoint(dict(meta={}, state_dict=saved), file)

        def lost_in(network: nn.Module, names: Iterable[str]) -> list[str]:
            load_checkpoint(network, file, map_location='cpu', strict=False, revise_keys=[(r'^module\.', '')],
                            logger='silent')
            arrived = network.state_dict()
            return [name for name in names if name not in arrived or not torch.equal(arrived[name], saved[name])]
        if lost := lost_in(distilled, saved):
            for name in lost:
                stock.state_dict()[name].zero_()
            own = lost_in(stock, lost)  # Swin V2 computes its tables anew, whatever a checkpoint says
            lost = [name for name in lost if name not in own]
    if lost:
        yield f'{len(lost)} of {len(saved)} tensors did not arrive, such as {lost[0]}'


# ---- rows ----

class Seam:
    """Rows ``seam/library/family``: the family's smallest config, and the smallest that treats weights by their names,
    each with its own recipe: the stock model alone beside the distilled one.
    """
    TEACHERS = dict(mmpretrain='resnet/resnet18_8xb32_in1k.py', mmdet='retinanet/retinanet_r18_fpn_1x_coco.py',
                    mmseg='pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py')

    @staticmethod
    def names() -> list[str]:
        return [f'seam/{library}/{family.name}' for library in LIBRARIES
                for family in sorted(configs(library).iterdir()) if family.name != '_base_' and family.is_dir()]

    @staticmethod
    @functools.cache
    def teacher(library: str) -> nn.Module:
        return stock(f'{library}::{Seam.TEACHERS[library]}')

    def row(self, name: str) -> dict:
        _, library, family = name.split('/')
        models = of_task(library, family)
        found = [(path, config) for path, config in models if config.get('optim_wrapper') is not None]
        if not found:
            kinds = sorted({str(config.model.type) for _, config in family_configs(library, family)})
            task = dict(mmpretrain='classifier', mmdet='detector', mmseg='segmentor')[library]
            other = f'no {task}: {", ".join(kinds)}' if kinds else 'a folder without configs of whole models'
            return dict(why='its configs say nothing of training' if models else other)
        tried = {}  # {config: what it gave}
        for candidates in (found, with_groups(found)):
            for path, config in candidates[:ATTEMPTS]:
                if path not in tried:
                    with contextlib.redirect_stdout(io.StringIO()):  # layer decay prints every weight
                        tried[path] = self.compare(library, config)
                if 'weights' in tried[path]:
                    break
        built = {path: row for path, row in tried.items() if 'weights' in row}
        lost = {path: row['why'] for path, row in tried.items() if path not in built}
        return dict(roles=built, not_built=lost) if built else dict(why='; '.join(dict.fromkeys(lost.values())))

    def compare(self, library: str, config: Config) -> dict:
        """What is the same in a config's stock model and in the distilled one, or why one cannot be built."""
        preprocessor, recipe = config.get('data_preprocessor'), config.optim_wrapper
        with DefaultScope.overwrite_default_scope(library):
            try:
                alone = without_downloads(config.model, 'student', preprocessor, library)
                if (weights := sum(p.numel() for p in alone.parameters())) > MOST_WEIGHTS:
                    return dict(passes=False, why=f'{weights / 1e6:.0f} million weights: too large for the machine')
                if not any(p.requires_grad for p in getattr(alone, 'backbone', alone).parameters()):
                    return dict(passes=False, why='a linear probe: nothing in its frozen backbone could learn')
            except Exception as error:  # whatever any library raises is a result here
                return dict(passes=False, why=one_line(error))
            try:
                size, distilled = self.distilled(library, config, alone)
            except Exception as error:
                return dict(passes=False, why=f'not distilled: {one_line(error)}')
            problems = [] if isinstance(distilled, type(alone)) else [f'no {type(alone).__name__}']
            problems += [*name_problems(alone, distilled), *group_problems(alone, distilled, recipe)]
            rates = {(options['lr'], options.get('weight_decay'))
                     for options in options_of_weights(alone, optim_wrapper(alone, recipe).optimizer).values()}
            problems += checkpoint_problems(alone, distilled)
        return dict(passes=not problems, **(dict(why='; '.join(problems)) if problems else {}), weights=weights,
                    tensors=len(alone.state_dict()), size=size, pairs=len(distilled.distillation.pairs),
                    wrapper=recipe.get('type', 'OptimWrapper'), constructor=recipe.get('constructor'),
                    rates=len(rates))

    def distilled(self, library: str, config: Config, alone: nn.Module) -> tuple[tuple[int, int], nn.Module]:
        """The same with a teacher, for pictures of the first size that the student takes."""
        own = getattr(alone.backbone, 'img_size', None) if hasattr(alone, 'backbone') else None
        sizes = [*([own] if own else []), 224, 128, 512]
        for size in sizes:
            try:
                return as_size(size), SFKD(dict(config.model), self.teacher(library), input_size=size,
                                           data_preprocessor=config.get('data_preprocessor'))
            except Exception as error:
                problem = error
        raise problem
