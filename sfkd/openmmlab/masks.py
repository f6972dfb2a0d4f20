"""What the data samples of a batch say: which pixels are padding, which have no label (neither must teach), and which
rows of a cache are theirs.
"""
from __future__ import annotations

import torch
from mmengine.dist import get_world_size
from torch import Tensor, nn

from ..datasets.checking import IGNORED


def picture_mask(inputs: Tensor, data_samples: list | None) -> Tensor | None:
    """The pictures' own pixels, where the data preprocessor has padded them and says so, as mmdet's and mmseg's do.

    mmpretrain's record no padded shape: in classification every pixel is the picture's, and ``img_shape`` may be that
    of the loaded file.

    Args:
        inputs: (N, 3, H, W), padded at the right and the bottom.
        data_samples: one a picture; ``img_shape`` counts beside ``pad_shape`` or ``batch_input_shape``.

    Returns:
        Tensor: (N, 1, H, W) of zeros and ones; None where nothing is padded. Where several processes train together,
        batches that state what was padded always have a mask, since all processes must ask for one or none.
    """
    def shape_of(sample) -> tuple[int, int]:
        return tuple(getattr(sample, 'img_shape', None) or inputs.shape[2:])[:2]
    padded = [sample for sample in data_samples or () if 'pad_shape' in sample or 'batch_input_shape' in sample]
    shapes = [shape_of(sample) for sample in data_samples] if padded else []
    whole = all(h >= inputs.shape[2] and w >= inputs.shape[3] for h, w in shapes)
    if whole and not (shapes and get_world_size() > 1):
        return None
    mask = inputs.new_zeros(len(inputs), 1, *inputs.shape[2:])
    for i, (h, w) in enumerate(shapes):
        mask[i, :, :h, :w] = 1
    return mask


def ignored_label(network: nn.Module) -> int:
    """The label of a map's pixels that count nowhere: what a segmentor's decode head says, or mmseg's 255."""
    head = getattr(network, 'decode_head', None)
    found = getattr(head[-1] if isinstance(head, nn.ModuleList) else head, 'ignore_index', IGNORED)
    return found if isinstance(found, int) else IGNORED


def taught_mask(mask: Tensor | None, data_samples: list | None, ignored: int = IGNORED) -> Tensor | None:
    """The pixels that may teach: in a segmentation batch those that have a label, in any other the pictures' own.

    Args:
        mask: what :func:`picture_mask` gave.
        data_samples: one a picture; mmseg's hold ``gt_sem_seg.data``, (1, H, W) class indices.
        ignored: the label that is none, see :func:`ignored_label`.

    Returns:
        Tensor: (N, 1, H, W) of zeros and ones, for segmentation always, since asking a GPU whether a label is missing
        would stall it; else ``mask``.
    """
    labels = [getattr(getattr(sample, 'gt_sem_seg', None), 'data', None) for sample in data_samples or ()]
    if not labels or any(label is None for label in labels):
        return mask
    labelled = (torch.stack(labels) != ignored).float()
    return labelled if mask is None else labelled * mask


def rows_of(data_samples: list | None) -> list[int] | None:
    """The rows of the teacher cache, as :class:`sfkd.datasets.ReplayedDataset` numbers them; None where a sample has
    none.
    """
    rows = [getattr(sample, 'teacher_row', None) for sample in data_samples or ()]
    return rows if rows and None not in rows else None
