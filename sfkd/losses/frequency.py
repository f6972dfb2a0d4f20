"""GFFL: the Gaussian-filtered frequency loss."""
from __future__ import annotations

import math

from torch import Tensor

from ..connectors import Decomposed, map_of
from ..ops import gaussian_frequency_loss
from ..registry import MODELS
from .base import DistillationLoss, positive


@MODELS.register_module()
class GaussianFrequencyLoss(DistillationLoss):
    """Mean square of the Gaussian-filtered spectrum of student - teacher (GFFL, arXiv 2607.01906; form and place are
    ours).

    Args:
        sigma: width of the Gaussian relative to the Nyquist frequency; None keeps every frequency, which is plain MSE
            (Parseval).
    """

    takes_refined = True

    def __init__(self, sigma: float | None = 0.5):
        super().__init__()
        self.sigma = sigma if sigma in (None, math.inf) else positive('sigma', sigma)

    def forward(self, student: Decomposed | Tensor, teacher: Decomposed | Tensor) -> Tensor:
        """
        Args:
            student, teacher: what a connector gives: maps (N, C, h, w), plain or decomposed; where DS2S ran, the
                refined map counts.

        Returns:
            Tensor: scalar.
        """
        student, teacher = map_of(student, refined=True), map_of(teacher, refined=True)
        return gaussian_frequency_loss(student, teacher, self.sigma)
