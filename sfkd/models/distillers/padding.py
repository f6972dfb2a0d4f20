"""Which pixels of a batch are picture and which are padding: what is padded must not teach."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def picture_mask(inputs: Tensor, data_samples: list | None) -> Tensor | None:
    """The pictures' own pixels, from the ``img_shape`` that the data pipelines of the three libraries record.

    Args:
        inputs: (N, 3, H, W), padded at the right and the bottom.
        data_samples: one a picture.

    Returns:
        Tensor: (N, 1, H, W) of zeros and ones; None where nothing is padded.
    """
    shapes = [tuple(getattr(sample, 'img_shape', None) or inputs.shape[2:])[:2] for sample in data_samples or ()]
    if all(h >= inputs.shape[2] and w >= inputs.shape[3] for h, w in shapes):
        return None
    mask = inputs.new_zeros(len(inputs), 1, *inputs.shape[2:])
    for i, (h, w) in enumerate(shapes):
        mask[i, :, :h, :w] = 1
    return mask


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask (N, 1, H, W) on a coarser grid: a cell counts if any of its pixels does, as in mmdet's valid flags."""
    return mask if mask.shape[2:] == torch.Size(grid) else F.adaptive_max_pool2d(mask, grid)
