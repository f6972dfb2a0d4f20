"""The wavelet connector: align, decompose, refine."""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...ops import Bands, dwt2, idwt2
from ...ops.dwt import max_levels
from ...registry import MODELS
from .align import Align


class Decomposed(NamedTuple):
    """A standardised map and its sub-bands.

    Attributes:
        map: (N, C, h, w).
        bands: its orthonormal wavelet bands.
    """
    map: Tensor
    bands: Bands


class DualStreamRefinement(nn.Module):
    """DS2S: refines the student's bands in two streams (low band, details) and two stages (within a band, between the streams).

    The name and the two directions are of arXiv 2607.01906; the layers are ours. Every branch ends in zeros, so that it starts as the
    identity. Weights are shared over levels: the parameters depend on C alone.

    Args:
        channels: C of the bands.
        reduction: the pointwise convolutions go through C / reduction channels, at least 4.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        hidden = max(channels // reduction, 4)

        def refine(width: int) -> nn.Sequential:  # depthwise on each band by itself, then a pointwise bottleneck over channels
            return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.GELU(),
                                 nn.Conv2d(width, hidden, 1, bias=False), nn.Conv2d(hidden, width, 1))
        self.low, self.detail = refine(channels), refine(3 * channels)
        self.low_to_detail = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.detail_to_low = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        for last in (self.low[-1], self.detail[-1], self.low_to_detail, self.detail_to_low):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, bands: Bands) -> Bands:
        """
        Args:
            bands: low (N, C, h, w), details (N, C, 3, h_j, w_j).

        Returns:
            Bands: of the same shapes.
        """
        low = bands.low + self.low(bands.low)
        details = [d + self.detail(d.flatten(1, 2)).view_as(d) for d in bands.details]
        # Between the streams, each way from the other's first stage
        energy = sum(F.adaptive_avg_pool2d(d.square().mean(2), low.shape[2:]) for d in details).add(1e-6).log()
        gate = self.low_to_detail(low)
        details = tuple(d * (1 + torch.tanh(F.interpolate(gate, d.shape[3:], mode='bilinear'))).unsqueeze(2) for d in details)
        return Bands(low * (1 + torch.tanh(self.detail_to_low(energy))), details)


@MODELS.register_module()
class WaveletConnector(nn.Module):
    """Align, decompose by a multi-level DWT, refine the student's bands by DS2S (arXiv 2607.01906, read as in docs/method.md).

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        levels: J; falls to what a smaller grid allows.
        wavelet: any discrete wavelet that PyWavelets names; orthogonal ones keep energy.
        refine: whether DS2S runs.
    """

    def __init__(self, student_channels: int, teacher_channels: int, levels: int = 2, wavelet: str = 'haar', refine: bool = True):
        super().__init__()
        self.align = Align(student_channels, teacher_channels)
        self.levels, self.wavelet = levels, wavelet
        self.refine = DualStreamRefinement(teacher_channels) if refine else None

    def levels_on(self, grid: tuple[int, int]) -> int:
        """How many of the wanted levels a grid (h, w) allows."""
        return min(self.levels, max_levels(grid, self.wavelet))

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Decomposed, Decomposed]:
        """
        Args:
            student: (N, Cs, hs, ws).
            teacher: (N, Ct, ht, wt).

        Returns:
            tuple: both decomposed on the common grid with Ct channels; the student's map is rebuilt from its refined bands.
        """
        student, teacher = self.align(student, teacher)
        grid = student.shape[2:]
        levels = self.levels_on(grid)
        bands = dwt2(student, levels, self.wavelet)
        if self.refine is not None:
            bands = self.refine(bands)
            student = idwt2(bands, self.wavelet, size=grid)
        return Decomposed(student, bands), Decomposed(teacher, dwt2(teacher, levels, self.wavelet))
