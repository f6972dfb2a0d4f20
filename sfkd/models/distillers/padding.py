"""Which pixels of a batch are padding and which have no label: neither must teach."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = 255  # mmseg's label of what reduce_zero_label, crops beyond the border and annotators leave out


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


def taught_mask(mask: Tensor | None, data_samples: list | None) -> Tensor | None:
    """The pixels that may teach: in a segmentation batch those that have a label, in any other the pictures' own.

    Args:
        mask: what :func:`picture_mask` gave.
        data_samples: one a picture; mmseg's hold ``gt_sem_seg.data``, (1, H, W) class indices.

    Returns:
        Tensor: (N, 1, H, W) of zeros and ones, for segmentation always, since asking a GPU whether a label is missing would stall it;
        else ``mask``.
    """
    labels = [getattr(getattr(sample, 'gt_sem_seg', None), 'data', None) for sample in data_samples or ()]
    if not labels or any(label is None for label in labels):
        return mask
    labelled = (torch.stack(labels) != IGNORED).float()
    return labelled if mask is None else labelled * mask


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """A mask (N, 1, H, W) on a coarser grid: a cell counts if any of its pixels does, as in mmdet's valid flags."""
    return mask if mask.shape[2:] == torch.Size(grid) else F.adaptive_max_pool2d(mask, grid)
