"""Taps: intermediate outputs of a network, by dotted module path. The only place with forward hooks, but for the dry
run's.
"""
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from .layouts import LayoutError, as_map
from .probe import Stage


@torch.inference_mode(False)
def _kept(output, dtype: torch.dtype | None):
    """A tensor of inference mode as a plain one that losses may use: a copy, since autograd refuses the original and no
    version tells whether a later layer overwrites it. In the usual layout: a map that was tokens lies channels last,
    and each loss would read it with strides."""
    if not torch.is_tensor(output):
        return output
    return output.to(dtype or output.dtype, copy=True, memory_format=torch.contiguous_format)


class _AllTapped(Exception):
    """Leaves a network after its deepest tap."""


def split_path(path: str) -> tuple[str, tuple[int, ...]]:
    """``'neck[2]'`` -> ``('neck', (2,))``: a module's path and what to pick from its output."""
    module, *indices = re.split(r'\[(\d+)\]', path)
    return module, tuple(int(i) for i in indices[::2])


def pick(calls: list, indices: tuple[int, ...]):
    """The part of a module's outputs that a path names; None while it has not been computed.

    Args:
        calls: the module's output of each call so far.
        indices: into the tuple or list that its one call returned, or (a module that runs once a level) first the call.
    """
    part = calls
    if len(calls) == 1 and (not indices or isinstance(calls[0], (tuple, list))):
        part = calls[0]
    for i in indices:
        if not isinstance(part, (tuple, list)) or i >= len(part):
            return None
        part = part[i]
    return part


class Captured(dict):
    """``{path: output}`` of one forward pass.

    Attributes:
        sources: ``{path: (the network's own tensor, its view that the output is or was copied from)}``: what flows back
            from the rest of the network passes the first, and not the output. None in inference mode.
    """

    def __init__(self):
        super().__init__()
        self.sources: dict[str, tuple[Tensor, Tensor]] = {}


class Taps:
    """Reads the outputs of named modules during one forward pass.

    Hooks exist only inside :meth:`capture`: copies, checkpoints and compiled versions of the network never carry them.

    Args:
        network: any module.
        paths: what to read, by :func:`as_map`: module paths, with an index where a module returns several maps
            (``neck[0]``) or runs several times (``bbox_head.cls[2]``, the third call).
        raw: those of them whose outputs are given as they are (logits).
        copied: those of them whose outputs a later layer overwrites; outside inference mode all others are views, but
            for maps that do not lie as (N, C, h, w).
        stop: leave the network once every tap has fired. The network's own output is then lost.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str], raw: Iterable[str] = (), stop: bool = False,
                 copied: Iterable[str] = ()):
        self.network, self.stop = network, stop
        self.raw, self.copied = set(raw), set(copied)
        self.paths = {path: split_path(path) for path in paths}

    @classmethod
    def on(cls, network: nn.Module, stages: Iterable[Stage], stop: bool = False) -> Taps:
        """The taps of stages that a dry run found: scores as they are, and a copy of what a later layer overwrites."""
        stages = list(stages)
        return cls(network, dict.fromkeys(stage.path for stage in stages),
                   [stage.path for stage in stages if stage.is_scores], stop,
                   [stage.path for stage in stages if stage.overwritten])

    @property
    def modules(self) -> list[str]:
        """Paths of the modules whose outputs are read."""
        return list(dict.fromkeys(module for module, _ in self.paths.values()))

    @contextlib.contextmanager
    def capture(self, image_size: tuple[int, int], full: torch.dtype | None = None) -> Iterator[Captured]:
        """Within the context, run the network once on inputs of ``image_size``; afterwards the dict holds ``{path:
        output}``.

        Args:
            image_size: (H, W).
            full: what outputs in half precision are given as; None gives them as they are.

        Raises:
            RuntimeError: if a tapped module did not run, ran more than once without an index, or (outside inference
                mode, in which outputs are copied) its output was overwritten in place by a later layer.
        """
        reading = _Reading(self, image_size, full)

        def note(module, output):
            reading.note(module, output)
            if self.stop and len(reading.outputs) == len(self.paths):
                raise _AllTapped
        hooks = []
        for module in self.modules:
            # a compiled network leaves its code here, or it would run the hooks of its first pass in all others
            hook = torch.compiler.disable(lambda _, __, output, module=module: note(module, output))
            hooks.append(self.network.get_submodule(module).register_forward_hook(hook))
        try:
            yield reading.outputs
        except _AllTapped:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        reading.check()

    def read(self, calls: Iterable[tuple[str, object]], image_size: tuple[int, int],
             full: torch.dtype | None = None) -> Captured:
        """The same of calls that were noted elsewhere.

        Args:
            calls: (path of a module, its output), in the order of the calls.
            image_size, full: see :meth:`capture`.
        """
        reading = _Reading(self, image_size, full)
        for module, output in calls:
            reading.note(module, output)
        reading.check()
        return reading.outputs

    def given(self, path: str, output, image_size: tuple[int, int], full: torch.dtype | None):
        """A module's output as it is given for a path, and its source (:class:`Captured`)."""
        try:
            tapped = output if path in self.raw else as_map(output, image_size)
        except LayoutError as error:
            raise LayoutError(f"tap '{path}' of {type(self.network).__name__}: {error}; tap another module") from error
        half = torch.is_tensor(tapped) and tapped.dtype in (torch.bfloat16, torch.float16)
        dtype = full if half else None
        if torch.is_inference_mode_enabled():
            return _kept(tapped, dtype), None
        source = tapped if getattr(tapped, '_base', None) is None else tapped._base, tapped
        given = tapped
        if torch.is_tensor(tapped):  # in the usual layout, as in _kept; as it is where it lies so
            given = tapped.to(dtype or tapped.dtype, memory_format=torch.contiguous_format)
        return given.clone() if given is tapped and path in self.copied else given, source


