"""Masks on the grids of maps: where a batch has something to teach."""
from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from ..ops import at_least_float32, processes


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask (N, 1, H, W) on another grid: a cell counts if anything below it does, as in mmdet's valid flags."""
    return mask if mask.shape[2:] == torch.Size(grid) else F.adaptive_max_pool2d(mask, grid)


def shown(features: Tensor, mask: Tensor | None) -> Tensor:
    """(N, ): which of a batch's pictures count: those of which a mask (N, 1, H, W) leaves anything; all without one."""
    if mask is None:
        return torch.ones(len(features), dtype=torch.bool, device=features.device)
    return mask.flatten(1).any(1)


def count_shown(features: Tensor, mask: Tensor | None) -> Tensor:
    """A scalar, at least 1: how many pictures count."""
    return shown(features, mask).sum().clamp_min(1)


def mean_over_grid(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Maps (N, C, h, w), each averaged over what a mask leaves of its grid: (N, C), float32 at least.

    Args:
        features: maps.
        mask: (N, 1, H, W) on any grid, 1 where something counts; None where all does. Of a picture that it hides 0 is
            left.
    """
    features = at_least_float32(features)
    if mask is None:
        return features.mean((2, 3))
    mask = on_grid(mask, features.shape[2:]).to(features)
    return (features * mask).sum((2, 3)) / mask.sum((2, 3)).clamp_min(1)


class TaughtCells:
    """A mask on the grids of several pairs, and by how much a mean over a whole grid falls short of one over the cells
    that teach.

    With several processes that share is one of the joined batch, so that together they compute what one would: a
    message a step.

    Args:
        pixels: (N, 1, H, W), 1 or True where there is something to teach.
        grids: (h, w) of each pair.
    """

    def __init__(self, pixels: Tensor, grids: Iterable[tuple[int, int]]):
        self.pixels = pixels = pixels if pixels.is_floating_point() else pixels.float()
        self._masks = {grid: on_grid(pixels, grid) for grid in dict.fromkeys(grids)}
        with torch.no_grad():
            counts = torch.stack([mask.sum(dtype=torch.float32)
                                  for mask in self._masks.values()]) if self._masks else pixels.new_zeros(0)
        if (together := processes()) > 1 and self._masks:
            dist.all_reduce(counts)
            counts = counts / together
        self._counts = dict(zip(self._masks, counts.unbind()))

    def on(self, grid: tuple[int, int]) -> Tensor:
        """The mask (N, 1, h, w) on a coarser grid."""
        return self._masks[grid] if grid in self._masks else on_grid(self.pixels, grid)

    def scale(self, grid: tuple[int, int]) -> Tensor:
        """A scalar, at least 1: what a mean over one of the given grids is to be multiplied by."""
        return self._masks[grid].numel() / self._counts[grid].clamp_min(1)
