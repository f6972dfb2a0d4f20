"""Two-dimensional discrete wavelet transform (DWT) of feature maps, with PyWavelets' conventions and right gradients.

SFKD (arXiv 2607.01906, step 4 of METHOD.md) splits a map into a broad band and details; which wavelet, and the padding,
are ours to choose. Haar with ``mode='zero'`` is the default: orthonormal at every size, so the bands keep the energy.

Two paths:

* Haar is a butterfly in plain tensor operations: no padding beyond one row or column, compiles, fastest.
* Any other wavelet is filtered by pytorch_wavelets, *always in its zero mode*. Gradcheck of pytorch_wavelets 1.3.0 over
  wavelets x modes x sizes: values are right, gradients are right for ``zero`` at every size; for ``periodization`` only
  where both sides are even and as long as the filter; for ``symmetric`` never (but Haar at even sizes). So the signal is
  continued here by indexing (autograd does that right), the library filters it, and the surplus is cropped: no slower
  than its own padding was, and half the time of a convolution of ours.
"""
from __future__ import annotations

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import nearest

if TYPE_CHECKING:
    import pywt

MODES = ('zero', 'symmetric', 'periodization')
_HAAR = ('haar', 'db1')
_ZERO = 0  # pytorch_wavelets' code for its zero mode


class Bands(NamedTuple):
    """The sub-bands of a map, as :func:`dwt2` returns them.

    Attributes:
        low: the broad band LL_J, (N, C, h_J, w_J).
        details: one tensor (N, C, 3, h_j, w_j) a level, the finest first; the bands are LH, HL, HH: pywt.dwt2's
            (cH, cV, cD), that is high-pass along the height, along the width, along both.
    """
    low: Tensor
    details: tuple[Tensor, ...]

    def each(self) -> list[Tensor]:
        """All 1 + 3 J bands by themselves, each (N, C, h, w): LL_J, then LH, HL, HH of each level, the finest first."""
        return [self.low, *(band for level in self.details for band in level.unbind(2))]


def dwt2(x: Tensor, levels: int = 1, wavelet: str = 'haar', mode: str = 'zero') -> Bands:
    """Decompose a map over ``levels`` scales; equal to ``pywt.wavedec2``, whose levels come in the opposite order.

    Args:
        x: (N, C, H, W), floating point. The bands keep its dtype, under autocast too: half precision is added in place
            by Haar, and filtered in float32 and cast back by the other wavelets.
        levels: 1 to :func:`max_levels`.
        wavelet: a discrete wavelet of PyWavelets, orthogonal or biorthogonal ('haar', 'db2', 'bior2.2', ...).
        mode: how the map goes on past its border: 'zero', 'symmetric' or 'periodization'. For Haar it only matters at
            odd sizes: one zero, or the last sample once more. Energy is kept exactly by an orthogonal wavelet in
            'periodization' at sizes that stay even, and by Haar in 'zero' at all sizes.

    Raises:
        ValueError: x is not (N, C, H, W); unknown wavelet or mode; levels out of range for the grid.
    """
    if x.dim() != 4:
        raise ValueError(f'dwt2 takes a map (N, C, H, W), got shape {tuple(x.shape)}')
    _check_mode(mode)
    allowed = max_levels(x.shape[-2:], wavelet)
    if not 1 <= levels <= allowed:
        raise ValueError(f'levels={levels} on a grid of {x.shape[-2]}x{x.shape[-1]}: {wavelet!r} allows '
                         f'{f"1 to {allowed}" if allowed else "none (0)"} there')
    analyse = _haar_analysis if wavelet in _HAAR else _analysis
    details = []
    for _ in range(levels):
        x, detail = analyse(x, wavelet, mode)
        details.append(detail)
    return Bands(x, tuple(details))


