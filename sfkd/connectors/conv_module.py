"""mmcv's convolution with normalisation and activation, as a connector."""
from __future__ import annotations

from torch import Tensor, nn

from ..registry import MODELS
from .align import onto_one_grid


@MODELS.register_module()
class ConvModuleConnector(nn.Module):
    """mmcv's ConvModule on the student's map, as mmrazor's connector of that name; then both on one grid.

    With batch normalisation it is also SRRL's (Yang et al., ICLR 2021; ``distiller_zoo/AIN.py`` of the authors' code),
    which starts from the same weights.

    Args:
        student_channels, teacher_channels: Cs and Ct.
        kwargs: of mmcv's ConvModule; by default a 1x1 convolution with bias and a ReLU.
    """

    def __init__(self, student_channels: int, teacher_channels: int, **kwargs):
        super().__init__()
        from mmcv.cnn import ConvModule  # not above: all others do without mmcv
        self.conv = ConvModule(student_channels, teacher_channels, **dict(dict(kernel_size=1), **kwargs))

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """
        Args:
            student: (N, Cs, hs, ws).
            teacher: (N, Ct, ht, wt).
            mask: (N, 1, h, w) on the common grid, 1 where there is picture; None where nothing is padded.

        Returns:
            tuple: both (N, Ct, min(hs, ht), min(ws, wt)), 0 outside the mask.
        """
        student, teacher = onto_one_grid(self.conv(student), teacher)
        return (student, teacher) if mask is None else (student * mask, teacher * mask)
