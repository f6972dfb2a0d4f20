"""Focal losses, as mmcv's closed forms: target (N,) are class indices, weight (classes,) is of the target's class, or
empty.
"""
from __future__ import annotations

import torch
from torch import Tensor

from .numerics import precise

_TINY = torch.finfo(torch.float32).tiny  # below it mmcv takes no logarithm


def sigmoid_focal_loss_forward(input, target, weight, output, gamma: float, alpha: float) -> None:
    """Fill ``output`` (N, classes); a target that is no class (mmdet's background) is negative for each."""
    p, positive = _probabilities(input, target)
    q = 1 - p
    loss = torch.where(positive, -alpha * q**gamma * p.clamp(min=_TINY).log(),
                       (alpha - 1) * p**gamma * q.clamp(min=_TINY).log())
    output.copy_(loss * _class_weights(weight, target)[:, None])


def sigmoid_focal_loss_backward(input, target, weight, grad_input, gamma: float, alpha: float) -> None:
    """Fill ``grad_input`` (N, classes): the derivative of each element of the loss."""
    p, positive = _probabilities(input, target)
    q = 1 - p
    slope = torch.where(positive, alpha * q**gamma * (gamma * p * p.clamp(min=_TINY).log() - q),
                        (1 - alpha) * p**gamma * (p - gamma * q * q.clamp(min=_TINY).log()))
    grad_input.copy_(slope * _class_weights(weight, target)[:, None])


def _probabilities(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    logits, = precise(logits)
    return logits.sigmoid(), target[:, None] == torch.arange(logits.shape[1], device=logits.device)


def _class_weights(weight: Tensor, target: Tensor) -> Tensor:
    return weight[target.clamp(min=0)] if weight.numel() else torch.ones_like(target)


def softmax_focal_loss_forward(input, target, weight, output, gamma: float, alpha: float) -> None:
    """Fill ``output`` (N,) from probabilities (N, classes); 0 where the target is negative."""
    probabilities, = precise(input)
    p = probabilities.gather(1, target.clamp(min=0)[:, None])[:, 0]
    loss = -alpha * (1 - p)**gamma * p.clamp(min=_TINY).log()
    output.copy_(loss * _class_weights(weight, target) * (target >= 0))


def softmax_focal_loss_backward(input, target, weight, buff, grad_input, gamma: float, alpha: float) -> None:
    """Fill ``grad_input`` (N, classes), the derivative to the logits, from the probabilities ``input``."""
    probabilities, = precise(input)
    own = target[:, None] == torch.arange(input.shape[1], device=input.device)
    p = probabilities.gather(1, target.clamp(min=0)[:, None])
    # dL/dp * p, of which the softmax makes (own - probabilities). The clamp only matters for gamma < 1 at p = 1.
    scale = alpha * (gamma * (1 - p).clamp(min=_TINY)**(gamma - 1) * p * p.clamp(min=_TINY).log() - (1 - p)**gamma)
    scale = scale * (_class_weights(weight, target) * (target >= 0))[:, None]
    grad_input.copy_(scale * (own.to(p) - probabilities))
