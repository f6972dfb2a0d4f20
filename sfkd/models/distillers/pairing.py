"""Which stage of the student goes with which stage of the teacher: from one dry run of each network."""
from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.weak import TensorWeakRef

from ... import randomness
from .taps import LayoutError, as_map, describe, split_path

MIN_STRIDE = 4  # the stem is no stage
MIN_SHARE = 0.02  # of the backbone's modules: what is less is a step of the stem, or a pooling layer between stages
MIN_GRID = 2  # a 1x1 map has no space left to decompose
LAST_SCALE = 32  # where a classifier's last stage is; what dilates beyond does not stand for a stride


@dataclass(frozen=True)
class Stage:
    """One tappable map of a network.

    Attributes:
        path: dotted module path.
        channels: C.
        grid: (h, w) at the probed image size.
        stride: image pixels a grid step, rounded; 0 for class scores (N, C), which have no grid.
        layout: what the module really returns.
        dilated: by how much the stride would be larger if the stages that dilate their convolutions strode instead; set by :func:`stages`.
        overwritten: whether a later layer works in place on what the module returned, so that a tap must keep a copy.
    """
    path: str
    channels: int
    grid: tuple[int, int]
    stride: int
    layout: str
    dilated: int = 1
    overwritten: bool = False

    @property
    def scale(self) -> int:
        """The stride without dilation: what the last stages of a segmentor's ResNet have in a classifier's."""
        return self.stride * self.dilated

    @property
    def is_scores(self) -> bool:
        """Whether it is no map but one vector a picture."""
        return self.stride == 0


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
def _dry(network: nn.Module, learns: bool) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every module is in the mode that it had, and the random states are what they were.

    A network that learns keeps its gradients, and its backbone is in the mode in which it will be tapped, but for normalisation layers:
    those would note the statistics of random pictures, and SyncBN would ask for a GPU.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    if learns:
        network.backbone.train()
        for module in network.backbone.modules():
            if isinstance(module, _NormBase):
                module.eval()
    try:
        # Nothing will go backward, so nothing is kept for it
        with randomness.preserved(), torch.set_grad_enabled(learns), saved_tensors_hooks(lambda _: None, lambda _: None):
            yield
    finally:
        for module, training in modes:
            module.training = training


class _Enough(Exception):
    """The part of the network that can be tapped has run."""


def probe(network: nn.Module, image_size: tuple[int, int], head: bool = False, learns: bool = False) -> Probe:
    """Run a network once on two random pictures and read every module's output.

    Args:
        network: a model of mmpretrain, mmdet or mmseg (``forward(inputs, mode='tensor')``).
        image_size: (H, W).
        head: also run what follows backbone and neck. Without it the run ends there.
        learns: the network is to be taught. What no gradient reaches (frozen stages, the inside of reversible blocks) is then no stage.
    """
    outputs: dict[str, Stage | str] = {}
    shapes: dict[str, torch.Size] = {}
    last = 'neck' if getattr(network, 'neck', None) is not None else 'backbone'

    calls: dict[str, int] = {}
    intact: dict[str, tuple[TensorWeakRef, int]] = {}  # storages that may still change, with their version

    def note(path, output):
        outputs.pop(path, None)
        if torch.is_tensor(output):
            shapes[path] = output.shape
        try:
            tapped = as_map(output, image_size)
            if tapped.shape[0] != 2:  # windows or regions folded into the batch
                raise LayoutError
            if learns and not tapped.requires_grad:
                outputs[path] = f'{describe(output)} that no gradient leaves (a frozen or reversible layer)'
                return
            grid = tuple(tapped.shape[2:])
            stride = round(math.sqrt(image_size[0] * image_size[1] / (grid[0] * grid[1])))
            outputs[path] = Stage(path, tapped.shape[1], grid, stride, describe(output))
            storage = tapped if tapped._base is None else tapped._base
            intact[path] = TensorWeakRef(storage), storage._version
        except LayoutError:
            outputs[path] = describe(output)
            if isinstance(output, (tuple, list)):
                for i, part in enumerate(output):
                    note(f'{path}[{i}]', part)

    def look_for_changes():
        for path, (reference, version) in list(intact.items()):
            storage = reference()
            if storage is None or storage._version != version:
                intact.pop(path)
                if storage is not None and isinstance(outputs.get(path), Stage):
                    outputs[path] = replace(outputs[path], overwritten=True)

    def read(path, output):
        look_for_changes()
        calls[path] = count = calls.get(path, 0) + 1
        if count == 1:
            note(path, output)
        else:  # one module for several levels: each call is an output of its own
            if count == 2:
                first = outputs.pop(path)
                outputs[f'{path}[0]'] = replace(first, path=f'{path}[0]') if isinstance(first, Stage) else first
                if path in intact:
                    intact[f'{path}[0]'] = intact.pop(path)
            note(f'{path}[{count - 1}]', output)
        if path == last and not head:
            raise _Enough

    hooks = [module.register_forward_hook(lambda _, __, output, path=path: read(path, output))
             for path, module in network.named_modules() if path]
    parameter = next(network.parameters())
    images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(0)).to(parameter)
    try:
        with _dry(network, learns), contextlib.suppress(_Enough):
            network(images, mode='tensor')
    finally:
        for hook in hooks:
            hook.remove()
    return Probe(outputs, shapes, image_size)


