"""Zero mean and unit variance of each channel, over the batch joined over all processes, and over the cells that a mask
leaves.

Parameter-free, as PKD does (Cao et al., arXiv 2207.02039, section 3.2). For processes that train data-parallel it costs
two small messages a call, one forward and one backward, however many maps it is given: their latency is what it costs
on many GPUs.
"""
from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .loops import FEW, MOST_THREADS, compiled, runs_loops


def standardise(*maps: Tensor, mask: Tensor | None = None, eps: float = 1e-5) -> tuple[Tensor, ...]:
    """Each map with zero mean and unit variance of each channel over batch and grid, of the batch joined over all
    processes where gradients are on.

    Always float32 (float64 stays), also under autocast: sums over a map are rounded too far in half precision.

    Args:
        maps: (N, C, h, w) each, of one N, h and w; C may differ.
        mask: (N, 1, h, w) of zeros and ones, the cells that count; the others become 0.
        eps: added to the variance.

    Returns:
        tuple: a map of the same shape for each. With a mask or several processes they have no second derivative.
    """
    with torch.autocast(maps[0].device.type, enabled=False):
        maps = tuple(at_least_float32(x) for x in maps)
        joined = processes() > 1
        if mask is None and not joined:
            return tuple(_of_one_process(x, eps) for x in maps)
        mask = None if mask is None else mask.to(maps[0])
        with torch.no_grad():
            count, means, variances = moments(maps, mask)
            if joined:
                count, means, variances = _join(count, means, variances)
            # a cell by itself is its mean: 0, not what rounding leaves of it times 1 / sqrt(eps)
            variances = [variance.masked_fill(count <= 1, torch.inf) for variance in variances]
        return tuple(_Standardise.apply(x, mask, count, mean, variance, joined, eps)
                     for x, mean, variance in zip(maps, means, variances))


def processes() -> int:
    """How many processes train together, data-parallel. Without gradients nobody trains, and this one is by itself: it
    may be the only one that looks at a validation split.
    """
    together = torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if together else 1


def at_least_float32(features: Tensor) -> Tensor:
    """Half precision becomes float32, float64 stays."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def moments(maps: tuple[Tensor, ...], mask: Tensor | None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """How many cells of this process count, (1,), and of each map the channels' means and variances, (C,)."""
    count = maps[0].new_full((1,), maps[0][:, 0].numel()) if mask is None else mask.sum().view(1)
    means, variances = [], []
    for x in maps:
        total = x.sum((0, 2, 3)) if mask is None else (x.flatten(2) @ mask.flatten(2).mT).sum((0, 2))
        means.append(total / count.clamp_min(1))
        centred = x - _cells(means[-1])
        if mask is not None:
            centred *= mask
        variances.append(centred.square_().sum((0, 2, 3)) / count.clamp_min(1))
    return count, means, variances


def _join(count: Tensor, means: list[Tensor],
          variances: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The same of all processes' cells: spread within each process plus spread between them, no difference of large
    squares.
    """
    own = torch.cat([count, *means, *variances])
    everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, own)
    sizes = [len(mean) for mean in means]
    counts, within, spreads = torch.stack(everyone).split([1, sum(sizes), sum(sizes)], dim=1)
    total = counts.sum(0)
    shares = counts / total.clamp_min(1)
    mean = (shares * within).sum(0)
    variance = (shares * (spreads + (within - mean).square())).sum(0)
    return total, mean.split(sizes), variance.split(sizes)


def _of_one_process(x: Tensor, eps: float) -> Tensor:
    """``F.batch_norm(x, None, None, training=True, eps=eps)``, which adds up one number after the other on a CPU."""
    if (not torch.compiler.is_compiling()  # first: a compiler breaks its graph at the number of threads
            and runs_loops(x) and x.is_contiguous() and x[0, 0].numel() > FEW
            and torch.get_num_threads() <= MOST_THREADS):
        return _Loops.apply(x, eps)
    return F.batch_norm(x, None, None, training=True, eps=eps)


class _Loops(torch.autograd.Function):
    """The same numbers, but where another order of sums in float64 rounds to another float32, or the CPU cannot
    multiply and add in one; PyTorch's gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, eps: float) -> Tensor:
        cells = x.detach().flatten(2)
        mean, squares = x.new_empty(2, x.shape[1])
        compiled(_sums, 'reassoc')(cells.numpy(), mean.numpy(), squares.numpy())
        scale = (squares / cells[:, 0].numel()).double().add_(eps).rsqrt_().to(x.dtype)
        y = torch.empty_like(cells)
        compiled(_scaled, 'contract')(cells.numpy(), mean.numpy(), scale.numpy(), y.numpy())
        ctx.eps = eps
        ctx.save_for_backward(x, mean, scale)
        return y.view_as(x)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, None]:
        x, mean, scale = ctx.saved_tensors
        return torch.ops.aten.native_batch_norm_backward(
            g, x, None, None, None, mean, scale, True, ctx.eps, [True, False, False])[0], None


def _sums(x, mean, squares):
    """Array x (N, C, K) -> of each channel the mean, and the sum of squares around it; (C,). Sums are in float64."""
    for c in range(x.shape[1]):
        total = 0.0
        for n in range(x.shape[0]):
            row, own = x[n, c], 0.0  # a sum of its own makes vector code of short rows
            for k in range(x.shape[2]):
                own += float(row[k])
            total += own
        mean[c] = total / (x.shape[0] * x.shape[2])
        total, middle = 0.0, mean[c]
        for n in range(x.shape[0]):
            row, own = x[n, c], 0.0
            for k in range(x.shape[2]):
                difference = row[k] - middle
                own += float(difference * difference)
            total += own
        squares[c] = total


def _scaled(x, mean, scale, y):
    """Arrays x (N, C, K), mean and scale (C,) -> y = (x - mean) scale."""
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            times = scale[c]
            shift = -mean[c] * times
            for k in range(x.shape[2]):
                y[n, c, k] = x[n, c, k] * times + shift


class _Standardise(torch.autograd.Function):
    """y = (x - mean) / std, with the gradient that goes through the cells' part in mean and variance.

    With g the gradient of y: dx = (g - mean(g) - y mean(g y)) / std, means over the cells of all processes.
    """

    @staticmethod
    def forward(ctx, x: Tensor, mask: Tensor | None, count: Tensor, mean: Tensor, variance: Tensor, joined: bool,
                eps: float) -> Tensor:
        y = F.batch_norm(x, mean, variance, training=False, eps=eps)
        if mask is not None:
            y *= mask
        ctx.joined = joined
        ctx.save_for_backward(y, mask, count, torch.rsqrt(variance + eps))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        y, mask, count, scale = ctx.saved_tensors
        if mask is not None:
            g = g * mask
        sums = torch.cat([g.sum((0, 2, 3)), (g * y).sum((0, 2, 3))])
        if ctx.joined:
            dist.all_reduce(sums)
        mean_g, mean_gy = (sums / count.clamp_min(1)).chunk(2)
        dx = torch.addcmul(g, y, _cells(mean_gy), value=-1).sub_(_cells(mean_g)).mul_(_cells(scale))
        return dx if mask is None else dx.mul_(mask), *[None] * 6


def _cells(statistic: Tensor) -> Tensor:
    """(C,) as (1, C, 1, 1)."""
    return statistic.view(1, -1, 1, 1)
