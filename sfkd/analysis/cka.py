"""How alike two representations are, whatever their channels."""
from __future__ import annotations

import torch
from torch import Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same samples (Kornblith et al., arXiv 1905.00414,
    eq. 3, biased).

    Args:
        first: (n, d1), one row a sample.
        second: (n, d2).

    Returns:
        float: in [0, 1]; 1 for equal up to rotation and scale; nan where one of them is constant.
    """
    first, second = (x.double() - x.double().mean(0) for x in (first, second))

    def alignment(x: Tensor, y: Tensor) -> Tensor:  # by whichever of the two products is smaller
        if max(x.shape[1], y.shape[1]) <= len(x):
            return (x.T @ y).square().sum()
        return ((x @ x.T) * (y @ y.T)).sum()
    return float(alignment(first, second) / torch.sqrt(alignment(first, first) * alignment(second, second)))
