"""GFFL: the Gaussian-filtered frequency loss."""
from __future__ import annotations

from torch import Tensor, nn

from ...ops import gaussian_frequency_loss
from ...registry import MODELS
from ..connectors import Decomposed


@MODELS.register_module()
class GaussianFrequencyLoss(nn.Module):
    """Mean square of the Gaussian-filtered spectrum of student - teacher (GFFL, arXiv 2607.01906; form and place are ours).

    Args:
        sigma: width of the Gaussian relative to the Nyquist frequency; None keeps every frequency, which is plain MSE (Parseval).
        on: 'map', the refined map (default), or 'bands', the sum over all sub-bands.

    Raises:
        ValueError: if ``on`` is neither.
    """

    def __init__(self, sigma: float | None = 0.5, on: str = 'map'):
        super().__init__()
        if on not in ('map', 'bands'):
            raise ValueError(f"on must be 'map' or 'bands', not {on!r}")
        self.sigma, self.on = sigma, on

    def forward(self, student: Decomposed | Tensor, teacher: Decomposed | Tensor) -> Tensor:
        """
        Args:
            student, teacher: what a connector gives: decomposed maps, or (for ``on='map'``) plain ones (N, C, h, w).

        Returns:
            Tensor: scalar.
        """
        if self.on == 'map':
            student, teacher = (side.map if isinstance(side, Decomposed) else side for side in (student, teacher))
            return gaussian_frequency_loss(student, teacher, self.sigma)
        return sum(gaussian_frequency_loss(s, t, self.sigma)
                   for s, t in zip(student.bands.each(), teacher.bands.each()))
