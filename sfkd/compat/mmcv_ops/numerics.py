"""What the operators share: one precision, and gradients by autograd inside of a backward pass."""
from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def precise(*tensors: Tensor) -> list[Tensor]:
    """The tensors in one dtype: float64 if one has it, else float32."""
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in tensors), torch.float32)
    return [x.to(dtype) for x in tensors]


def pull_back(function: Callable, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """The gradients of ``(function(*inputs) * grad).sum()`` to the inputs, inside of a backward pass too."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    with torch.enable_grad():
        output = function(*inputs)
    return torch.autograd.grad(output, inputs, grad.to(output))
