"""The dry run: one pass of a network over two random pictures, and what every module of it gave."""
from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.utils.weak import TensorWeakRef

from .. import randomness
from ..errors import ConfigError
from .layouts import LayoutError, as_map, describe

PICTURES = 2
UNTAUGHT = 'that no gradient leaves (a frozen or reversible layer)'


@dataclass(frozen=True)
class Stage:
    """One tappable output of a network.

    Attributes:
        path: dotted module path.
        channels: C.
        grid: (h, w) at the probed image size.
        stride: image pixels a grid step, rounded; 0 for class scores (N, C), which have no grid.
        layout: what the module really returns.
        dilated: by how much the stride would be larger if the stages that dilate their convolutions strode instead; set
            by :func:`~sfkd.features.stages.stages`.
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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture's output: (C, h, w), or (C,) for class scores."""
        return (self.channels, ) if self.is_scores else (self.channels, *self.grid)


@dataclass(frozen=True)
class Probe:
    """What one dry run of a network showed.

    Attributes:
        outputs: ``{path: Stage, or the output's description where it is no map}``, in the order in which the modules
            ended.
        shapes: ``{path: shape of a tensor output}``.
        image_size: (H, W).
        returned: paths of the modules whose outputs the network itself returns, or returns first, as mmdet's one-stage
            heads return the class scores of each level; empty where it returns something else, or did not end.
    """
    outputs: dict[str, Stage | str]
    shapes: dict[str, torch.Size]
    image_size: tuple[int, int]
    returned: tuple[str, ...] = ()


def trunk_of(network: nn.Module) -> str:
    """The path of the part whose stages are paired: OpenMMLab's ``backbone``, or what a model of transformers names as
    its base; '' (the whole network) where there is neither.
    """
    names = 'backbone', getattr(network, 'base_model_prefix', '')
    return next((name for name in names if name and isinstance(getattr(network, name, None), nn.Module)), '')


def unwrapped(network: nn.Module) -> nn.Module:
    """The network that DDP, ``torch.compile`` or Lightning's Fabric has wrapped; the network itself where none has."""
    while True:
        if isinstance(network, (DistributedDataParallel, nn.DataParallel)):
            network = network.module
        elif hasattr(network, '_orig_mod'):  # of torch.compile
            network = network._orig_mod
        elif isinstance(getattr(network, '_forward_module', None), nn.Module):  # of Fabric
            network = network.module
        else:
            return network


def run_of(network: nn.Module, paths: Collection[str]) -> Callable:
    """What to call with pictures for the outputs of some modules: OpenMMLab's ``extract_feat`` where they are of the
    backbone and the neck, as what follows may want more than pictures (TridentNet: data samples); else the network.
    """
    inside = paths and all(path.partition('.')[0] in ('backbone', 'neck') for path in paths)
    return getattr(network, 'extract_feat', network) if inside else network


def random_pictures(network: nn.Module, image_size: tuple[int, int]) -> torch.Tensor:
    """(2, 3, H, W), always the same, of the type and on the device of a network's weights."""
    pictures = torch.randn(PICTURES, 3, *image_size, generator=torch.Generator().manual_seed(0))
    return pictures.to(next(network.parameters()))


def probe(network: nn.Module, image_size: tuple[int, int], head: bool = False, learns: bool = False) -> Probe:
    """Run a network once on two random pictures and read every module's output.

    Args:
        network: any module whose ``forward`` takes pictures (N, 3, H, W) alone.
        image_size: (H, W).
        head: also run what follows ``backbone`` and ``neck``, where the network has these. Without it the run ends
            there.
        learns: the network is to be taught. What no gradient reaches (frozen stages, the inside of reversible blocks)
            is then no stage.

    Raises:
        ConfigError: if the network fails before any of its modules has made a map of the pictures, as its ``forward``
            takes something else or pictures of another size, or behind ``backbone`` and ``neck``. What fails between
            has its own error.
    """
    parts = [name for name in ('neck', 'backbone') if isinstance(getattr(network, name, None), nn.Module)]
    recorder = _Recorder(image_size, learns, end=None if head or not parts else parts[0])
    hooks = [module.register_forward_hook(lambda _, __, output, path=path: recorder.read(path, output))
             for path, module in network.named_modules() if path]
    returned: tuple[str, ...] = ()
    try:
        with _dry(network, learns), contextlib.suppress(_Enough):
            run = network if head else run_of(network, parts)
            returned = recorder.paths_of(run(random_pictures(network, image_size)))
    except Exception as error:
        if head and parts and parts[0] in recorder.outputs:
            raise ConfigError(f"the heads of '{type(network).__name__}' do not run on pictures alone, as those of "
                              f'two-stage detectors ({type(error).__name__}: {error}); pair stages of its '
                              f"{' and '.join(reversed(parts))}, and set weights of class scores to 0") from error
        if any(isinstance(output, Stage) for output in recorder.outputs.values()):
            raise
        shape, takes = (PICTURES, 3, *image_size), inspect.signature(network.forward)
        raise ConfigError(f"'{type(network).__name__}' does not take pictures of {shape}: {type(error).__name__}: "
                          f'{error}. Its forward is {takes}; give a module whose forward takes pictures (N, 3, H, W) '
                          'alone, and their size as input_size=') from error
    finally:
        for hook in hooks:
            hook.remove()
    return Probe(recorder.outputs, recorder.shapes, image_size, returned)