def idwt2(bands: Bands, wavelet: str = 'haar', mode: str = 'zero', size: tuple[int, int] | None = None) -> Tensor:
    """Invert :func:`dwt2` exactly (as exactly as the wavelet's filters allow: 'dmey' is an approximation).

    Args:
        bands: what dwt2 returned, of the same ``wavelet`` and ``mode``.
        size: (H, W) of the map that was decomposed. Without it an odd side comes back one longer, padding included.

    Returns:
        (N, C, H, W), in the bands' dtype.

    Raises:
        ValueError: unknown wavelet or mode; ``size`` is not one that these bands can come from.
    """
    _check_mode(mode)
    synthesise = _haar_synthesis if wavelet in _HAAR else _synthesis
    x = bands.low
    for detail in reversed(bands.details):
        h, w = detail.shape[-2:]
        x = synthesise(x[..., :h, :w], detail, wavelet, mode)  # an odd finer level came back one too long
    if size is None:
        return x
    full = tuple(x.shape[-2:])
    if any(n not in (m, m - 1) for n, m in zip(size, full)):
        raise ValueError(f'size={tuple(size)} does not fit bands of a map of {full} (odd sides: one less)')
    return x[..., :size[0], :size[1]]


def max_levels(size: tuple[int, int], wavelet: str = 'haar') -> int:
    """How many levels a grid allows: 0 where it allows none.

    A level needs both sides to be at least the filter's length (2 for Haar, 4 for 'db2'), and halves them, rounding up.
    That counts the grid itself, not the border samples that longer filters add to it, so it holds for every mode.

    Raises:
        ValueError: unknown wavelet.
    """
    taps = 2 if wavelet in _HAAR else _wavelet(wavelet).dec_len
    height, width = size
    levels = 0
    while min(height, width) >= taps:
        height, width, levels = (height + 1) // 2, (width + 1) // 2, levels + 1
    return levels


def _check_mode(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f'unknown mode {mode!r}, possible: {", ".join(map(repr, MODES))}')


def _pad_even(x: Tensor, mode: str) -> Tensor:
    height, width = (n % 2 for n in x.shape[-2:])
    if not (height or width):
        return x
    return F.pad(x, (0, width, 0, height), mode='constant' if mode == 'zero' else 'replicate')


# Haar. Rows first: they are contiguous, so only the second, half as long pass reads with a stride. unflatten and unbind
# rather than x[..., ::2]: the gradient of unbind is one stack, that of each slice a zero-filled copy of the whole map.
# Halving first keeps float16 from overflowing. (An autograd.Function with preallocated bands measured no faster.)
def _haar_analysis(x: Tensor, wavelet: str, mode: str) -> tuple[Tensor, Tensor]:
    top, bottom = (_pad_even(x, mode) * 0.5).unflatten(-2, (-1, 2)).unbind(-2)
    sum_left, sum_right = (top + bottom).unflatten(-1, (-1, 2)).unbind(-1)
    diff_left, diff_right = (top - bottom).unflatten(-1, (-1, 2)).unbind(-1)
    detail = torch.stack((diff_left + diff_right, sum_left - sum_right, diff_left - diff_right), dim=2)
    return sum_left + sum_right, detail


def _haar_synthesis(low: Tensor, detail: Tensor, wavelet: str, mode: str) -> Tensor:
    lh, hl, hh = (detail * 0.5).unbind(2)
    low = low * 0.5
    sums = torch.stack((low + hl, low - hl), dim=-1).flatten(-2)
    diffs = torch.stack((lh + hh, lh - hh), dim=-1).flatten(-2)
    return torch.stack((sums + diffs, sums - diffs), dim=-2).flatten(-3, -2)


