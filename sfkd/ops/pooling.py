"""Area pooling of small maps whose cells do not divide evenly, as one matrix product."""
from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Up to this many cells one product is faster than PyTorch's loop over windows
# (tools/benchmarks/bench_ops.py --ops pooling).
_SMALL_GRID = 256


def area_pool(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """``F.adaptive_avg_pool2d(x, grid)``.

    Where windows overlap, as from 7x7 to 4x4, PyTorch's backward pass adds up cell by cell, on a GPU in no fixed order.
    On small maps the product with a matrix of the windows' weights gives the same. Ours.

    Args:
        x: (N, C, h, w).
        grid: (h', w'), no larger than (h, w).

    Returns:
        Tensor: (N, C, h', w'); x itself where that is its grid.
    """
    height, width = x.shape[2:]
    if (height, width) == tuple(grid):
        return x
    overlap = height % grid[0] or width % grid[1]
    if not overlap or height * width > _SMALL_GRID or x.dtype not in (torch.float32, torch.float64):
        return F.adaptive_avg_pool2d(x, grid)
    with torch.autocast(x.device.type, enabled=False):
        return (x.flatten(2) @ _windows(height, width, *grid, x.device, x.dtype)).unflatten(2, tuple(grid))


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # saved for backward later, which a tensor born in inference mode cannot be
def _windows(height: int, width: int, rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(height width, rows columns): how much of each cell goes into each window, both in the order of memory."""
    return torch.kron(_side(height, rows), _side(width, columns)).to(device, dtype)


def _side(cells: int, windows: int) -> Tensor:
    """(cells, windows), float64; window i goes from floor(i cells / windows) to ceil((i + 1) cells / windows)."""
    i, cell = torch.arange(windows), torch.arange(cells)[:, None]
    inside = (cell >= i * cells // windows) & (cell < -(-(i + 1) * cells // windows))
    return inside.double() / inside.double().sum(0)
