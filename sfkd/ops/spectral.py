"""The Gaussian-filtered frequency loss (GFFL), by two real matrix products instead of a complex FFT.

That SFKD weighs the spectrum by a Gaussian is the paper's (arXiv 2607.01906); the form is ours (step 7 of docs/method.md):

    L = mean |G * FFT2(s - t)|^2,  G(u, v) = g_h(u) g_w(v),  g_n(u) = exp(-(u / (sigma n/2))^2 / 2)

with the orthonormal FFT and signed integer frequencies u, v. G is separable and F unitary, so by Parseval L is exactly
the mean square of ``A_h (s - t) A_w``, with ``A_n = F^H diag(g_n) F``. A_n is symmetric, so that is also

    L = mean (s - t) * E,  E = A_h^2 (s - t) A_w^2,  dL/ds = 2 E / (number of cells)

and A_n^2 is A_n of sigma / sqrt(2): the two products of the forward pass are the gradient as well, and E is all that is kept.
"""
from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# Up to this many cells one product with the Kronecker matrix beats two with the small ones (tools/benchmarks/bench_ops.py).
_TINY_GRID = 64


def gaussian_transfer(n: int, sigma: float | None, device: torch.device | str | None = None,
                      dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that applies the Gaussian filter to n samples: ``A_n = F^H diag(g) F``, real and symmetric.

    Args:
        n: number of samples, at least 1.
        sigma: width of the Gaussian relative to the Nyquist frequency n/2, positive; None or inf: no filter, identity.
        device: the CPU by default.
        dtype: of the result; computed in float64 whatever it is.

    Returns:
        (n, n), cached for these four arguments: do not write into it.

    Raises:
        ValueError: sigma is not positive.
    """
    return _transfer(n, _width(sigma), torch.device(device or 'cpu'), dtype)


def gaussian_frequency_loss(student: Tensor, teacher: Tensor, sigma: float | None = 0.5) -> Tensor:
    """``mean |G * FFT2(student - teacher)|^2``, exactly, without an FFT.

    Computed in float32 (float64 where an input is), under autocast too. Gradients flow to both inputs: detach a teacher
    that carries any.

    Args:
        student, teacher: (..., H, W), of one shape.
        sigma: as in :func:`gaussian_transfer`. Smaller keeps lower frequencies only; None or inf gives the mean squared
            error (Parseval).

    Returns:
        A scalar, not negative.

    Raises:
        ValueError: the shapes differ or have less than two dimensions; sigma is not positive.
    """
    sigma = _width(sigma)
    with torch.autocast(student.device.type, enabled=False):
        difference = _difference(student, teacher)
        if math.isinf(sigma):
            return difference.square().mean()
        height, width = difference.shape[-2:]
        matrix = (sigma / math.sqrt(2), difference.device, difference.dtype)
        if height * width <= _TINY_GRID:
            smooth = (difference.flatten(-2) @ _kronecker(height, width, *matrix)).view_as(difference)
        else:
            smooth = _transfer(height, *matrix) @ (difference @ _transfer(width, *matrix))
        return _QuadraticForm.apply(difference, smooth)


class _QuadraticForm(torch.autograd.Function):
    """``mean(x * y)`` for y = M x with a symmetric M: its gradient 2 y / n needs no further product with M.

    y keeps its own graph, so that a second derivative goes through the products that made it.
    """

    @staticmethod
    def forward(ctx, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        # Not torch.dot, whose running sums lose 1e-3 over a large batch; and not below 0, as rounding could have it where little passes
        return (x * y).mean().clamp_min(0)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        y, = ctx.saved_tensors
        return y * (2 * gradient / y.numel()), None


def gaussian_frequency_loss_fft(student: Tensor, teacher: Tensor, sigma: float | None = 0.5) -> Tensor:
    """The definition of :func:`gaussian_frequency_loss`, by a complex FFT: slower; what the tests compare to."""
    sigma = _width(sigma)
    with torch.autocast(student.device.type, enabled=False):
        difference = _difference(student, teacher)
        rows, columns = (_gains(n, sigma).to(difference) for n in difference.shape[-2:])
        spectrum = torch.fft.fft2(difference, norm='ortho')
        return (torch.outer(rows, columns) * spectrum).abs().square().mean()


def _width(sigma: float | None) -> float:
    if sigma is None:
        return math.inf
    if not sigma > 0:  # so worded that it refuses nan too
        raise ValueError(f'sigma must be positive (or None for no filter), got {sigma}')
    return float(sigma)


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    if student.shape != teacher.shape or student.dim() < 2:
        raise ValueError(f'student and teacher must share one shape (..., H, W), got {tuple(student.shape)} '
                         f'and {tuple(teacher.shape)}')
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype) - teacher.to(dtype)


def _gains(n: int, sigma: float) -> Tensor:
    frequencies = torch.fft.fftfreq(n, dtype=torch.float64) * n  # signed integers: 0, 1, ..., -2, -1
    return torch.exp(-(frequencies / (sigma * n / 2)).square() / 2)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # saved for backward later, which a tensor born in inference mode cannot be
def _transfer(n: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    # F^H diag(g) F convolves with the inverse transform of g; g is even, so that is real and even too.
    kernel = torch.fft.ifft(_gains(n, sigma)).real
    i = torch.arange(n)
    return kernel[(i[:, None] - i).abs()].to(device, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _kronecker(height: int, width: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.kron(*(_transfer(n, sigma, torch.device('cpu'), torch.float64) for n in (height, width))).to(device, dtype)