# The other wavelets. One level of PyWavelets' analysis is y[k] = sum_m h[m] x[2k + 1 - m] ('periodization' reads from
# 2k + taps/2 instead), where x continues past the border; the library's zero mode is that sum with zeros outside.
def _analysis(x: Tensor, wavelet: str, mode: str) -> tuple[Tensor, Tensor]:
    taps = _wavelet(wavelet).dec_len
    if mode == 'zero':
        return _filter('AFB2D', wavelet, x)
    if mode == 'periodization':
        x = _pad_even(x, mode)
        height, width = (n // 2 for n in x.shape[-2:])
        low, detail = _filter('AFB2D', wavelet, _continue(x, taps // 2 - 1, mode))
    else:
        height, width = ((n + taps - 1) // 2 for n in x.shape[-2:])
        low, detail = _filter('AFB2D', wavelet, _continue(x, taps - 2, mode))
    # Either way the first taps/2 - 1 results saw the zeros before the continuation.
    window = (..., slice(taps // 2 - 1, taps // 2 - 1 + height), slice(taps // 2 - 1, taps // 2 - 1 + width))
    return low[window], detail[window]


def _synthesis(low: Tensor, detail: Tensor, wavelet: str, mode: str) -> Tensor:
    if detail.requires_grad and not low.requires_grad:
        low = low.detach().requires_grad_()  # SFB2D.backward forgets the details' gradient unless low needs one
    if mode != 'periodization':  # a border's continuation is an affair of the analysis: both modes invert alike
        return _filter('SFB2D', wavelet, low, detail)
    taps = _wavelet(wavelet).rec_len
    around, (height, width) = taps // 4, low.shape[-2:]
    x = _filter('SFB2D', wavelet, _continue(low, around, mode), _continue(detail, around, mode))
    start = 2 * around + 1 - taps // 2
    return x[..., start:start + 2 * height, start:start + 2 * width]


def _filter(function: str, wavelet: str, *inputs: Tensor):
    """Run pytorch_wavelets' AFB2D (analysis) or SFB2D (synthesis) in zero mode, in float32 at least."""
    dtype, device = inputs[0].dtype, inputs[0].device
    work = torch.promote_types(dtype, torch.float32)
    low, high = _taps(wavelet, function == 'SFB2D', device, work)
    with torch.autocast(device.type, enabled=False):
        out = getattr(_library(), function).apply(*(x.to(work) for x in inputs), low, high, low, high, _ZERO)
    return tuple(band.to(dtype) for band in out) if isinstance(out, tuple) else out.to(dtype)


def _continue(x: Tensor, by: int, mode: str) -> Tensor:
    """Continue the last two dimensions by ``by`` samples on both sides (an odd side by one more, at its end)."""
    for dim in (-2, -1):
        x = x.index_select(dim, _positions(x.shape[dim], by, mode, x.device))
    return x


@lru_cache(maxsize=None)
def _library():
    with warnings.catch_warnings():  # its __init__ imports the deprecated pkg_resources
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        from pytorch_wavelets.dwt import lowlevel
    return lowlevel


# The cached tensors are saved for backward, which a tensor born in inference mode cannot be.
@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _positions(n: int, by: int, mode: str, device: torch.device) -> Tensor:
    i = torch.arange(-by, n + by + n % 2, device=device)
    if mode == 'periodization':
        return i.remainder(n)
    i = i.remainder(2 * n)  # symmetric: ... b a | a b c | c b ...
    return torch.minimum(i, 2 * n - 1 - i)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _taps(wavelet: str, synthesis: bool, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Not the library's module: it rounds the filters to the default dtype, which costs float64 half its digits.
    w = _wavelet(wavelet)
    filters = (w.rec_lo, w.rec_hi) if synthesis else (w.dec_lo[::-1], w.dec_hi[::-1])
    return tuple(torch.tensor(taps, dtype=dtype, device=device) for taps in filters)


@lru_cache(maxsize=None)
def _wavelet(name: str) -> pywt.Wavelet:
    import pywt
    names = pywt.wavelist(kind='discrete')
    if name not in names:
        raise ValueError(f'unknown wavelet {name!r}, nearest: {nearest(str(name), names)}; possible: '
                         "all of pywt.wavelist(kind='discrete')")
    return pywt.Wavelet(name)
