"""Brings two maps of different networks onto one grid, one channel count and one scale."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import area_pool, at_least_float32, standardise
from ..registry import MODELS


def onto_one_grid(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, C, h, w), each pooled to the smaller of their two grids in each direction."""
    grid = tuple(map(min, student.shape[2:], teacher.shape[2:]))
    return area_pool(student, grid), area_pool(teacher, grid)


def without_float16(module: nn.Module, features: Tensor) -> Tensor:
    """``module(features)``, in float32 where autocast would have float16, in which sums over large features, and their
    gradients, overflow.
    """
    kind = features.device.type
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        with torch.autocast(kind, enabled=False):
            return module(at_least_float32(features))
    return module(features)


@MODELS.register_module()
class Align(nn.Module):
    """Common grid, common channels and, unless switched off, common scale; steps 2 and 3 of docs/method.md (ours).

    The grid is the smaller of the two in each direction, by area pooling: nothing is invented by upsampling. The
    student is projected by a learned 1x1 convolution; nothing learned acts on the teacher.

    Args:
        student_channels: Cs.
        teacher_channels: Ct.
        standardised: whether both sides lose their scale and shift. Without it the projection has a bias and the
            teacher keeps its values: the regressor of FitNet (arXiv 1412.6550, section 2.2), and what CWD and FreeKD
            compare.
        project: maps (N, Cs, h, w) to (N, Ct, h, w) in the place of the convolution; what a mask hides is 0 to it.
    """

    def __init__(self, student_channels: int, teacher_channels: int, standardised: bool = True,
                 project: nn.Module | None = None):
        super().__init__()
        # standardise() would remove a bias
        self.project = nn.Conv2d(student_channels, teacher_channels, 1,
                                 bias=not standardised) if project is None else project
        self.standardised = standardised

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            student: (N, Cs, hs, ws).
            teacher: (N, Ct, ht, wt).
            mask: (N, 1, h, w) on the common grid, 1 where there is picture; None where nothing is padded.

        Returns:
            tuple: both (N, Ct, min(hs, ht), min(ws, wt)), 0 outside the mask, float32 (float64 stays), also under
                autocast.
        """
        student, teacher = onto_one_grid(student, teacher)
        if mask is not None and not isinstance(self.project, nn.Conv2d):  # which may mix cells
            student = student * mask
        student = without_float16(self.project, student)
        if self.standardised:
            return standardise(student, teacher, mask=mask)
        student, teacher = at_least_float32(student), at_least_float32(teacher)
        return (student, teacher) if mask is None else (student * mask, teacher * mask)


@MODELS.register_module()
class CommonGrid(nn.Module):
    """Brings maps of the same channels onto one grid, by area pooling as :class:`Align` does: class maps, or levels of
    two FPNs.

    Args:
        student_channels, teacher_channels: how many channels each map has.
        standardised: whether both sides lose their scale and shift, as PKD has it (:func:`standardise`).

    Raises:
        ValueError: if they differ.
    """

    def __init__(self, student_channels: int, teacher_channels: int, standardised: bool = False):
        super().__init__()
        if student_channels != teacher_channels:
            raise ValueError(f'the student has {student_channels} classes and the teacher {teacher_channels}; maps of '
                             'other classes cannot be compared: give a teacher of the same classes, or '
                             "dict(type='Align'), which learns a projection")
        self.standardised = standardised

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            student: (N, C, hs, ws).
            teacher: (N, C, ht, wt).
            mask: see :class:`Align`.

        Returns:
            tuple: both (N, C, min(hs, ht), min(ws, wt)), 0 outside of the mask.
        """
        student, teacher = onto_one_grid(student, teacher)
        if self.standardised:
            return standardise(student, teacher, mask=mask)
        return (student, teacher) if mask is None else (student * mask, teacher * mask)
