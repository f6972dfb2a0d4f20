"""Area pooling, for which PyTorch has no vector code on a CPU, and whose gradient it adds up cell by cell where windows
overlap, on a GPU in no fixed order. The code is ours.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .loops import compiled, runs_loops

# Up to this many cells one product stands for overlapping windows (tools/benchmarks/bench_ops.py --ops pooling --shapes
# 32,384,15,15). Up to this side loops are compiled for windows side by side, each size for itself.
_SMALL_GRID = 256
_LONGEST_WINDOW = 8


def area_pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """``F.adaptive_avg_pool2d(x, grid)``, to the last bit where windows do not overlap.

    Args:
        x: (N, C, h, w).
        grid: (h', w'), no larger than (h, w).

    Returns:
        Tensor: (N, C, h', w'); x itself where that is its grid.
    """
    (height, width), (rows, columns) = x.shape[2:], grid
    if (height, width) == (rows, columns):
        return x
    if height % rows == width % columns == 0:
        window = height // rows, width // columns
        if max(window) <= _LONGEST_WINDOW and runs_loops(x) and x.is_contiguous() and not torch.compiler.is_compiling():
            return _Windows.apply(x, window)
    elif height * width <= _SMALL_GRID and x.dtype in (torch.float32, torch.float64):
        with torch.autocast(x.device.type, enabled=False):
            matrix = _overlapping(height, width, rows, columns, x.device, x.dtype)
            return (x.flatten(2) @ matrix).unflatten(2, (rows, columns))
    return F.adaptive_avg_pool2d(x, grid)


class _Windows(torch.autograd.Function):
    """Pooling of windows side by side, and its gradient, spread over them; each is the other's."""

    @staticmethod
    def forward(ctx, x: Tensor, window: tuple[int, int]) -> Tensor:
        ctx.window = window
        pooled = x.new_empty(*x.shape[:2], *(n // k for n, k in zip(x.shape[2:], window)))
        _run(_pool(*window), x, pooled)
        return pooled

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _Spread.apply(gradient, ctx.window), None


class _Spread(torch.autograd.Function):

    @staticmethod
    def forward(ctx, gradient: Tensor, window: tuple[int, int]) -> Tensor:
        ctx.window = window
        x = gradient.new_empty(*gradient.shape[:2], *(n * k for n, k in zip(gradient.shape[2:], window)))
        _run(_spread(*window), gradient, x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return _Windows.apply(gradient, ctx.window), None


def _run(loops: Callable, *maps: Tensor) -> None:
    compiled(loops)(*(x.detach().contiguous().flatten(0, 1).numpy() for x in maps))  # planes (N C, ...)


# The window's sides are constants of the compiled loops, or they would not become vector code.
@cache
def _pool(height: int, width: int) -> Callable:
    def pool(x, pooled):
        """Arrays x (P, H, W) -> pooled (P, h, w)."""
        zero, tall, wide = pooled.dtype.type(0), pooled.dtype.type(height), pooled.dtype.type(width)
        for p in range(pooled.shape[0]):
            for i in range(pooled.shape[1]):
                for j in range(pooled.shape[2]):
                    total = zero
                    for a in range(height):
                        for b in range(width):
                            total += x[p, i * height + a, j * width + b]
                    pooled[p, i, j] = total / tall / wide
    return pool


@cache
def _spread(height: int, width: int) -> Callable:
    def spread(gradient, x):
        """Arrays gradient (P, h, w) -> x (P, H, W)."""
        tall, wide = x.dtype.type(height), x.dtype.type(width)
        for p in range(gradient.shape[0]):
            for i in range(gradient.shape[1]):
                for a in range(height):
                    for j in range(gradient.shape[2]):
                        share = gradient[p, i, j] / tall / wide
                        for b in range(width):
                            x[p, i * height + a, j * width + b] = share
    return spread


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # saved for backward later, which a tensor born in inference mode cannot be
def _overlapping(height: int, width: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(height width, rows columns): how much of each cell goes into each window, both in the order of memory."""
    return torch.kron(_side(height, rows), _side(width, columns)).to(device, dtype)


def _side(cells: int, windows: int) -> Tensor:
    """(cells, windows), float64; window i goes from floor(i cells / windows) to ceil((i + 1) cells / windows)."""
    i, cell = torch.arange(windows), torch.arange(cells)[:, None]
    inside = (cell >= i * cells // windows) & (cell < -(-(i + 1) * cells // windows))
    return inside.double() / inside.double().sum(0)
