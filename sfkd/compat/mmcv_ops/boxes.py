"""Non-maximum suppression. mmcv compares overlaps with a threshold of float32: 0.3 is a little more there."""
from __future__ import annotations

import torch
import torchvision.ops as tv
from torch import Tensor

from .numerics import precise


def _float32(number: float) -> float:
    return torch.tensor(number, dtype=torch.float32).item()


def _overlaps(box: Tensor, boxes: Tensor, offset: int) -> Tensor:
    """IoU of one box (4,) with boxes (N, 4); ``offset`` is added to every side. Two boxes without area: nan."""
    sides = (torch.minimum(box[2:], boxes[:, 2:]) - torch.maximum(box[:2], boxes[:, :2]) + offset).clamp(min=0)
    shared = sides.prod(1)
    return shared / ((box[2:] - box[:2] + offset).prod() + (boxes[:, 2:] - boxes[:, :2] + offset).prod(1) - shared)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (K,) of the boxes (N, 4) that are kept, best first; of equal scores the earlier box."""
    boxes, scores = precise(boxes, scores)
    if offset:
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])  # torchvision's sides have no offset
    return tv.nms(boxes, scores, _float32(iou_threshold))


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float, min_score: float,
            method: int, offset: int) -> Tensor:
    """Indices (K,) in the order of choice; fills ``dets[:K]`` with boxes and decayed scores. Method: 0 hard, 1 linear,
    2 Gaussian.
    """
    work, scores = precise(boxes, scores.clone())
    iou_threshold, sigma, min_score = map(_float32, (iou_threshold, sigma, min_score))
    order = torch.arange(len(boxes), device=boxes.device)
    chosen = 0
    while chosen < len(order):
        # Which of equal scores comes first depends on where mmcv has left the boxes: it exchanges the best with the
        # first candidate, and fills the place of a discarded one with the last.
        best = chosen + int(scores[order[chosen:]].argmax())
        order[[chosen, best]] = order[[best, chosen]]
        rest = order[chosen + 1:]
        overlap = _overlaps(work[order[chosen]], work[rest], offset)
        if method == 2:
            decay = torch.exp(-overlap.square() / sigma)
        else:
            decay = torch.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0.0, 1.0)
        scores[rest] *= decay
        chosen += 1
        order = torch.cat((order[:chosen], _close_gaps(rest, ~(scores[rest] < min_score))))
    dets[:len(order)] = torch.cat((work[order], scores[order, None]), dim=1).to(dets)
    return order


def _close_gaps(items: Tensor, keep: Tensor) -> Tensor:
    """The items to keep: each gap is filled with the last one that is left."""
    count = int(keep.sum())
    items = items.clone()
    gaps = (~keep[:count]).nonzero()[:, 0]
    items[gaps] = items[count:][keep[count:]].flip(0)
    return items[:count]


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of the boxes and scores (N, 5): each box that is kept, then those that it suppresses, in the order of
    scores.
    """
    dets, = precise(dets)
    order = dets[:, 4].argsort(descending=True, stable=True)
    groups = []
    while len(order):
        first, rest = order[0], order[1:]
        taken = _overlaps(dets[first, :4], dets[rest, :4], 0) >= _float32(iou_threshold)
        groups.append([int(first), *rest[taken].tolist()])
        order = rest[~taken]
    return groups
