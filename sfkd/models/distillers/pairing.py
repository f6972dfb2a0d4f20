"""Which stage of the student goes with which stage of the teacher: from one dry run of each network."""
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from .taps import LayoutError, as_map, describe

MIN_STRIDE = 4  # the stem is no stage
MIN_GRID = 2  # a 1x1 map has no space left to decompose


@dataclass(frozen=True)
class Stage:
    """One tappable map of a network.

    Attributes:
        path: dotted module path.
        channels: C.
        grid: (h, w) at the probed image size.
        stride: image pixels a grid step, rounded.
        layout: what the module really returns.
        dilated: by how much the stride would be larger if the stages that dilate their convolutions strode instead; set by :func:`stages`.
    """
    path: str
    channels: int
    grid: tuple[int, int]
    stride: int
    layout: str
    dilated: int = 1

    @property
    def scale(self) -> int:
        """The stride without dilation: what the last stages of a segmentor's ResNet have in a classifier's."""
        return self.stride * self.dilated


@dataclass(frozen=True)
class Probe:
    """What one dry run of a network showed.

    Attributes:
        outputs: ``{path: Stage, or the output's description where it is no map}``, in the order in which the modules ended.
        shapes: ``{path: shape of a tensor output}``.
        image_size: (H, W).
    """
    outputs: dict[str, Stage | str]
    shapes: dict[str, torch.Size]
    image_size: tuple[int, int]


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every module is in the mode that it had."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


class _Enough(Exception):
    """The part of the network that can be tapped has run."""


def probe(network: nn.Module, image_size: tuple[int, int], head: bool = False) -> Probe:
    """Run a network once on two random pictures and read every module's output.

    Args:
        network: a model of mmpretrain, mmdet or mmseg (``forward(inputs, mode='tensor')``).
        image_size: (H, W).
        head: also run what follows backbone and neck. Without it the run ends there.
    """
    outputs: dict[str, Stage | str] = {}
    shapes: dict[str, torch.Size] = {}
    last = 'neck' if getattr(network, 'neck', None) is not None else 'backbone'

    calls: dict[str, int] = {}

    def note(path, output):
        outputs.pop(path, None)
        if torch.is_tensor(output):
            shapes[path] = output.shape
        try:
            tapped = as_map(output, image_size)
            if tapped.shape[0] != 2:  # windows or regions folded into the batch
                raise LayoutError
            grid = tuple(tapped.shape[2:])
            stride = round(math.sqrt(image_size[0] * image_size[1] / (grid[0] * grid[1])))
            outputs[path] = Stage(path, tapped.shape[1], grid, stride, describe(output))
        except LayoutError:
            outputs[path] = describe(output)
            if isinstance(output, (tuple, list)):
                for i, part in enumerate(output):
                    note(f'{path}[{i}]', part)

    def read(path, output):
        calls[path] = count = calls.get(path, 0) + 1
        if count == 1:
            note(path, output)
        else:  # one module for several levels: each call is an output of its own
            if count == 2:
                first = outputs.pop(path)
                outputs[f'{path}[0]'] = replace(first, path=f'{path}[0]') if isinstance(first, Stage) else first
            note(f'{path}[{count - 1}]', output)
        if path == last and not head:
            raise _Enough

    hooks = [module.register_forward_hook(lambda _, __, output, path=path: read(path, output))
             for path, module in network.named_modules() if path]
    parameter = next(network.parameters())
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(parameter)
    try:
        with evaluating(network), contextlib.suppress(_Enough):
            network(images, mode='tensor')
    finally:
        for hook in hooks:
            hook.remove()
    return Probe(outputs, shapes, image_size)


