"""A student's map with parts hidden, from which a block generates the teacher's."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import at_least_float32
from ..registry import MODELS
from .align import Align, without_float16


@MODELS.register_module()
class MaskedGeneration(nn.Module):
    """MGD's generation of the teacher's map from a part of the student's (Yang et al., arXiv 2205.01529, and the
    authors' code, ``cls/mmcls/distillation/losses/mgd.py`` and its neighbours in ``det`` and ``seg``).

    A 1x1 convolution where the channels differ, zeros at random places, then a 3x3 convolution, ReLU and a 3x3
    convolution. What stays is not scaled up, and whenever a loss is asked for parts are hidden, as there. Departures:
    both sides on the smaller of the two grids, as :class:`Align` has it (there they must be the same), and padding,
    which theirs generates like all else, is 0 on both sides.

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        ratio: with which probability each channel or cell of each picture is hidden, 0 <= ratio < 1. The authors have
            0.15 for classification, 0.65 for detection, 0.75 for segmentation.
        masked: 'channels', whole ones, as the authors' code for classification has it; 'cells', in all channels at
            once, as the paper and the code for the other tasks do.

    Raises:
        ValueError: for another ratio or another ``masked``.
    """

    def __init__(self, student_channels: int, teacher_channels: int, ratio: float = 0.15, masked: str = 'channels'):
        super().__init__()
        if not 0 <= ratio < 1:
            raise ValueError(f'ratio must be a number from 0 to below 1, not {ratio!r}')
        if masked not in ('channels', 'cells'):
            raise ValueError(f"masked '{masked}' is neither 'channels' nor 'cells'")
        self.ratio, self.masked = ratio, masked
        project = nn.Identity() if student_channels == teacher_channels else None  # None: Align's own convolution
        self.align = Align(student_channels, teacher_channels, standardised=False, project=project)
        self.generation = nn.Sequential(nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1), nn.ReLU(),
                                        nn.Conv2d(teacher_channels, teacher_channels, 3, padding=1))

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            student: (N, Cs, hs, ws).
            teacher: (N, Ct, ht, wt).
            mask: (N, 1, h, w) on the common grid, 1 where there is picture; None where nothing is padded.

        Returns:
            tuple: what was generated and the teacher's map, both (N, Ct, min(hs, ht), min(ws, wt)), 0 outside the mask,
                float32 (float64 stays), also under autocast.
        """
        student, teacher = self.align(student, teacher, mask)  # nothing of the padding is in a cell beside it
        n, c, *grid = student.shape
        drawn = torch.rand((n, c, 1, 1) if self.masked == 'channels' else (n, 1, *grid), device=student.device)
        left = student * (drawn >= self.ratio)
        left = left.to(next(self.generation.parameters(), left).dtype)  # also where all is in half precision
        generated = at_least_float32(without_float16(self.generation, left))
        return generated if mask is None else generated * mask, teacher
