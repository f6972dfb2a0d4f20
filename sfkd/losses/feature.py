"""Losses on feature maps that other methods are defined by."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..connectors import Decomposed
from ..features.padding import count_shown, on_grid, shown
from ..ops import at_least_float32, mean_square
from ..registry import MODELS
from .base import DistillationLoss, positive


@MODELS.register_module()
class FeatureMSE(DistillationLoss):
    """Mean square of student - teacher over batch, channels and grid, or its sum over channels and grid.

    After :class:`Align` this is the plain MSE of standardised maps, and half of it is PKD, the mean over channels of
    ``1 - r`` with Pearson's r (Cao et al., arXiv 2207.02039, section 3.2). After ``Align(standardised=False)`` it is
    FitNet's hint loss (Romero et al., arXiv 1412.6550, eq. 3), whose half sum over a picture is C h w / 2 times this
    mean. After :class:`MaskedGeneration` the sum is MGD's (Yang et al., arXiv 2205.01529).

    Args:
        reduction: 'mean', or 'batchmean', the sum over a picture, a mean over pictures.
    """

    def __init__(self, reduction: str = 'mean'):
        super().__init__()
        if reduction not in ('mean', 'batchmean'):
            raise ValueError(f"reduction '{reduction}' is neither 'mean' nor 'batchmean'")
        self.mean_over_grid = reduction == 'mean'

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, C, h, w).

        Returns:
            Tensor: scalar.
        """
        student, teacher = map(at_least_float32, (student, teacher))
        return (mean_square(student, teacher) if self.mean_over_grid
                else F.mse_loss(student, teacher, reduction='sum') / len(student))


@MODELS.register_module()
class CosineDistance(DistillationLoss):
    """Mean over pictures of 1 - cosine of the whole maps; half the square of the distance of L2-normalised maps
    (mmrazor's L2Loss). Pictures that a mask hides are none.
    """

    mean_over_grid = False
    takes_mask = True

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            student, teacher: (N, C, h, w).
            mask: (N, 1, H, W) on any grid, 1 where there is something to compare.

        Returns:
            Tensor: scalar in [0, 2].
        """
        with torch.autocast(student.device.type, enabled=False):
            maps = map(at_least_float32, (student, teacher))
            if mask is not None:
                maps = (x * on_grid(mask, x.shape[2:]) for x in maps)
            cosines = F.cosine_similarity(*(x.flatten(1) for x in maps))
            return ((1 - cosines) * shown(student, mask)).sum() / count_shown(student, mask)


@MODELS.register_module()
class ChannelWiseDivergence(DistillationLoss):
    """CWD: T^2 KL(teacher || student) of each channel's softmax over its positions (Shu et al., arXiv 2011.13256,
    section 3).

    Only where a channel is high on the map counts, not how high: a constant added to a channel changes nothing. The
    divergence is a sum over the positions and a mean over the N C channels of all pictures, so that it does not grow
    with the batch or with C. Positions, and whole pictures, that a mask hides are none.

    Args:
        temperature: T > 0.
    """

    mean_over_grid = False
    takes_mask = True

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = positive('temperature', temperature)

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            student, teacher: (N, C, h, w).
            mask: (N, 1, H, W) on any grid, 1 at the positions that count.

        Returns:
            Tensor: scalar, in nats.
        """
        with torch.autocast(student.device.type, enabled=False):  # exponentials overflow in half precision
            maps = map(at_least_float32, (student, teacher))
            if mask is not None:  # far below all else, and finite: 0 times infinity is no number
                hidden = on_grid(mask, student.shape[2:]) == 0
                maps = (x.masked_fill(hidden, torch.finfo(x.dtype).min / 1e6) for x in maps)
            channels = (x.flatten(2).flatten(0, 1) for x in maps)  # (N C, h w) each
            s, t = (F.log_softmax(x / self.temperature, dim=1) for x in channels)
            count = count_shown(student, mask) * student.shape[1]
            return F.kl_div(s, t, log_target=True, reduction='sum') / count * self.temperature**2


@MODELS.register_module()
class DetailL1(DistillationLoss):
    """FreeKD's distance of wavelet details: mean absolute difference of each level's three detail bands, summed over
    the levels (Zhang et al., arXiv 2311.12079, as its authors' code computes it with every mask at 1).

    LL_J is left out, as there. The masks come from prompts that a stage of their own learns on the teacher; they are
    not part of this.
    """

    def forward(self, student: Decomposed, teacher: Decomposed) -> Tensor:
        """
        Returns:
            Tensor: scalar.
        """
        return sum(F.l1_loss(*map(at_least_float32, (s, t)))
                   for s, t in zip(student.bands.details, teacher.bands.details))
