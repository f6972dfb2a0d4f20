"""Pooling of regions of interest (RoIs): (R, 5), of (index in the batch, x1, y1, x2, y2) in pixels of the picture."""
from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
import torchvision.ops as tv
from torch import Tensor

from .numerics import precise, pull_back


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Fill ``output`` (R, C, aligned_height, aligned_width); pool_mode 1: mean of the samples in a bin, 0: their
    maximum.

    The maximum also fills ``argmax_y`` and ``argmax_x``, with what :func:`roi_align_backward` needs: the row and the
    column of the best sample in the grid of all samples of the RoI (mmcv's have its position; nobody else reads them).
    """
    x, boxes = precise(input, rois)
    size = (aligned_height, aligned_width)
    if pool_mode == 1:
        output.copy_(tv.roi_align(x, boxes, size, spatial_scale, sampling_ratio, aligned))
        return
    for grid, which in _sampling_grids(boxes, size, spatial_scale, sampling_ratio, aligned):
        samples = tv.roi_align(x, boxes[which], (size[0] * grid[0], size[1] * grid[1]), spatial_scale, 1, aligned)
        best, where = F.max_pool2d(samples, grid, return_indices=True)
        output[which] = best.to(output)
        argmax_y[which] = where.div(samples.shape[-1], rounding_mode='floor').to(argmax_y)
        argmax_x[which] = where.remainder(samples.shape[-1]).to(argmax_x)


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Fill ``grad_input`` (N, C, H, W)."""
    grad, boxes = precise(grad_output, rois)
    like = torch.zeros_like(grad_input, dtype=grad.dtype)  # linear in the input: its gradient does not ask for values
    size = (aligned_height, aligned_width)
    if pool_mode == 1:
        found, = pull_back(lambda x: tv.roi_align(x, boxes, size, spatial_scale, sampling_ratio, aligned), [like], grad)
        grad_input.copy_(found)
        return
    for grid, which in _sampling_grids(boxes, size, spatial_scale, sampling_ratio, aligned):
        fine = (size[0] * grid[0], size[1] * grid[1])
        where = argmax_y[which].long() * fine[1] + argmax_x[which].long()
        samples = grad.new_zeros(*where.shape[:2], fine[0] * fine[1])
        samples.scatter_(2, where.flatten(2), grad[which].flatten(2))
        found, = pull_back(lambda x: tv.roi_align(x, boxes[which], fine, spatial_scale, 1, aligned), [like],
                            samples.unflatten(2, fine))
        grad_input += found.to(grad_input)


def _sampling_grids(rois: Tensor, size: tuple[int, int], scale: float, ratio: int,
                    aligned: bool) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """(rows, columns) of samples in a bin, and the indices of the RoIs that have so many."""
    if ratio > 0:
        counts = torch.full((len(rois), 2), ratio, device=rois.device)
    else:
        sides = torch.stack((rois[:, 4] * scale - rois[:, 2] * scale, rois[:, 3] * scale - rois[:, 1] * scale), dim=1)
        counts = torch.ceil((sides if aligned else sides.clamp(min=1)) / sides.new_tensor(size)).long()
    for grid in counts.unique(dim=0).tolist() if len(rois) else []:
        if min(grid) > 0:
            yield tuple(grid), (counts == counts.new_tensor(grid)).all(1).nonzero()[:, 0]


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int, pooled_width: int,
                     spatial_scale: float) -> None:
    """Fill ``output`` (R, C, pooled_height, pooled_width) and ``argmax``: the cell that each value is from, -1 for an
    empty bin.

    Not torchvision's: mmcv does not round the RoIs to cells first. A loop over bins, as no stock config has this
    operator.
    """
    boxes, = precise(rois)
    height, width = input.shape[-2:]
    argmax.fill_(-1)
    edges = [_bin_edges(boxes[:, low], boxes[:, low + 2], spatial_scale, bins, cells)
             for low, bins, cells in ((2, pooled_height, height), (1, pooled_width, width))]
    for roi, (picture, rows, columns) in enumerate(zip(rois[:, 0].long().tolist(), *edges)):
        for (row, (top, bottom)), (column, (left, right)) in itertools.product(enumerate(rows), enumerate(columns)):
            if top < bottom and left < right:
                best, where = input[picture, :, top:bottom, left:right].flatten(1).max(1)
                output[roi, :, row, column] = best
                row_of, column_of = where.div(right - left, rounding_mode='floor'), where.remainder(right - left)
                argmax[roi, :, row, column] = ((top + row_of) * width + left + column_of).to(argmax)


def _bin_edges(low: Tensor, high: Tensor, scale: float, bins: int, cells: int) -> list:
    """For each RoI the [first, last + 1) cells of its bins along one side; the end of a box belongs to it. No length:
    no cells.
    """
    start, length = low * scale, (high + 1) * scale - low * scale
    number = torch.arange(bins, device=low.device)
    step = (length / bins)[:, None]
    first, last = torch.floor(number * step + start[:, None]), torch.ceil((number + 1) * step + start[:, None])
    return torch.stack((first, torch.where(step > 0, last, first)), dim=2).clamp(0, cells).long().tolist()


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Fill ``grad_input`` (N, C, H, W)."""
    channels, cells = grad_input.shape[1], grad_input.shape[2] * grad_input.shape[3]
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    used = argmax >= 0
    where = plane[..., None, None] * cells + argmax
    grad_input.view(-1).index_add_(0, where[used], grad_output[used].to(grad_input))
