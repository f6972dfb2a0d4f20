"""What every loss of ours is."""
from __future__ import annotations

import math

from torch import nn


class DistillationLoss(nn.Module):
    """``loss(student, teacher)`` gives a scalar. A loss of another library (``type='mmdet.MSELoss'``) need not derive
    from this.

    Attributes:
        mean_over_grid: whether it is a mean over all cells of a map, so that a batch of which only a part teaches is to
            be scaled up.
        takes_refined: whether it compares what DS2S refined, where that runs.
        takes_mask: whether it is called with ``mask=`` too where a part of the batch teaches: (N, 1, H, W), on the grid
            of the maps or a finer one, 1 there. For what zeros outside would change: a softmax over positions, a mean
            over a grid before it is compared.
    """

    mean_over_grid = True
    takes_refined = False
    takes_mask = False


def positive(name: str, value: float) -> float:
    """A loss's option as it is.

    Raises:
        ValueError: if it is no number above 0.
    """
    if not _is_number(value) or not value > 0:
        raise ValueError(f'{name} must be a number above 0, not {value!r}')
    return value


def at_least(lowest: float, name: str, value: float) -> float:
    """A loss's option as it is.

    Raises:
        ValueError: if it is no number from ``lowest``.
    """
    if not _is_number(value) or not value >= lowest:
        raise ValueError(f'{name} must be a number from {lowest}, not {value!r}')
    return value


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_mean_over_grid(loss: nn.Module) -> bool:
    """:attr:`DistillationLoss.mean_over_grid`; True for what is none of ours: plain losses are means."""
    return loss.mean_over_grid if isinstance(loss, DistillationLoss) else True


def takes_mask(loss: nn.Module) -> bool:
    """:attr:`DistillationLoss.takes_mask`; False for what is none of ours."""
    return isinstance(loss, DistillationLoss) and loss.takes_mask


def takes_refined(loss: nn.Module) -> bool:
    """:attr:`DistillationLoss.takes_refined`; True for what is none of ours, of which it cannot be known."""
    return loss.takes_refined if isinstance(loss, DistillationLoss) else True
