"""Layouts: what a layer returns, read as a map (N, C, h, w)."""
from __future__ import annotations

import math
from collections.abc import Callable

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
        output: maps (N, C, h, w) or (N, h, w, C); tokens (N, L, C), leading class, distillation or register tokens are
            dropped; ``(..., tokens, (h, w))`` as Swin's stages return; or a tuple or list of one of these.
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
        # (2, 7, 7, 8) of a square picture is 7x7 with 8 channels, though 7x8 is within a column of padding
        for fits in (_has_aspect, _fits):
            if fits(output.shape[2:], image_size):
                return output
            if fits(output.shape[1:3], image_size):
                return output.permute(0, 3, 1, 2)
    elif torch.is_tensor(output) and output.dim() == 3 and output.shape[2] > 1:  # (N, C, 1) is a pooled map
        for exact in (True, False):
            for extra in range(min(MAX_EXTRA_TOKENS, output.shape[1] - 1) + 1):
                grid = _grid(output.shape[1] - extra, image_size)
                if grid and (not exact or _has_aspect(grid, image_size)):
                    return _fold(output[:, extra:], *grid)
    raise LayoutError(f'{describe(output)} is no feature map for an input of {image_size[0]}x{image_size[1]}')


def lay_out(network: nn.Module, layout: torch.memory_format) -> None:
    """Lay the weights of a network's convolutions out anew, in their place; their maps come out likewise.

    Args:
        network: any module.
        layout: ``torch.channels_last`` or ``torch.contiguous_format``.
    """
    for weight in network.parameters():
        if weight.dim() == 4:
            # strides and all: of 1x1 kernels both layouts are contiguous, but gradients come with the strides of one
            weight.data = torch.empty_like(weight, memory_format=layout).copy_(weight.data)


def with_maps(output, features: dict[tuple[int, ...], Tensor], image_size: tuple[int, int]):
    """A layer's output with other maps in the place of its own; what is none of these (class tokens, sizes, other
    levels) stays.

    Args:
        output: as for :func:`as_map`, or with several such parts; nothing of it is changed.
        features: ``{indices of a part of the output, () for the whole: the other map, (N, C, h, w)}``; they may take
            gradients.
        image_size: (H, W) of the input that gave the output.

    Raises:
        LayoutError: if there is no map in the output.
    """
    output = cloned(output)
    for indices, other in features.items():
        as_map(part_of(output, indices), image_size).copy_(other)  # it is a view
    return output


def cloned(output):
    """A layer's output of tensors that nobody else overwrites; what was one tensor twice stays one, as Swin's last
    stage has it.
    """
    return _changed(output, Tensor.clone)


def hollow(output):
    """A layer's output whose maps are of their shapes and types, without memory: of one cell that is no number. What
    would write to one raises RuntimeError.
    """
    return _changed(output, lambda part: part.new_full((), math.nan).expand(part.shape)
                    if part.is_floating_point() else part.clone())


def _changed(output, change: Callable[[Tensor], Tensor]):
    changed: dict[int, Tensor] = {}

    def within(part):
        if type(part) in (tuple, list):
            return type(part)(map(within, part))
        if type(part) is dict:
            return {key: within(value) for key, value in part.items()}
        if torch.is_tensor(part) and id(part) not in changed:
            changed[id(part)] = change(part)
        return changed.get(id(part), part)
    return within(output)


def part_of(output, indices: tuple[int, ...]):
    """What nested tuples and lists hold at a place."""
    for i in indices:
        output = output[i]
    return output


def _is_size(value) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(v, int) for v in value)


def _has_aspect(grid, image_size) -> bool:
    """Whether a grid, no finer than the pixels, has exactly the aspect of the image."""
    return grid[0] <= image_size[0] and grid[0] * image_size[1] == grid[1] * image_size[0]


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