def stages(network: nn.Module, found: Probe, parts: int = 4) -> list[Stage]:
    """The ends of a backbone's stages, shallow to deep.

    A hierarchical network has one stage an octave of strides: the last map there among the backbone's layers, or among those that a layer
    of parallel branches gives. A stage that dilates where it could stride (segmentation's ResNet-D8) counts with twice the stride of the
    stage before. An isotropic network (ViT, MLP-Mixer: one stride throughout but for its stem) is cut into ``parts`` runs of blocks of the
    same length.
    """
    own = {path: output for path, output in found.outputs.items() if path.startswith('backbone.')}
    order = {path: i for i, path in enumerate(own)}
    layers = set(_layers(network.backbone, 'backbone', {split_path(path)[0] for path, output in own.items() if isinstance(output, Stage)}))
    maps = [output for path, output in own.items() if split_path(path)[0] in layers and isinstance(output, Stage)
            and output.stride >= MIN_STRIDE and min(output.grid) >= MIN_GRID]
    ends: dict[int, Stage] = {}
    for stage in _undilated(network, maps):
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
    containers: dict[str, dict[str, Stage]] = {}
    for stage in maps:
        if _octave(stage.scale) == octave and order[stage.path] >= MIN_SHARE * len(own):  # of a block with several outputs the last
            block = split_path(stage.path)[0]
            containers.setdefault(block.rpartition('.')[0], {})[block] = stage
    blocks = list(max(containers.values(), key=lambda run: (next(iter(run)).count('.') > 1, len(run))).values())
    parts = min(parts, len(blocks))
    return [blocks[math.ceil(len(blocks) * (i + 1) / parts) - 1] for i in range(parts)]


def _octave(stride: int) -> int:
    return round(math.log2(stride))


def _undilated(network: nn.Module, maps: list[Stage]) -> Iterator[Stage]:
    """The maps, shallow to deep, with ``dilated`` twice as large for each stage that dilates its convolutions where it could stride.

    Such stages lie at the largest stride, dilate more than all before them and stand for strides up to 32; kernels that are dilated
    everywhere (VAN) are no such stage.
    """
    paths, largest = {split_path(stage.path)[0] for stage in maps}, max((stage.stride for stage in maps), default=0)
    widest, dilated = 0, 1
    for stage in maps:
        names = split_path(stage.path)[0].split('.')
        # A block counts as its whole stage does: the first of a dilated stage often keeps the dilation of the stage before
        outermost = next(path for path in ('.'.join(names[:i]) for i in range(2, len(names) + 1)) if path in paths)
        width = max((max(m.dilation) for m in network.get_submodule(outermost).modules() if isinstance(m, nn.Conv2d)), default=1)
        if widest and width > widest and stage.stride == largest and largest * dilated < LAST_SCALE:
            dilated *= 2
        widest = max(width, widest)
        yield replace(stage, dilated=dilated if stage.stride == largest else 1)  # a decoder after them strides back


def pyramid(found: Probe) -> list[Stage]:
    """The maps that a network's neck returns (FPN levels), shallow to deep; empty where there is no such neck."""
    levels = [output for path, output in found.outputs.items() if path.startswith('neck[') and path.count('[') == 1]
    return sorted((level for level in levels if isinstance(level, Stage) and min(level.grid) >= MIN_GRID), key=lambda level: level.stride)


def _layers(module: nn.Module, path: str, shown: set[str]) -> Iterator[str]:
    """Paths of a backbone's own layers: its children, and the children of those that only hold layers.

    Those are plain containers, a wrapper's only child (mmpretrain's around a timm model), and modules that give no map themselves because
    the backbone calls their parts.

    Args:
        module, path: where to look.
        shown: paths of the modules that gave maps.
    """
    children = dict(module.named_children())
    for name, child in children.items():
        name = f'{path}.{name}'
        yield name
        if _holds(child) or name not in shown or len(children) == 1 and not _holds(module):
            yield from _layers(child, name, shown)


def _holds(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) or isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


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
