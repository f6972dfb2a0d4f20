"""Losses on wavelet sub-bands."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..connectors import Decomposed
from ..ops import mean_square
from ..registry import MODELS
from .base import DistillationLoss, positive


@MODELS.register_module()
class BandMSE(DistillationLoss):
    """Spatial matching of sub-bands by squared difference (band matching is arXiv 2607.01906; the weighting is ours).

    Args:
        balance: 'gain' (default) divides each band's mean by its gain 4^j, the most by which an orthonormal band of
            level j can exceed the map in variance; by Parseval the sum over unrefined bands of an orthogonal wavelet
            then equals the plain MSE of the maps, and is computed as that, without any bands. 'none' takes the plain
            mean of each band, so that LL_J counts up to 4^J times.
        refined: whether the student's bands count as DS2S refined them, where it did.

    Raises:
        ValueError: if ``balance`` is neither.
    """

    def __init__(self, balance: str = 'gain', refined: bool = False):
        super().__init__()
        if balance not in ('gain', 'none'):
            raise ValueError(f"balance must be 'gain' or 'none', not {balance!r}")
        self.balance, self.takes_refined = balance, refined

    def forward(self, student: Decomposed, teacher: Decomposed) -> Tensor:
        """
        Returns:
            Tensor: scalar.
        """
        student = student.refined if self.takes_refined else student
        if self.balance == 'gain' and student.isometric and teacher.isometric:
            return mean_square(student.map, teacher.map)
        pairs = [(student.bands.low, teacher.bands.low), *zip(student.bands.details, teacher.bands.details)]
        if self.balance == 'gain':  # sum over a band / size of the map = its mean / 4^j: one division serves all bands
            return sum(F.mse_loss(s, t, reduction='sum') for s, t in pairs) / student.map.numel()
        return sum(F.mse_loss(s, t) * (s.shape[2] if s.dim() == 5 else 1) for s, t in pairs)


@MODELS.register_module()
class BandInfoNCE(DistillationLoss):
    """Contrast of sub-bands: the teacher's band of the same picture against those of the batch's other pictures (for
    the ablation of arXiv 2607.01906, on the refined bands where DS2S runs; the form, van den Oord et al., arXiv
    1807.03748, eq. 4, on flattened bands, is ours).

    Args:
        temperature: of the cosine similarities, > 0.
    """

    mean_over_grid = False
    takes_refined = True

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        self.temperature = positive('temperature', temperature)

    def forward(self, student: Decomposed, teacher: Decomposed) -> Tensor:
        """
        Returns:
            Tensor: scalar, the mean over bands.
        """
        def contrast(s, t):
            s, t = (F.normalize(x.flatten(1).float(), dim=1) for x in (s, t))
            return F.cross_entropy(s @ t.T / self.temperature, torch.arange(len(s), device=s.device))
        student = student.refined
        with torch.autocast(student.map.device.type, enabled=False):
            each = [contrast(s, t) for s, t in zip(student.bands.each(), teacher.bands.each())]
        return sum(each) / len(each)
