"""The stages of a network, from one dry run of it, without a table of architectures."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import nn
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd

from .probe import Probe, Stage, trunk_of
from .taps import split_path

OCTAVES = 4  # of strides, which have stages: 4 to 32 of most networks, 1 to 8 of those for small pictures
MIN_SHARE = 0.02  # of the trunk's modules: what is less is a step of the stem, or a pooling layer between stages
MIN_GRID = 2  # a 1x1 map has no space left to decompose
LAST_SCALE = 32  # where a classifier's last stage is; what dilates beyond does not stand for a stride
FIXED_GRID = _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd  # whose stride depends on the pictures: VGG's gives 7x7 of any
RUNS = 4  # of blocks, into which an isotropic network is cut


def stages(network: nn.Module, probed: Probe) -> list[Stage]:
    """The ends of a network's stages, shallow to deep: of its ``backbone``, or of the whole where there is none.

    A hierarchical network has one stage an octave of strides: the last map there among the trunk's layers, or among
    those that a layer of parallel branches gives. A stage that dilates where it could stride (segmentation's ResNet-D8)
    counts with twice the stride of the stage before. An isotropic network (ViT, MLP-Mixer: one stride throughout but
    for its stem) is cut into four runs of blocks of the same length.
    """
    trunk = trunk_of(network)
    own = {path: output for path, output in probed.outputs.items() if path.startswith(f'{trunk}.') or not trunk}
    order = {path: i for i, path in enumerate(own)}
    layers = set(_layers(network.get_submodule(trunk), trunk, _holding(network.get_submodule(trunk), trunk, own)))
    every = [output for path, output in own.items() if split_path(path)[0] in layers and isinstance(output, Stage)
             and not isinstance(network.get_submodule(split_path(path)[0]), FIXED_GRID)]
    maps = list(_undilated(network, [stage for stage in every if min(stage.grid) >= MIN_GRID]))
    # A 1x1 map does not tell at which stride the network would end on larger pictures
    last = max((stage.scale for stage in maps), default=LAST_SCALE) if len(maps) == len(every) else LAST_SCALE
    first = _octave(min(last, LAST_SCALE)) - OCTAVES + 1  # what is before is the stem
    maps = [stage for stage in maps if _octave(stage.stride) >= first]
    ends: dict[int, Stage] = {}
    for stage in maps:
        ends.pop(_octave(stage.scale), None)
        ends[_octave(stage.scale)] = stage
    begins: dict[int, int] = {}  # the first module at all of a stride, deep inside of a layer or not
    for path, output in own.items():
        if isinstance(output, Stage):
            begins.setdefault(_octave(output.stride), order[path])

    def share(stage: Stage) -> float:
        inside = sum(path.startswith(f'{split_path(stage.path)[0]}.') for path in own)
        return max(order[stage.path] - begins[_octave(stage.stride)], inside) / len(own)
    if len(ends) > 1:
        ends = {octave: stage for octave, stage in ends.items() if share(stage) >= MIN_SHARE} or ends
    if len(ends) != 1:
        return list(ends.values())
    (octave, _), = ends.items()
    blocks = [stage for stage in maps if _octave(stage.scale) == octave and order[stage.path] >= MIN_SHARE * len(own)]
    return _runs(blocks, _depth(trunk)) if blocks else []  # the one map is of the stem


def _runs(maps: list[Stage], depth: int) -> list[Stage]:
    """The last blocks of four runs, of the same length, of an isotropic network's blocks.

    Args:
        maps: all its layers' maps; of a block with several outputs, or layers, the last counts.
        depth: of the trunk's path. The blocks are the most numerous children of one module, rather below the trunk than
            its own.
    """
    containers: dict[str, dict[str, Stage]] = {}
    for stage in maps:
        block = split_path(stage.path)[0]
        while block:  # a block that gives no map itself counts by its parts
            container = block.rpartition('.')[0]
            containers.setdefault(container, {})[block] = stage
            block = container
    blocks = list(max(containers.values(), key=lambda run: (next(iter(run)).count('.') > depth, len(run))).values())
    runs = min(RUNS, len(blocks))
    return [blocks[math.ceil(len(blocks) * (i + 1) / runs) - 1] for i in range(runs)]


def _depth(path: str) -> int:
    """How many names a dotted path has."""
    return len(path.split('.')) if path else 0


def _octave(stride: int) -> int:
    return round(math.log2(stride))


def _undilated(network: nn.Module, maps: list[Stage]) -> Iterator[Stage]:
    """The maps, shallow to deep, with ``dilated`` twice as large for each stage that dilates its convolutions where it
    could stride.

    Such stages lie at the largest stride, dilate more than all before them and stand for strides up to 32; kernels that
    are dilated everywhere (VAN) are no such stage.
    """
    paths, largest = {split_path(stage.path)[0] for stage in maps}, max((stage.stride for stage in maps), default=0)
    widest, dilated = 0, 1
    for stage in maps:
        names = split_path(stage.path)[0].split('.')
        # A block counts as its whole stage does: the first of a dilated stage often keeps the dilation of the stage
        # before
        outermost = next(path for path in ('.'.join(names[:i]) for i in range(1, len(names) + 1)) if path in paths)
        width = max((max(m.dilation) for m in network.get_submodule(outermost).modules() if isinstance(m, nn.Conv2d)),
                    default=1)
        if widest and width > widest and stage.stride == largest and largest * dilated < LAST_SCALE:
            dilated *= 2
        widest = max(width, widest)
        yield replace(stage, dilated=dilated if stage.stride == largest else 1)  # a decoder after them strides back


def pyramid(probed: Probe) -> list[Stage]:
    """The maps that a network's neck returns (FPN levels), shallow to deep; empty where there is no such neck."""
    levels = [output for path, output in probed.outputs.items() if path.startswith('neck[') and path.count('[') == 1]
    return sorted((level for level in levels if isinstance(level, Stage) and min(level.grid) >= MIN_GRID),
                  key=lambda level: level.stride)


def class_maps(probed: Probe) -> list[Stage]:
    """The maps of class scores that a segmentor or a one-stage detector returns, one a level; empty where there are
    none: a two-stage detector scores regions. The dry run must have included the head.
    """
    returned = [probed.outputs[path] for path in probed.returned]
    return [output for output in returned if isinstance(output, Stage) and min(output.grid) >= MIN_GRID]


def _layers(module: nn.Module, path: str, holding: Callable[[nn.Module, str], bool]) -> Iterator[str]:
    """Paths of a trunk's own layers: its children, and the children of those that only hold layers.

    Args:
        module, path: where to look.
        holding: whether a module at a path only holds layers.
    """
    for name, child in module.named_children():
        name = f'{path}.{name}' if path else name
        yield name
        if holding(child, name):
            yield from _layers(child, name, holding)


def _holding(trunk: nn.Module, path: str, outputs: dict[str, Stage | str]) -> Callable[[nn.Module, str], bool]:
    """Whether a module of a trunk only holds layers: a plain container; what gives no map itself because the trunk
    calls its parts; what holds most of the trunk (mmpretrain's wrapper around a timm model, the encoder of
    torchvision's ViT); and a stage that ends with the downsampling to the next (LeViT's), most of which is finer than
    what it gives.

    Args:
        trunk, path: of all layers.
        outputs: of all of the trunk's modules.
    """
    maps = {path: _octave(output.stride) for path, output in outputs.items() if isinstance(output, Stage)}
    most = _count(trunk) / 2

    def holding(module: nn.Module, path: str) -> bool:
        own = [octave for name, octave in maps.items() if split_path(name)[0] == path]
        within = [octave for name, octave in maps.items() if name.startswith(f'{path}.')]
        if _holds(module) or not own or _count(module) > most:
            return True
        # A strided block, of which this may be so too, has no list of blocks in it, but a chain of layers at most
        lists = any(isinstance(child, nn.ModuleList) for child in module.children())
        return lists and sum(octave < min(own) for octave in within) > len(within) / 2
    return holding


def _count(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())


def _holds(module: nn.Module) -> bool:
    sequence = isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward
    return sequence or isinstance(module, nn.ModuleList)
