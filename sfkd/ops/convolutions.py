"""The convolutions of DS2S, over channels and over neighbours, made for bands of a few cells too.

PyTorch's are made for pictures. Where the low band of a small map lies, on a grid of 1x1 or 2x2, one product a picture
and the gradient of a convolution over neighbours take several times as long as they must. The code is ours; `python
tools/benchmarks/bench_ops.py --ops depthwise` times the latter.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .loops import FEW, compiled, runs_loops


def pointwise(x: Tensor, weight: Tensor, to: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """``to + scale * weight @ x``, without ``to`` just ``weight @ x``.

    Args:
        x: (N, C, K), of K cells.
        weight: (D, C).
        to: (N, D, K).
        scale: of the product that is added.

    Returns:
        Tensor: (N, D, K).
    """
    if x.shape[2] <= FEW:  # one product for all pictures, whose rows are the cells
        product = F.linear(x.mT, weight).mT
        return product if to is None else to.add(product, alpha=scale)
    weight = weight.expand(len(x), -1, -1)
    return torch.bmm(weight, x) if to is None else torch.baddbmm(to, weight, x, alpha=scale)


def depthwise3x3(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1, groups=C)``.

    Args:
        x: (N, C, h, w).
        weight: (C, 1, 3, 3).
        bias: (C, ).

    Returns:
        Tensor: (N, C, h, w).
    """
    if x.shape[2] * x.shape[3] <= FEW and runs_loops(x) and not torch.compiler.is_compiling():
        return _FewCells.apply(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])


class _FewCells(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        of_weight = torch.zeros(weight[:, 0].shape, dtype=torch.float64)
        arrays = (a.detach().contiguous().numpy() for a in (x, given, weight[:, 0], of_x, of_weight))
        compiled(_backward)(*arrays)
        return of_x, of_weight.unsqueeze(1).to(weight), given.sum((0, 2, 3))


def _backward(x, given, weight, of_x, of_weight):
    """Arrays x, given (N, C, h, w), weight (C, 3, 3) -> writes of_x (N, C, h, w), adds to of_weight (C, 3, 3)."""
    batch, channels, height, width = x.shape
    for n in range(batch):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    of_x[n, c, i, j] = 0
            for a in range(3):
                for b in range(3):
                    k, total = weight[c, a, b], 0.0
                    for i in range(max(0, 1 - a), min(height, height + 1 - a)):
                        for j in range(max(0, 1 - b), min(width, width + 1 - b)):
                            g = given[n, c, i, j]
                            of_x[n, c, i + a - 1, j + b - 1] += g * k
                            total += x[n, c, i + a - 1, j + b - 1] * g
                    of_weight[c, a, b] += total
