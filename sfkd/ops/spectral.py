"""The Gaussian-filtered frequency loss (GFFL), by two real matrix products instead of a complex FFT.

That SFKD weighs the spectrum by a Gaussian is the paper's (arXiv 2607.01906); the form is ours (step 7 of
docs/method.md):

    L = mean |G * FFT2(s - t)|^2,  G(u, v) = g_h(u) g_w(v),  g_n(u) = exp(-(u / (sigma n/2))^2 / 2)

with the orthonormal FFT and signed integer frequencies u, v. G is separable and F unitary, so by Parseval L is exactly
the mean square of ``A_h (s - t) A_w``, with ``A_n = F^H diag(g_n) F``. A_n is symmetric, so that is also

    L = mean (s - t) * E,  E = A_h^2 (s - t) A_w^2,  dL/ds = 2 E / (number of cells)

and A_n^2 is A_n of sigma / sqrt(2): the two products of the forward pass are the gradient as well, and E is all that is
kept. A_n is circulant, too: sum and difference of a side's two halves pass through it apart, which halves the
multiplications.
"""
from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# Up to this many cells one product with the Kronecker matrix beats two with the small ones
# (tools/benchmarks/bench_ops.py).
_TINY_GRID = 64
# From this side on it pays to halve it; and so many cells stay in a CPU's cache (both by the same benchmark).
_LONG_SIDE = 48
_CACHED_CELLS = 2**18


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
        student, teacher = _pair(student, teacher)
        if math.isinf(sigma):
            return (student - teacher).square().mean()
        return _QuadraticForm.apply(student, teacher, *_Smooth.apply(student, teacher, sigma / math.sqrt(2)))


class _Smooth(torch.autograd.Function):
    """E = A^2 (student - teacher) A^2, and mean (student - teacher) * E, which has no gradient here."""

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.sigma = sigma
        smooth = torch.empty_like(student, memory_format=torch.contiguous_format)
        height, width = student.shape[-2:]
        maps = [x.reshape(-1, height, width) for x in (student, teacher, smooth)]
        planes = max(1, _CACHED_CELLS // (height * width)) if _by_parts(student) else len(maps[0])
        sums = []
        for s, t, out in zip(*(x.split(planes) for x in maps)):
            difference = s - t
            _smooth(difference, sigma, out)
            sums.append((difference * out).sum())  # not torch.dot, whose running sums lose 1e-3 over a large batch
        mean = torch.stack(sums).sum() / student.numel()
        ctx.mark_non_differentiable(mean)
        return smooth, mean

    @staticmethod
    def backward(ctx, gradient: Tensor | None, _) -> tuple[Tensor | None, ...]:
        if gradient is None:  # but for second derivatives
            return None, None, None
        rows, columns = (_transfer(n, ctx.sigma, gradient.device, gradient.dtype) for n in gradient.shape[-2:])
        smooth = rows @ gradient @ columns
        return smooth, -smooth, None


def _smooth(x: Tensor, sigma: float, out: Tensor) -> None:
    """A_h x A_w of maps (P, H, W)."""
    (height, width), kind = x.shape[-2:], (sigma, x.device, x.dtype)
    if height * width <= _TINY_GRID:
        torch.mm(x.flatten(1), _kronecker(height, width, *kind), out=out.flatten(1))
    elif _by_parts(x) and width % 2 == 0 and width >= _LONG_SIDE:
        parts = (_smooth_rows(part @ matrix, sigma) for part, matrix in zip(_halve(x, -1), _halves(width, *kind)))
        _join(*parts, -1, out)
    else:
        out.copy_(_smooth_rows(x @ _transfer(width, *kind), sigma))


def _smooth_rows(x: Tensor, sigma: float) -> Tensor:
    """A_h x."""
    height, kind = x.shape[-2], (sigma, x.device, x.dtype)
    if _by_parts(x) and height % 2 == 0 and height >= _LONG_SIDE:
        return _join(*(matrix @ part for part, matrix in zip(_halve(x, -2), _halves(height, *kind))), -2,
                     torch.empty_like(x))
    return _transfer(height, *kind) @ x


def _by_parts(x: Tensor) -> bool:
    """Runs of planes and halves of sides: not for accelerators, whose products do not wait for arithmetic, nor for
    compilers.
    """
    return x.device.type == 'cpu' and not torch.compiler.is_compiling()


def _halve(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2, dim)
    return first + second, first - second


def _join(total: Tensor, difference: Tensor, dim: int, out: Tensor) -> Tensor:
    """What :func:`_halve` took apart, times two."""
    first, second = out.chunk(2, dim)
    torch.add(total, difference, out=first)
    torch.sub(total, difference, out=second)
    return out


class _QuadraticForm(torch.autograd.Function):
    """``mean(x * y)``, which is given, for x = student - teacher and y = M x with a symmetric M: its gradient 2 y / n
    needs no further product.

    y keeps its own graph, so that a second derivative goes through the products that made it.
    """

    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, y: Tensor, mean: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return mean.clamp_min(0)  # as rounding could have it where little passes

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, = ctx.saved_tensors
        gradient = y * (2 * gradient / y.numel())
        return gradient, -gradient if ctx.needs_input_grad[1] else None, None, None


def gaussian_frequency_loss_fft(student: Tensor, teacher: Tensor, sigma: float | None = 0.5) -> Tensor:
    """The definition of :func:`gaussian_frequency_loss`, by a complex FFT: slower; what the tests compare to."""
    sigma = _width(sigma)
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = _pair(student, teacher)
        difference = student - teacher
        rows, columns = (_gains(n, sigma).to(difference) for n in difference.shape[-2:])
        spectrum = torch.fft.fft2(difference, norm='ortho')
        return (torch.outer(rows, columns) * spectrum).abs().square().mean()


def _width(sigma: float | None) -> float:
    if sigma is None:
        return math.inf
    if not sigma > 0:  # so worded that it refuses nan too
        raise ValueError(f'sigma must be positive (or None for no filter), got {sigma}')
    return float(sigma)


def _pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.shape != teacher.shape or student.dim() < 2:
        raise ValueError(f'student and teacher must share one shape (..., H, W), got {tuple(student.shape)} '
                         f'and {tuple(teacher.shape)}')
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.to(dtype)


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


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _halves(n: int, sigma: float, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What A_n (n even) does to sum and difference of the two halves, by half: :func:`_join` doubles."""
    left, right = _transfer(n, sigma, torch.device('cpu'), torch.float64)[:n // 2].chunk(2, 1)
    return tuple(((left + sign * right) / 2).to(device, dtype) for sign in (1, -1))


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _kronecker(height: int, width: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    sides = (_transfer(n, sigma, torch.device('cpu'), torch.float64) for n in (height, width))
    return torch.kron(*sides).to(device, dtype)
