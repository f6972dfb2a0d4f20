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
    grid = tuple(x.shape[2:])
    if grid == (1, 1):
        return torch.addcmul(bias.view(-1, 1, 1), x, weight[:, 0, 1:2, 1:2])
    if grid == (2, 2) and runs_loops(x) and not torch.compiler.is_compiling():
        return _FourCells.apply(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1, groups=x.shape[1])


class _FourCells(torch.autograd.Function):
    """On a grid of 2x2: each cell is a weighted sum of all four."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        compiled(_forward)(*_arrays(x, weight[:, 0], bias, out))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        of_weight = torch.zeros(weight[:, 0].shape, dtype=torch.float64)
        compiled(_backward)(*_arrays(x, given, weight[:, 0], of_x, of_weight))
        return of_x, of_weight.unsqueeze(1).to(weight), given.sum((0, 2, 3))


def _arrays(*tensors: Tensor) -> list:
    return [x.detach().contiguous().numpy() for x in tensors]


def _forward(x, weight, bias, out):
    """Arrays x (N, C, 2, 2), weight (C, 3, 3), bias (C, ) -> writes out (N, C, 2, 2)."""
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            a, b, d, e = x[n, c, 0, 0], x[n, c, 0, 1], x[n, c, 1, 0], x[n, c, 1, 1]
            w, shift = weight[c], bias[c]
            out[n, c, 0, 0] = shift + (a * w[1, 1] + b * w[1, 2]) + (d * w[2, 1] + e * w[2, 2])
            out[n, c, 0, 1] = shift + (a * w[1, 0] + b * w[1, 1]) + (d * w[2, 0] + e * w[2, 1])
            out[n, c, 1, 0] = shift + (a * w[0, 1] + b * w[0, 2]) + (d * w[1, 1] + e * w[1, 2])
            out[n, c, 1, 1] = shift + (a * w[0, 0] + b * w[0, 1]) + (d * w[1, 0] + e * w[1, 1])


def _backward(x, given, weight, of_x, of_weight):
    """Its gradient: writes of_x (N, C, 2, 2), adds to of_weight (C, 3, 3)."""
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            a, b, d, e = x[n, c, 0, 0], x[n, c, 0, 1], x[n, c, 1, 0], x[n, c, 1, 1]
            p, q, r, s = given[n, c, 0, 0], given[n, c, 0, 1], given[n, c, 1, 0], given[n, c, 1, 1]
            w, of_w = weight[c], of_weight[c]
            of_x[n, c, 0, 0] = (p * w[1, 1] + q * w[1, 0]) + (r * w[0, 1] + s * w[0, 0])
            of_x[n, c, 0, 1] = (p * w[1, 2] + q * w[1, 1]) + (r * w[0, 2] + s * w[0, 1])
            of_x[n, c, 1, 0] = (p * w[2, 1] + q * w[2, 0]) + (r * w[1, 1] + s * w[1, 0])
            of_x[n, c, 1, 1] = (p * w[2, 2] + q * w[2, 1]) + (r * w[1, 2] + s * w[1, 1])
            of_w[0, 0] += s * a
            of_w[0, 1] += r * a + s * b
            of_w[0, 2] += r * b
            of_w[1, 0] += q * a + s * d
            of_w[1, 1] += (p * a + q * b) + (r * d + s * e)
            of_w[1, 2] += p * b + r * e
            of_w[2, 0] += q * d
            of_w[2, 1] += p * d + q * e
            of_w[2, 2] += p * e
