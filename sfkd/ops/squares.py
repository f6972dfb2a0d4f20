"""The mean square of the difference of two maps, of which the gradient keeps the difference alone. Ours.

PyTorch's ``mse_loss`` keeps both maps; here they are free as soon as they are compared. On a CPU float32 and float64
run as loops that numba compiles at the first call, one pass each way.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .loops import MOST_THREADS, compiled, runs_loops


def mean_square(x: Tensor, y: Tensor) -> Tensor:
    """``F.mse_loss(x, y)``, with the same gradient (in loops, so with few threads on a CPU, to the last bit).

    Args:
        x, y: of one shape and dtype; what is not is left to PyTorch, with its warnings and errors.

    Returns:
        Tensor: scalar. It has no second derivative.
    """
    if x.shape != y.shape or x.dtype != y.dtype or torch.compiler.is_compiling():  # a compiler fuses it
        return F.mse_loss(x, y)
    return _MeanSquare.apply(x, y)


class _MeanSquare(torch.autograd.Function):

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
        if _in_loops(x, y):
            difference = torch.empty_like(x)
            total = compiled(_difference, 'reassoc')(*(z.detach().flatten(1).numpy() for z in (x, y, difference)))
            mean = x.new_tensor(total / x.numel())
        else:
            difference = x - y
            mean = difference.square().mean()
        ctx.save_for_backward(difference)
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx, given: Tensor) -> tuple[Tensor | None, Tensor | None]:
        difference, = ctx.saved_tensors
        factor = 2 / difference.numel()
        if _in_loops(difference):
            of_x = torch.empty_like(difference)
            compiled(_scaled)(*(z.view(-1).numpy() for z in (difference, given.new_tensor([factor]), given, of_x)))
        else:
            of_x = difference * (factor * given)
        needs_x, needs_y = ctx.needs_input_grad
        return of_x if needs_x else None, -of_x if needs_y else None


def _in_loops(*maps: Tensor) -> bool:
    return (torch.get_num_threads() <= MOST_THREADS and maps[0].dim() > 1
            and all(runs_loops(x) and x.is_contiguous() for x in maps))


def _difference(x, y, difference):
    """Arrays (N, K) -> writes x - y; returns the sum of its squares, in float64."""
    total = 0.0
    for n in range(x.shape[0]):
        own = 0.0  # a sum of its own makes vector code of the row
        for k in range(x.shape[1]):
            d = x[n, k] - y[n, k]
            difference[n, k] = d
            own += float(d * d)
        total += own
    return total


def _scaled(difference, factor, given, gradient):
    """Arrays (K,), (1,), (1,) -> writes their product (K,), in PyTorch's order."""
    for k in range(len(difference)):
        gradient[k] = factor[0] * difference[k] * given[0]
