"""Taps: intermediate outputs of a network, by dotted module path. The only place with forward hooks."""
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

MAX_EXTRA_TOKENS = 8  # class, distillation and register tokens in front of the patch tokens


class LayoutError(ValueError):
    """An output that cannot be read as a map (N, C, h, w)."""


def describe(output) -> str:
    """Type and shape of a module's output, for messages."""
    if torch.is_tensor(output):
        return f'a tensor {tuple(output.shape)}'
    if isinstance(output, (tuple, list)):
        return f'a {type(output).__name__} of ' + ', '.join(describe(o) for o in output)
    return f'{output!r}' if isinstance(output, (int, float, torch.Size)) else f'a {type(output).__name__}'


def as_map(output, image_size: tuple[int, int]) -> Tensor:
    """Read the output of any layer as a map; a view, never a copy.

    Args:
        output: maps (N, C, h, w) or (N, h, w, C); tokens (N, L, C), leading class, distillation or register tokens are dropped;
            ``(..., tokens, (h, w))`` as Swin's stages return; or a tuple or list of one of these.
        image_size: (H, W) of the input that gave it; decides how L tokens fold into h x w.

    Returns:
        Tensor: (N, C, h, w).

    Raises:
        LayoutError: if it is none of these.
    """
    if isinstance(output, (tuple, list)):
        if len(output) == 1:
            return as_map(output[0], image_size)
        if len(output) >= 2 and torch.is_tensor(output[-2]) and output[-2].dim() == 3 and _is_size(output[-1]):
            return _fold(output[-2], *output[-1])
    elif torch.is_tensor(output) and output.dim() == 4:
        if _fits(output.shape[2:], image_size):
            return output
        if _fits(output.shape[1:3], image_size):
            return output.permute(0, 3, 1, 2)
    elif torch.is_tensor(output) and output.dim() == 3 and output.shape[2] > 1:  # (N, C, 1) is a pooled map
        for exact in (True, False):
            for extra in range(min(MAX_EXTRA_TOKENS, output.shape[1] - 1) + 1):
                grid = _grid(output.shape[1] - extra, image_size)
                if grid and (not exact or grid[0] * image_size[1] == grid[1] * image_size[0]):
                    return _fold(output[:, extra:], *grid)
    raise LayoutError(f'{describe(output)} is no feature map for an input of {image_size[0]}x{image_size[1]}')


def _is_size(value) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _fits(grid, image_size) -> bool:
    """Whether a grid has the aspect of the image, up to one row or column of padding."""
    (h, w), (height, width) = grid, image_size
    return h <= height and w <= width and abs(h * width - w * height) <= max(height, width)


def _grid(tokens: int, image_size) -> tuple[int, int] | None:
    height, width = image_size
    guess = round((tokens * height / width) ** 0.5)
    for h in (guess, guess - 1, guess + 1):
        if h > 0 and tokens % h == 0 and _fits((h, tokens // h), image_size):
            return h, tokens // h
    return None


def _fold(tokens: Tensor, h: int, w: int) -> Tensor:
    if tokens.shape[1] != h * w:
        raise LayoutError(f'{describe(tokens)} has {tokens.shape[1]} tokens, which do not fold into {h}x{w}')
    return tokens.transpose(1, 2).unflatten(2, (h, w))


@torch.inference_mode(False)
def _kept(output):
    """A tensor of inference mode as a plain one that losses may use: a copy, since autograd refuses the original and no version tells whether
    a later layer overwrites it. In the usual layout: a map that was tokens lies channels last, and each loss would read it with strides."""
    return output.clone(memory_format=torch.contiguous_format) if torch.is_tensor(output) else output


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
    found = calls
    if len(calls) == 1 and (not indices or isinstance(calls[0], (tuple, list))):
        found = calls[0]
    for i in indices:
        if not isinstance(found, (tuple, list)) or i >= len(found):
            return None
        found = found[i]
    return found


class Taps:
    """Reads the outputs of named modules during one forward pass.

    Hooks exist only inside :meth:`capture`: copies, checkpoints and compiled versions of the network never carry them.

    Args:
        network: any module.
        paths: what to read, by :func:`as_map`: module paths, with an index where a module returns several maps (``neck[0]``) or runs
            several times (``bbox_head.cls[2]``, the third call).
        raw: those of them whose outputs are given as they are (logits).
        copied: those of them whose outputs a later layer overwrites; outside inference mode all others are views.
        stop: leave the network once every tap has fired. The network's own output is then lost.
    """

    def __init__(self, network: nn.Module, paths: Iterable[str], raw: Iterable[str] = (), stop: bool = False, copied: Iterable[str] = ()):
        self.network, self.stop = network, stop
        self.raw, self.copied = set(raw), set(copied)
        self.paths = {path: split_path(path) for path in paths}

    @contextlib.contextmanager
    def capture(self, image_size: tuple[int, int]) -> Iterator[dict[str, Tensor]]:
        """Within the context, run the network once on inputs of ``image_size``; afterwards the dict holds ``{path: output}``.

        Raises:
            RuntimeError: if a tapped module did not run, ran more than once without an index, or (outside inference mode, in which outputs
                are copied) its output was overwritten in place by a later layer.
        """
        found: dict[str, Tensor] = {}
        versions: dict[str, int] = {}
        calls: dict[str, list] = {module: [] for module, _ in self.paths.values()}

        def read(module, output):
            calls[module].append(output)
            for path, (owner, indices) in self.paths.items():
                if owner != module:
                    continue
                if path in found:
                    if not indices:
                        raise RuntimeError(f"tap '{path}' ran more than once in one forward pass: name the call, '{path}[0]'")
                    continue
                output = pick(calls[module], indices)
                if output is not None:
                    try:
                        found[path] = output if path in self.raw else as_map(output, image_size)
                    except LayoutError as error:
                        raise LayoutError(f"tap '{path}' of {type(self.network).__name__}: {error}; tap another module") from error
                    if torch.is_inference_mode_enabled():
                        found[path] = _kept(found[path])
                        continue
                    if path in self.copied:
                        found[path] = found[path].clone()
                    if torch.is_tensor(found[path]):
                        versions[path] = found[path]._version
            if self.stop and len(found) == len(self.paths):
                raise _AllTapped

        hooks = [self.network.get_submodule(module).register_forward_hook(lambda _, __, output, module=module: read(module, output))
                 for module in calls]
        try:
            yield found
        except _AllTapped:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        for path in self.paths:
            if path not in found:
                raise RuntimeError(f"tap '{path}' of {type(self.network).__name__} did not run in this forward pass")
            if path in versions and found[path]._version != versions[path]:
                raise RuntimeError(f"the output of tap '{path}' was overwritten in place by a later layer: tap the module after it")
