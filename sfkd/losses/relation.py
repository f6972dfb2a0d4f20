"""Losses on the relations between the pictures of a batch."""
from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..features.padding import count_shown, mean_over_grid, shown
from ..ops import at_least_float32
from ..registry import MODELS
from .base import DistillationLoss, at_least, positive


@MODELS.register_module()
class PooledMSE(DistillationLoss):
    """Mean square of student - teacher of globally pooled maps (the feature term of SRRL, Yang et al., ICLR 2021)."""

    mean_over_grid = False
    takes_mask = True

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            student, teacher: (N, C, h, w).
            mask: see :func:`~sfkd.features.padding.mean_over_grid`.

        Returns:
            Tensor: scalar.
        """
        with torch.autocast(student.device.type, enabled=False):
            s, t = mean_over_grid(student, mask), mean_over_grid(teacher, mask)
            return F.mse_loss(s, t, reduction='sum') / (count_shown(student, mask) * s.shape[1])


@MODELS.register_module()
class CorrelationCongruence(DistillationLoss):
    """Mean square of student - teacher of the batch's kernel matrices (CC, Peng et al., arXiv 1904.01802, section 3).

    The kernel is the Gaussian RBF of L2-normalised embeddings by its Taylor series: the sum over p = 0..order of
    exp(-2 gamma) (2 gamma)^p / p! (a . b)^p. The paper's other kernels, MMD and bilinear, are left out. The batch is
    that of one process.

    Args:
        gamma: of exp(-gamma |a - b|^2), > 0.
        order: of the series, >= 1.
    """

    mean_over_grid = False
    takes_mask = True

    def __init__(self, gamma: float = 0.4, order: int = 2):
        super().__init__()
        positive('gamma', gamma)
        at_least(1, 'order', order)
        self.factors = [math.exp(-2 * gamma) * (2 * gamma)**p / math.factorial(p) for p in range(order + 1)]

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            student: (N, Cs, hs, ws).
            teacher: (N, Ct, ht, wt).
            mask: see :func:`~sfkd.features.padding.mean_over_grid`.

        Returns:
            Tensor: scalar, >= 0.
        """
        def kernel(features):
            embeddings = F.normalize(mean_over_grid(features, mask), dim=1)
            cosine = embeddings @ embeddings.T
            return sum(factor * cosine**p for p, factor in enumerate(self.factors))  # (N, N)
        with torch.autocast(student.device.type, enabled=False):
            # Where a picture is hidden its embedding is 0, and both kernels are the same
            return F.mse_loss(kernel(student), kernel(teacher), reduction='sum') / count_shown(student, mask)**2


@MODELS.register_module()
class RelationalKD(DistillationLoss):
    """Huber loss, of threshold 1, on a batch's distances and angles (RKD, Park et al., arXiv 1904.05068, section 3.2).

    Distances are relative to their mean over the batch's pairs; angles are cosines at each vertex of each triple. Both
    losses are means over all N^2 pairs and N^3 triples, as in the authors' code, so that the weights keep their
    meaning; those that repeat a picture add 0. The batch is that of one process; memory grows with N^3 and N^2 C.

    Args:
        distance_weight: of the distances.
        angle_weight: of the angles.
    """

    mean_over_grid = False
    takes_mask = True

    def __init__(self, distance_weight: float = 25.0, angle_weight: float = 50.0):
        super().__init__()
        self.distance_weight = at_least(0, 'distance_weight', distance_weight)
        self.angle_weight = at_least(0, 'angle_weight', angle_weight)

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            student: (N, Cs, hs, ws), of two pictures or more.
            teacher: (N, Ct, ht, wt).
            mask: see :func:`~sfkd.features.padding.mean_over_grid`.

        Returns:
            Tensor: scalar, >= 0.
        """
        with torch.autocast(student.device.type, enabled=False):
            (s_distances, s_angles), (t_distances, t_angles) = (
                self._relations(mean_over_grid(x, mask), mask) for x in (student, teacher))
            count = count_shown(student, mask)
            return (self.distance_weight * F.smooth_l1_loss(s_distances, t_distances, reduction='sum') / count**2
                    + self.angle_weight * F.smooth_l1_loss(s_angles, t_angles, reduction='sum') / count**3)

    @staticmethod
    def _relations(embeddings: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Of (N, C): (N, N) distances over their mean, (N, N, N) cosines at the first index; 0 where two pictures
        coincide, or where the mask hides one.
        """
        # Only ratios count; a power of two rounds nothing, and squares stay in range
        embeddings = torch.ldexp(embeddings, -torch.frexp(embeddings.detach().abs().amax()).exponent)
        edges = embeddings - embeddings.unsqueeze(1)                       # (N, N, C)
        squares = edges.square().sum(2)
        # a root has no slope at 0, an edge of length 0 no direction
        both = shown(embeddings, mask)
        apart = (squares > 0) & both & both.unsqueeze(1)
        edges = edges.where(apart.unsqueeze(2), 0)
        distances = squares.where(apart, 1).sqrt() * apart
        count = count_shown(embeddings, mask)
        mean = distances.sum() / (count * (count - 1)).clamp_min(1)
        directions = edges / distances.where(apart, 1).unsqueeze(2)
        return distances / mean.clamp_min(torch.finfo(mean.dtype).tiny), directions @ directions.mT


@MODELS.register_module()
class RedundancySuppression(DistillationLoss):
    """RSD: how far the cross-correlation matrix of the teacher's and the student's embeddings over a batch is from the
    identity (Zhang et al., ICCV 2025, arXiv 2507.21844), as the authors' code computes it, ``distillers/rsd.py``.

    Each channel of each side is standardised over the batch, by its biased deviation + 1e-5. Of r, the mean product of
    one of the D channels of the teacher and one of the student, it is the sum of (1 - r)^2 where both are the same
    channel, plus kappa times the sum of r^2 where they are not. It grows with D: a student whose channels are all
    constant costs D. The batch is that of one process.

    Args:
        kappa: weight of two different channels.
    """

    mean_over_grid = False

    def __init__(self, kappa: float = 0.01):
        super().__init__()
        self.kappa = at_least(0, 'kappa', kappa)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, D), as :class:`~sfkd.connectors.EmbeddingProjector` gives them.

        Returns:
            Tensor: scalar, >= 0.

        Raises:
            ValueError: for maps, or embeddings of two lengths.
        """
        if student.dim() != 2 or student.shape != teacher.shape:
            raise ValueError('RedundancySuppression compares embeddings (N, D) of one length, not '
                             f'{tuple(student.shape)} with {tuple(teacher.shape)}: give '
                             "connector=dict(type='EmbeddingProjector')")
        with torch.autocast(student.device.type, enabled=False):
            s, t = (self._standardised(at_least_float32(x)) for x in (student, teacher))
            correlation = t.T @ s / len(s)  # (D, D)
            identity = torch.eye(len(correlation), dtype=s.dtype, device=s.device)
            weights = torch.full_like(correlation, self.kappa).fill_diagonal_(1)
            return (weights * (correlation - identity).square()).sum()

    @staticmethod
    def _standardised(embeddings: Tensor) -> Tensor:
        return (embeddings - embeddings.mean(0)) / (embeddings.std(0, unbiased=False) + 1e-5)