def stages(network: nn.Module, found: Probe, parts: int = 4) -> list[Stage]:
    """The ends of a backbone's stages, shallow to deep.

    A hierarchical network has one stage a stride: the last map at that stride among the backbone's layers. A stage that dilates where
    it could stride (segmentation's ResNet-D8) counts with twice the stride of the stage before. An isotropic network (ViT, MLP-Mixer:
    one stride throughout) is cut into ``parts`` runs of blocks of the same length.
    """
    layers = [found.outputs[path] for path in _layers(network.backbone, 'backbone') if path in found.outputs]
    order = {path: i for i, path in enumerate(found.outputs)}
    maps = sorted((s for s in layers if isinstance(s, Stage) and s.stride >= MIN_STRIDE and min(s.grid) >= MIN_GRID),
                  key=lambda s: order[s.path])
    ends: dict[int, Stage] = {}
    for stage in _undilated(network, maps):
        ends.pop(stage.scale, None)
        ends[stage.scale] = stage
    if len(ends) != 1:
        return list(ends.values())
    containers: dict[str, list[Stage]] = {}
    for stage in maps:
        containers.setdefault(stage.path.rpartition('.')[0], []).append(stage)
    blocks = max(containers.values(), key=lambda run: (run[0].path.count('.') > 1, len(run)))
    parts = min(parts, len(blocks))
    return [blocks[math.ceil(len(blocks) * (i + 1) / parts) - 1] for i in range(parts)]


def _undilated(network: nn.Module, maps: list[Stage]) -> Iterator[Stage]:
    """The maps, shallow to deep, with ``dilated`` twice as large for each stage that dilates its convolutions where it could stride.

    Such stages lie at the largest stride and dilate more than all before them; kernels that are dilated everywhere (VAN) are no such stage.
    """
    paths, largest = {stage.path for stage in maps}, max((stage.stride for stage in maps), default=0)
    widest, dilated = 0, 1
    for stage in maps:
        names = stage.path.split('.')
        # A block counts as its whole stage does: the first of a dilated stage often keeps the dilation of the stage before
        outermost = next(path for path in ('.'.join(names[:i]) for i in range(2, len(names) + 1)) if path in paths)
        width = max((max(m.dilation) for m in network.get_submodule(outermost).modules() if isinstance(m, nn.Conv2d)), default=1)
        if widest and width > widest and stage.stride == largest:
            dilated *= 2
        widest = max(width, widest)
        yield replace(stage, dilated=dilated)


def pyramid(found: Probe) -> list[Stage]:
    """The maps that a network's neck returns (FPN levels), shallow to deep; empty where there is no such neck."""
    levels = [output for path, output in found.outputs.items() if path.startswith('neck[') and path.count('[') == 1]
    return sorted((level for level in levels if isinstance(level, Stage) and min(level.grid) >= MIN_GRID), key=lambda level: level.stride)


def _layers(module: nn.Module, path: str) -> Iterator[str]:
    """Paths of a backbone's own layers: its children and, inside plain containers only, theirs."""
    for name, child in module.named_children():
        yield f'{path}.{name}'
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            yield from _layers(child, f'{path}.{name}')


def pair_stages(student: list[Stage], teacher: list[Stage]) -> list[tuple[Stage, Stage]]:
    """Stages of the same stride (without dilation); by relative depth where one of the networks has a single stride."""
    if len({s.scale for s in student}) > 1 and len({t.scale for t in teacher}) > 1:
        return _by_stride(student, teacher)
    count = min(len(student), len(teacher))

    def spread(side):
        return [side[math.ceil(len(side) * (i + 1) / count) - 1] for i in range(count)]
    return list(zip(spread(student), spread(teacher)))


def _by_stride(student: list[Stage], teacher: list[Stage]) -> list[tuple[Stage, Stage]]:
    """Each teacher stage with the student stage of the nearest stride, if it is nearer than half an octave."""
    def apart(s: Stage, t: Stage) -> float:
        return abs(math.log2(s.scale / t.scale))
    nearest = [(min(student, key=lambda s: apart(s, t)), t) for t in teacher]
    return [(s, t) for s, t in nearest if apart(s, t) < 0.5]


def match(student: nn.Module, teacher: nn.Module, seen: Probe, shown: Probe) -> list[tuple[Stage, Stage]]:
    """The automatic pairs of two networks: levels of their necks where both have pyramids of common strides, else backbone stages.

    Args:
        student, teacher: the networks.
        seen, shown: their dry runs.
    """
    levels = _by_stride(pyramid(seen), pyramid(shown)) if pyramid(seen) else []
    return levels if len(levels) > 1 else pair_stages(stages(student, seen), stages(teacher, shown))