class _Reading:
    """What the taps have read so far in one forward pass."""

    def __init__(self, taps: Taps, image_size: tuple[int, int], full: torch.dtype | None):
        self.taps, self.image_size, self.full = taps, image_size, full
        self.outputs = Captured()
        self.versions: dict[str, int] = {}
        self.calls: dict[str, list] = {module: [] for module in taps.modules}
        self.parted: set[str] = set()  # modules of which a part of one call's output was taken

    def note(self, module: str, output) -> None:
        """A module has returned."""
        outputs = self.outputs
        self.calls[module].append(output)
        for path, (owner, indices) in self.taps.paths.items():
            if owner != module:
                continue
            if path in outputs and (not indices or module in self.parted):
                raise RuntimeError(f"tap '{path}' ran more than once in one forward pass: run the network once in a "
                                   f"with block, or, where it calls this module again and again, name the call, "
                                   f"'{path}[0]'")
            part = None if path in outputs else pick(self.calls[module], indices)
            if part is not None:
                if indices and len(self.calls[module]) == 1 and part is not output:
                    self.parted.add(module)
                outputs[path], outputs.sources[path] = self.taps.given(path, part, self.image_size, self.full)
                if torch.is_tensor(outputs[path]) and not torch.is_inference_mode_enabled():
                    self.versions[path] = outputs[path]._version

    def check(self) -> None:
        """The pass has ended."""
        for path in self.taps.paths:
            if path not in self.outputs:
                raise RuntimeError(f"tap '{path}' of {type(self.taps.network).__name__} did not run in this forward "
                                   'pass. Run the network once within the with block; one that is compiled must not '
                                   'have run before outside of it, or its code has no tap (torch.compiler.reset()); '
                                   'activation checkpointing that goes around the module is to be switched on before '
                                   'the distillation is made')
            if path in self.versions and self.outputs[path]._version != self.versions[path]:
                raise RuntimeError(f"the output of tap '{path}' was overwritten in place by a later layer: tap the "
                                   'module after it')