class _Enough(Exception):
    """The part of the network that can be tapped has run."""


@contextlib.contextmanager
def _dry(network: nn.Module, learns: bool) -> Iterator[None]:
    """Eval mode and no gradients; afterwards every module is in the mode that it had, and buffers and random states are
    what they were.

    A network that learns keeps its gradients, and its trunk is in the mode in which it will be tapped, but for
    normalisation layers: those would note the statistics of random pictures, and SyncBN would ask for a GPU.
    """
    modes = [(module, module.training) for module in network.modules()]
    # Spectral normalisation and fake quantisation learn from every pass
    buffers = [(buffer, buffer._version, buffer.clone()) for buffer in network.buffers() if not buffer.is_inference()]
    network.eval()
    if learns:
        trunk = network.get_submodule(trunk_of(network))
        trunk.train()  # mmpretrain's gives None
        for module in trunk.modules():
            if isinstance(module, _NormBase):
                module.eval()
    try:
        # Nothing will go backward, so nothing is kept for it
        drop = lambda _: None
        # A network that compiles itself (network.compile()) is not to compile the dry run
        with (randomness.preserved(), torch.set_grad_enabled(learns), saved_tensors_hooks(drop, drop),
              torch.compiler.set_stance('force_eager')):
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, version, value in buffers:
                if buffer._version != version:
                    buffer.copy_(value)


class _Recorder:
    """Notes every module's output while a network runs.

    Args:
        image_size: (H, W) of the pictures.
        learns: see :func:`probe`.
        end: the path after whose output the run is left; None for never.
    """

    def __init__(self, image_size: tuple[int, int], learns: bool, end: str | None):
        self.image_size, self.learns, self.end = image_size, learns, end
        self.outputs: dict[str, Stage | str] = {}
        self.shapes: dict[str, torch.Size] = {}
        self._calls: dict[str, int] = {}
        self._made: dict[int, str] = {}  # a tensor's id -> the path that gave it last; right for those that still live
        self._intact: dict[str, tuple[TensorWeakRef, int]] = {}  # storages that may still change, with their version

    def read(self, path: str, output) -> None:
        """A module has returned."""
        self._find_overwritten()
        self._calls[path] = count = self._calls.get(path, 0) + 1
        if count == 2:
            self._rename(path, f'{path}[0]')
        # One module for several levels: each call is an output of its own
        self._note(path if count == 1 else f'{path}[{count - 1}]', output)
        if path == self.end:
            raise _Enough

    def paths_of(self, result) -> tuple[str, ...]:
        """Which modules gave what the network returned, or the first of several things that it returned."""
        result = tuple(result.values()) if isinstance(result, Mapping) else result  # as transformers' models have it
        first = result[0] if isinstance(result, (tuple, list)) and result else result
        parts = first if isinstance(first, (tuple, list)) else [first]
        return tuple(self._made[id(part)] for part in parts if id(part) in self._made)

    def _note(self, path: str, output) -> None:
        self.outputs.pop(path, None)
        if torch.is_tensor(output):
            self.shapes[path], self._made[id(output)] = output.shape, path
        try:
            tapped = as_map(output, self.image_size)
            if tapped.shape[0] != PICTURES:  # windows or regions folded into the batch
                raise LayoutError
        except LayoutError:
            self.outputs[path] = describe(output)
            if isinstance(output, (tuple, list)):
                for i, part in enumerate(output):
                    self._note(f'{path}[{i}]', part)
            return
        if self.learns and not tapped.requires_grad:
            self.outputs[path] = f'{describe(output)} {UNTAUGHT}'
            return
        grid = tuple(tapped.shape[2:])
        stride = round(math.sqrt(math.prod(self.image_size) / math.prod(grid)))
        self.outputs[path] = Stage(path, tapped.shape[1], grid, stride, describe(output))
        storage = tapped if tapped._base is None else tapped._base
        self._intact[path] = TensorWeakRef(storage), storage._version

    def _rename(self, old: str, new: str) -> None:
        output = self.outputs.pop(old)
        self._made |= {key: new for key, path in self._made.items() if path == old}
        self.outputs[new] = replace(output, path=new) if isinstance(output, Stage) else output
        if old in self._intact:
            self._intact[new] = self._intact.pop(old)

    def _find_overwritten(self) -> None:
        for path, (reference, version) in list(self._intact.items()):
            storage = reference()
            if storage is None or storage._version != version:
                self._intact.pop(path)
                if storage is not None and isinstance(self.outputs.get(path), Stage):
                    self.outputs[path] = replace(self.outputs[path], overwritten=True)
