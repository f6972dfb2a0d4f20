"""How alike two representations are, whatever their channels."""
from __future__ import annotations

import torch
from torch import Tensor

SAMPLES = 4  # the fewest that the debiased measure is defined for


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


def gram(features: Tensor) -> Tensor:
    """The linear kernel of samples with each other, float64.

    Args:
        features: (n, ...), one entry a sample.

    Returns:
        Tensor: (n, n).
    """
    rows = features.flatten(1).double()
    return rows @ rows.T


def debiased_cka(first: Tensor, second: Tensor) -> float:
    """Centred kernel alignment of two kernels of the same samples, with the unbiased estimator of HSIC:

        CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))                        (Kornblith et al., arXiv 1905.00414)
        HSIC(K, L) = (tr(K0 L0) + (1'K0 1)(1'L0 1) / ((n-1)(n-2)) - 2 (1'K0 L0 1) / (n-2)) / (n (n-3))

    where K0 and L0 are the kernels with zeros on the diagonal (Song et al., JMLR 2012, eq. 5, as Nguyen et al.,
    arXiv 2010.15327, take it). The biased estimator of :func:`linear_cka` nears 1 for any two networks where the
    features are many more than the samples, as those of whole maps are; this one is 0 on average for unrelated ones.

    Args:
        first, second: (n, n), as :func:`gram` gives them; n at least 4.

    Returns:
        float: at most 1, which equal ones have, up to rotation and scale of the features; about 0, or a little below,
        for unrelated ones; nan where one of them is constant.

    Raises:
        ValueError: for fewer than 4 samples, or kernels of different ones.
    """
    n = len(first)
    if n < SAMPLES or first.shape != second.shape:
        raise ValueError(f'CKA needs two kernels of the same {SAMPLES} samples or more, got {tuple(first.shape)} and '
                         f'{tuple(second.shape)}')
    first, second = (k.double() - torch.diag(k.double().diagonal()) for k in (first, second))

    def hsic(k: Tensor, l: Tensor) -> Tensor:
        return ((k * l).sum() + k.sum() * l.sum() / ((n - 1) * (n - 2))
                - 2 * (k.sum(0) @ l.sum(1)) / (n - 2)) / (n * (n - 3))
    own = hsic(first, first) * hsic(second, second)
    return float(hsic(first, second) / own.sqrt()) if own > 0 else float('nan')
