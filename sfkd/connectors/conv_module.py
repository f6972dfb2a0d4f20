"""mmcv's convolution with normalisation and activation, as a connector."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..features.padding import on_grid
from ..ops import at_least_float32, moments, standardise
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

    standardised = False  # the teacher's map keeps its values

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
        if mask is None:
            return onto_one_grid(self.conv(student), teacher)
        student, teacher = onto_one_grid(self._masked(student, mask), teacher)
        return student * mask, teacher * mask

    def _masked(self, student: Tensor, mask: Tensor) -> Tensor:
        """Like ``self.conv(student)``, but that a batch normalisation in training counts what the mask leaves alone, of
        the batch joined over all processes.
        """
        norm = self.conv.norm if self.conv.with_norm else None
        if not isinstance(norm, _BatchNorm) or not norm.training or self.conv.order != ('conv', 'norm', 'act'):
            return self.conv(student)
        x = at_least_float32(self.conv(student, activate=False, norm=False))
        mask = on_grid(mask, x.shape[2:]).to(x)
        if norm.running_mean is not None:
            self._keep(norm, x, mask)
        x, = standardise(x, mask=mask, eps=norm.eps)
        if norm.affine:
            weight, bias = (parameter.view(1, -1, 1, 1) for parameter in (norm.weight, norm.bias))
            x = x * weight + bias
        else:
            x = x.clone()  # an activation may work in place, and the gradient needs what it would overwrite
        return self.conv.activate(x) if self.conv.with_activation else x

    @staticmethod
    @torch.no_grad()
    def _keep(norm: _BatchNorm, x: Tensor, mask: Tensor) -> None:
        """Take the batch's statistics into the running ones, as torch does."""
        count, (mean, ), (variance, ) = moments((x, ), mask)
        variance = variance * count / (count - 1).clamp_min(1)
        norm.num_batches_tracked += 1
        share = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
        for running, new in (norm.running_mean, mean), (norm.running_var, variance):
            running.lerp_(new.to(running), share)
