"""From a stage's map to one vector a picture."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..features.padding import mean_over_grid
from ..ops import at_least_float32
from ..registry import MODELS


@MODELS.register_module()
class EmbeddingProjector(nn.Module):
    """Both maps averaged over their grids, and the student's embedding through a projector with one hidden layer: what
    RSD compares (Zhang et al., ICCV 2025, arXiv 2507.21844; ``distillers/rsd.py`` of the authors' code).

    The projector is a linear layer, batch normalisation, GELU and a linear layer, without biases, and starts as theirs
    does. Nothing learned acts on the teacher.

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        gamma: the hidden layer has gamma Cs channels.
    """

    def __init__(self, student_channels: int, teacher_channels: int, gamma: int = 2):
        super().__init__()
        width = gamma * student_channels
        self.project = nn.Sequential(nn.Linear(student_channels, width, bias=False), nn.BatchNorm1d(width), nn.GELU(),
                                     nn.Linear(width, teacher_channels, bias=False))
        for linear in (self.project[0], self.project[-1]):
            nn.init.trunc_normal_(linear.weight, std=0.02)

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            student: (N, Cs, hs, ws); in training, N > 1.
            teacher: (N, Ct, ht, wt).
            mask: (N, 1, h, w) on the smaller of both grids, 1 where there is picture; None where nothing is padded.

        Returns:
            tuple: both (N, Ct), float32 (float64 stays), also under autocast; a picture with nothing inside of the mask
                has an embedding of 0 before the projector.

        Raises:
            ValueError: in training, for a batch of one picture.
        """
        if self.training and len(student) < 2:
            raise ValueError('EmbeddingProjector normalises over the pictures of a batch, and this one has one: set '
                             'train_dataloader.drop_last=True if it is the last of an epoch, or a larger batch_size')
        with torch.autocast(student.device.type, enabled=False):  # sums over large features overflow in float16
            student, teacher = mean_over_grid(student, mask), mean_over_grid(teacher, mask)
            student = student.to(self.project[0].weight.dtype)  # also where all is in half precision
            return at_least_float32(self.project(student)), teacher
