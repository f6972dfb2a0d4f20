"""Operators that put a map together from another one: CARAFE and PSAMask."""
from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from .numerics import precise


# CARAFE: each output cell is a weighted sum of the k x k cells around its source cell. features (N, C, H, W), masks
# (N, groups * k * k, H * s, W * s): the weights. A loop over the k * k cells, as unfolding would need k * k feature
# maps.
def _carafe_windows(features: Tensor, masks: Tensor, kernel: int, groups: int, scale: int):
    """For each cell of the window: where it is in the padded features, and its weights (N, groups, 1, H, s, W, s)."""
    height, width = features.shape[-2:]
    weights = masks.unflatten(1, (groups, kernel * kernel)).unflatten(-1, (width, scale)).unflatten(-3, (height, scale))
    for cell, (row, column) in enumerate(itertools.product(range(kernel), repeat=2)):
        yield cell, (..., slice(row, row + height), slice(column, column + width)), weights[:, :, cell, None]


def carafe_naive_forward(features, masks, output, kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Fill ``output`` (N, C, H * s, W * s)."""
    x, weights = precise(features, masks)
    padded = F.pad(x, ((kernel_size - 1) // 2, ) * 4).unflatten(1, (group_size, -1))
    total = 0
    for _, place, weight in _carafe_windows(x, weights, kernel_size, group_size, scale_factor):
        total = total + padded[place][..., :, None, :, None] * weight
    output.copy_(total.reshape(output.shape))


def carafe_naive_backward(grad_output, features, masks, grad_input, grad_masks, kernel_size: int, group_size: int,
                          scale_factor: int) -> None:
    """Fill ``grad_input`` and ``grad_masks``."""
    grad, x, weights = precise(grad_output, features, masks)
    height, width = x.shape[-2:]
    border = (kernel_size - 1) // 2
    grad = grad.unflatten(1, (group_size, -1))
    grad = grad.unflatten(-1, (width, scale_factor)).unflatten(-3, (height, scale_factor))
    padded = F.pad(x, (border, ) * 4).unflatten(1, (group_size, -1))
    to_padded, to_masks = torch.zeros_like(padded), []
    for _, place, weight in _carafe_windows(x, weights, kernel_size, group_size, scale_factor):
        to_padded[place] += (grad * weight).sum((-3, -1))
        to_masks.append((grad * padded[place][..., :, None, :, None]).sum(2))
    grad_input.copy_(to_padded[..., border:border + height, border:border + width].flatten(1, 2))
    grad_masks.copy_(torch.stack(to_masks, dim=2).reshape(grad_masks.shape))


def carafe_forward(features, masks, rfeatures, routput, rmasks, output, kernel_size: int, group_size: int,
                   scale_factor: int) -> None:
    """Fill ``output``, and ``rfeatures`` with the features: it is what mmcv keeps for :func:`carafe_backward`."""
    rfeatures.copy_(features)
    carafe_naive_forward(features, masks, output, kernel_size, group_size, scale_factor)


def carafe_backward(grad_output, rfeatures, masks, rgrad_output, rgrad_input_hs, rgrad_input, rgrad_masks, grad_input,
                    grad_masks, kernel_size: int, group_size: int, scale_factor: int) -> None:
    """Fill ``grad_input`` and ``grad_masks``."""
    carafe_naive_backward(grad_output, rfeatures, masks, grad_input, grad_masks, kernel_size, group_size, scale_factor)


# PSAMask: moves attention that is relative to a cell, input (N, h_mask * w_mask, H, W), to absolute cells (N, H * W, H,
# W). psa_type 0, collect: output[n, other, cell]; 1, distribute: output[n, cell, other].
def psamask_forward(input, output, psa_type, num_, h_feature, w_feature, h_mask, w_mask, half_h_mask,
                    half_w_mask) -> None:
    """Fill ``output``; 0 for cells outside of the mask."""
    cells = h_feature * w_feature
    where = _psa_cells(input.device, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask)
    where = where.expand(num_, -1, -1)
    moved = input.new_zeros(num_, cells + 1, cells).scatter_(1, where, input.flatten(2))[:, :-1]
    output.copy_((moved.transpose(1, 2) if psa_type else moved).reshape(output.shape))


def psamask_backward(grad_output, grad_input, psa_type, num_, h_feature, w_feature, h_mask, w_mask, half_h_mask,
                     half_w_mask) -> None:
    """Fill ``grad_input``."""
    where = _psa_cells(grad_output.device, h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask)
    where = where.expand(num_, -1, -1)
    grad = grad_output.flatten(2)
    grad = F.pad(grad.transpose(1, 2) if psa_type else grad, (0, 0, 0, 1))
    grad_input.copy_(grad.gather(1, where).reshape(grad_input.shape))


def _psa_cells(device, height, width, h_mask, w_mask, half_h, half_w) -> Tensor:
    """(h_mask * w_mask, H * W): the cell that a mask's cell is on, H * W where it is outside."""
    rows, columns = (torch.arange(mask, device=device)[:, None] - half + torch.arange(size, device=device)
                     for mask, half, size in ((h_mask, half_h, height), (w_mask, half_w, width)))
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]  # (h_mask, 1, H, 1), (1, w_mask, 1, W)
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    return (rows * width + columns).masked_fill(outside, height * width).reshape(h_mask * w_mask, height * width)
