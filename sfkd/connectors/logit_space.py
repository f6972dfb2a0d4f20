"""From a stage's map to class scores."""
from __future__ import annotations

from torch import Tensor, nn

from ..registry import MODELS


@MODELS.register_module()
class LogitProjector(nn.Module):
    """An exit branch: the student's map becomes class scores, the space where networks of any kind agree (OFA, Hao et
    al., arXiv 2310.19444, section 3).

    Departure: the paper's branches are written per architecture (convolutions for a CNN; patch merging and attention
    blocks for tokens) and reach tens of millions of weights. This one, for a map of any origin, is two
    depthwise-separable convolutions of stride 2, each with batch normalisation and GELU, then a global mean and a
    linear layer.

    Args:
        student_channels: Cs.
        teacher_channels: how many classes the teacher scores.
        max_width: the most channels in the branch, which has 2 Cs where that is less.
    """

    def __init__(self, student_channels: int, teacher_channels: int, max_width: int = 256):
        super().__init__()
        width = min(2 * student_channels, max_width)

        def halve(channels: int) -> list[nn.Module]:
            return [nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
                    nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.GELU()]
        self.project = nn.Sequential(*halve(student_channels), *halve(width), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                     nn.Linear(width, teacher_channels))

    def forward(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            student: (N, Cs, h, w); in training, N > 1 where the grid is 4x4 or smaller.
            teacher: (N, classes), passed on.

        Returns:
            tuple: both (N, classes).
        """
        return self.project(student), teacher
