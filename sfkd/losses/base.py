"""What every loss of ours is."""
from __future__ import annotations

from torch import nn


class DistillationLoss(nn.Module):
    """``loss(student, teacher)`` gives a scalar. A loss of another library (``type='mmdet.MSELoss'``) need not derive
    from this.

    Attributes:
        mean_over_grid: whether it is a mean over all cells of a map, so that a batch of which only a part teaches is to
            be scaled up.
    """

    mean_over_grid = True


def is_mean_over_grid(loss: nn.Module) -> bool:
    """:attr:`DistillationLoss.mean_over_grid`; True for what is none of ours: plain losses are means."""
    return loss.mean_over_grid if isinstance(loss, DistillationLoss) else True
