"""The Haar transform over several levels and its inverse: sums and differences of each 2x2 square, each pass the
other's gradient.

Of an orthonormal transform the transpose is the inverse, so neither pass keeps a map for its gradient. In SFKD (arXiv
2607.01906) the wavelet is ours to choose; the code is ours. An odd side is followed by a zero.

On a CPU float32 and float64 run as loops that numba compiles at the first call (about a second; no compiler is needed):
PyTorch has no vector code that reads every other number. Elsewhere, and in half precision, they are PyTorch's
operations.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .loops import FEW, compiled, runs_loops


class HaarAnalysis(torch.autograd.Function):
    """``apply(x, levels)``: (N, C, H, W) -> low (N, C, h_J, w_J), then the details (N, C, 3, h_j, w_j), the finest
    first: LH, HL, HH.
    """

    @staticmethod
    def forward(ctx, x: Tensor, levels: int) -> tuple[Tensor, ...]:
        ctx.size = x.shape[-2:]
        details = []
        for _ in range(levels):
            h, w = ((n + 1) // 2 for n in x.shape[-2:])
            low, detail = x.new_empty(*x.shape[:2], h, w), x.new_empty(*x.shape[:2], 3, h, w)
            _run(_analyse_few if _few(x) else _analyse_loops, _analyse, x, low, detail)
            details.append(detail)
            x = low
        return low, *details

    @staticmethod
    def backward(ctx, low: Tensor, *details: Tensor) -> tuple[Tensor, None]:
        return HaarSynthesis.apply(ctx.size, low, *details), None


class HaarSynthesis(torch.autograd.Function):
    """``apply(size, low, *details)``: the reverse, to (N, C, *size): twice the finest details' size, or one less where
    a zero followed.
    """

    @staticmethod
    def forward(ctx, size: tuple[int, int], low: Tensor, *details: Tensor) -> Tensor:
        ctx.levels = len(details)
        sizes = [size, *(detail.shape[-2:] for detail in details[:-1])]
        for detail, size in zip(reversed(details), reversed(sizes)):
            x = low.new_empty(*low.shape[:2], *size)
            _run(_synthesise_few if _few(x) else _synthesise_loops, _synthesise, low, detail, x)
            low = x
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *HaarAnalysis.apply(gradient, ctx.levels)


def _run(loops, operations, *maps: Tensor) -> None:
    """One level. Inputs and outputs are (N, C, ...), the outputs contiguous; what runs sees planes (N C, ...)."""
    planes = [x.detach().flatten(0, 1) for x in maps]
    if runs_loops(maps[0]):
        compiled(loops)(*(x.contiguous().numpy() for x in planes))
    else:
        operations(*planes)


def _few(x: Tensor) -> bool:
    """Whether a map is halved without a rest, to few cells."""
    height, width = x.shape[-2:]
    return height % 2 == width % 2 == 0 and height * width <= 4 * FEW


# One level each way. Indices rather than views of rows, whose reference counts cost more than the arithmetic; one row
# written at a time, as stores to two are not made vector code.
def _analyse_loops(x, low, details):
    """Arrays x (P, H, W) -> low (P, h, w), details (P, 3, h, w)."""
    planes, height, width = x.shape
    half = x.dtype.type(0.5)
    for p in range(planes):
        for i in range(low.shape[1]):
            top, bottom = 2 * i, min(2 * i + 1, height - 1)
            below = half if bottom > top else half - half  # past the border are zeros
            for j in range(width // 2):
                a, b = half * x[p, top, 2 * j], half * x[p, top, 2 * j + 1]
                c, d = below * x[p, bottom, 2 * j], below * x[p, bottom, 2 * j + 1]
                low[p, i, j] = (a + c) + (b + d)
                details[p, 0, i, j] = (a - c) + (b - d)
                details[p, 1, i, j] = (a + c) - (b + d)
                details[p, 2, i, j] = (a - c) - (b - d)
            if width % 2:
                a, c = half * x[p, top, -1], below * x[p, bottom, -1]
                low[p, i, -1] = details[p, 1, i, -1] = a + c
                details[p, 0, i, -1] = details[p, 2, i, -1] = a - c


def _synthesise_loops(low, details, x):
    """Arrays low (P, h, w), details (P, 3, h, w) -> x (P, H, W)."""
    planes, height, width = x.shape
    half = x.dtype.type(0.5)
    for p in range(planes):
        for row in range(height):
            i = row // 2
            sign = -half if row % 2 else half
            for j in range(width // 2):
                broad = half * low[p, i, j] + sign * details[p, 0, i, j]
                detail = half * details[p, 1, i, j] + sign * details[p, 2, i, j]
                x[p, row, 2 * j] = broad + detail
                x[p, row, 2 * j + 1] = broad - detail
            if width % 2:
                x[p, row, -1] = (half * (low[p, i, -1] + details[p, 1, i, -1])
                                 + sign * (details[p, 0, i, -1] + details[p, 2, i, -1]))


# The same for even sides and few cells.
def _analyse_few(x, low, details):
    half = x.dtype.type(0.5)
    for i in range(low.shape[1]):
        for j in range(low.shape[2]):
            for p in range(low.shape[0]):
                a, b = half * x[p, 2 * i, 2 * j], half * x[p, 2 * i, 2 * j + 1]
                c, d = half * x[p, 2 * i + 1, 2 * j], half * x[p, 2 * i + 1, 2 * j + 1]
                low[p, i, j] = (a + c) + (b + d)
                details[p, 0, i, j] = (a - c) + (b - d)
                details[p, 1, i, j] = (a + c) - (b + d)
                details[p, 2, i, j] = (a - c) - (b - d)


def _synthesise_few(low, details, x):
    half = x.dtype.type(0.5)
    for i in range(low.shape[1]):
        for j in range(low.shape[2]):
            for p in range(low.shape[0]):
                a, b = half * low[p, i, j], half * details[p, 0, i, j]
                c, d = half * details[p, 1, i, j], half * details[p, 2, i, j]
                x[p, 2 * i, 2 * j], x[p, 2 * i, 2 * j + 1] = (a + b) + (c + d), (a + b) - (c + d)
                x[p, 2 * i + 1, 2 * j], x[p, 2 * i + 1, 2 * j + 1] = (a - b) + (c - d), (a - b) - (c - d)


def _analyse(x: Tensor, low: Tensor, details: Tensor) -> None:
    (height, width), (h, w) = x.shape[-2:], low.shape[-2:]
    sums, differences = (x.new_empty(len(x), h, 2 * w) for _ in range(2))
    both, bottom = slice(height // 2), x[:, 1::2]
    torch.lerp(x[:, :height - 1:2], bottom, 0.5, out=sums[:, both, :width])  # halved at once: float16 must not overflow
    torch.sub(sums[:, both, :width], bottom, out=differences[:, both, :width])
    for rows in (sums, differences):
        if height % 2:
            torch.mul(x[:, -1], 0.5, out=rows[:, -1, :width])
        if width % 2:
            rows[..., width:] = 0
    lh, hl, hh = details.unbind(1)
    for rows, plus, minus in (sums, low, hl), (differences, lh, hh):
        left, right = rows[..., ::2], rows[..., 1::2]
        torch.add(left, right, out=plus)
        torch.sub(left, right, out=minus)


def _synthesise(low: Tensor, details: Tensor, x: Tensor) -> None:
    (height, width), (h, w) = x.shape[-2:], low.shape[-2:]
    sums, differences = (x.new_empty(len(x), h, 2 * w) for _ in range(2))
    lh, hl, hh = details.unbind(1)
    for rows, plus, minus in (sums, low, hl), (differences, lh, hh):
        torch.add(plus, minus, out=rows[..., ::2])
        torch.sub(plus, minus, out=rows[..., 1::2])
    top, differences = x[:, ::2], differences[..., :width]
    torch.lerp(sums[..., :width], differences, 0.5, out=top)
    torch.sub(top[:, :height // 2], differences[:, :height // 2], out=x[:, 1::2])
