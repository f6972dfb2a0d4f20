"""Losses on class scores."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...registry import MODELS


@MODELS.register_module()
class KLDivergence(nn.Module):
    """Knowledge distillation: T^2 KL(teacher || student) of softened class scores (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        temperature: T > 0.
    """

    def __init__(self, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, classes) scores before the softmax.

        Returns:
            Tensor: scalar, the mean over pictures, in nats.
        """
        with torch.autocast(student.device.type, enabled=False):  # exponentials overflow in half precision
            s, t = (F.log_softmax(x.float() / self.temperature, dim=1) for x in (student, teacher))
            return F.kl_div(s, t, log_target=True, reduction='batchmean') * self.temperature**2
