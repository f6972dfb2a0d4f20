"""Two-dimensional discrete wavelet transform (DWT) of feature maps, with PyWavelets' conventions and right gradients.

SFKD (arXiv 2607.01906, step 4 of docs/method.md) splits a map into a broad band and details; which wavelet, and the
padding, are ours to choose. Haar is the default, and beyond its border a map is zero: an orthogonal wavelet then keeps
the energy at every size.

Two paths:

* Haar is a butterfly of sums and differences, with the transposed butterfly as its gradient (:mod:`.haar`): fastest,
  right at every size.
* Any other wavelet is filtered by pytorch_wavelets, whose gradients are right with zeros beyond the border, at all
  sizes, by gradcheck of its 1.3.0 (in symmetric and reflect mode they are wrong, periodic ones right at some sizes).
  Convolutions of our own were slower.
"""
from __future__ import annotations

import warnings
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import nearest
from .haar import HaarAnalysis, HaarSynthesis

if TYPE_CHECKING:
    import pywt

HAAR = ('haar', 'db1')


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


def dwt2(x: Tensor, levels: int = 1, wavelet: str = 'haar') -> Bands:
    """Decompose a map over ``levels`` scales: ``pywt.wavedec2`` in mode 'zero', with the levels in the opposite order.

    Args:
        x: (N, C, H, W), floating point. The bands keep its dtype, under autocast too: half precision is added in place
            by Haar, and filtered in float32 and cast back by the other wavelets.
        levels: 0 to :func:`max_levels`; 0 leaves the map as the low band, without details, as PyWavelets does.
        wavelet: a discrete wavelet of PyWavelets, orthogonal or biorthogonal ('haar', 'db2', 'bior2.2', ...).
            An orthogonal one keeps the energy (:func:`is_isometric`).

    Raises:
        ValueError: x is not (N, C, H, W); unknown wavelet; levels out of range for the grid.
    """
    if x.dim() != 4:
        raise ValueError(f'dwt2 takes a map (N, C, H, W), got shape {tuple(x.shape)}')
    allowed = max_levels(x.shape[-2:], wavelet)
    if not 0 <= levels <= allowed:
        raise ValueError(f'levels={levels} on a grid of {x.shape[-2]}x{x.shape[-1]}: {wavelet!r} allows 0 to '
                         f'{allowed} there')
    if levels and _in_place(wavelet):
        low, *details = HaarAnalysis.apply(x, levels)
        return Bands(low, tuple(details))
    analyse = _haar_analysis if wavelet in HAAR else _analysis
    details = []
    for _ in range(levels):
        x, detail = analyse(x, wavelet)
        details.append(detail)
    return Bands(x, tuple(details))


def idwt2(bands: Bands, wavelet: str = 'haar', size: tuple[int, int] | None = None) -> Tensor:
    """Invert :func:`dwt2` exactly (as exactly as the wavelet's filters allow: 'dmey' is an approximation).

    Args:
        bands: what dwt2 returned, of the same ``wavelet``.
        size: (H, W) of the map that was decomposed. Without it an odd side comes back one longer, padding included.

    Returns:
        (N, C, H, W), in the bands' dtype.

    Raises:
        ValueError: unknown wavelet; ``size`` is not one that these bands can come from.
    """
    if bands.details and _in_place(wavelet):
        full = tuple(2 * n for n in bands.details[0].shape[-2:])
        return HaarSynthesis.apply(_checked(size, full), bands.low, *bands.details)
    synthesise = _haar_synthesis if wavelet in HAAR else _synthesis
    x = bands.low
    for detail in reversed(bands.details):
        h, w = detail.shape[-2:]
        x = synthesise(x[..., :h, :w], detail, wavelet)  # an odd finer level came back one too long
    height, width = _checked(size, tuple(x.shape[-2:]))
    return x[..., :height, :width]


def _checked(size: tuple[int, int] | None, full: tuple[int, int]) -> tuple[int, int]:
    """The map's size, where bands bring back a map of ``full``."""
    if size is None:
        return full
    if any(n not in (m, m - 1) for n, m in zip(size, full)):
        raise ValueError(f'size={tuple(size)} does not fit bands of a map of {full} (odd sides: one less)')
    return tuple(size)


def max_levels(size: tuple[int, int], wavelet: str = 'haar') -> int:
    """How many levels a grid allows: 0 where it allows none.

    A level needs both sides to be at least the filter's length (2 for Haar, 4 for 'db2'), and halves them, rounding up.
    That counts the grid itself, not the border samples that longer filters add to it.

    Raises:
        ValueError: unknown wavelet.
    """
    taps = 2 if wavelet in HAAR else _wavelet(wavelet).dec_len
    height, width = size
    levels = 0
    while min(height, width) >= taps:
        height, width, levels = (height + 1) // 2, (width + 1) // 2, levels + 1
    return levels


def is_isometric(wavelet: str) -> bool:
    """Whether :func:`dwt2` keeps sums of squares and inner products, at every size and level: as an
    orthogonal wavelet does.

    Raises:
        ValueError: unknown wavelet.
    """
    return wavelet in HAAR or _wavelet(wavelet).orthogonal and wavelet != 'dmey'  # dmey's filters are an approximation


# Haar in plain operations, which a compiler fuses into one kernel each way. unflatten and unbind rather than x[...,
# ::2]: the gradient of unbind is one stack, that of each slice a zero-filled copy of the whole map. Halving first keeps
# float16 from overflowing.
def _haar_analysis(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    height, width = x.shape[-2:]
    even = F.pad(x, (0, width % 2, 0, height % 2)) if height % 2 or width % 2 else x
    top, bottom = (even * 0.5).unflatten(-2, (-1, 2)).unbind(-2)
    sum_left, sum_right = (top + bottom).unflatten(-1, (-1, 2)).unbind(-1)
    diff_left, diff_right = (top - bottom).unflatten(-1, (-1, 2)).unbind(-1)
    detail = torch.stack((diff_left + diff_right, sum_left - sum_right, diff_left - diff_right), dim=2)
    return sum_left + sum_right, detail


def _haar_synthesis(low: Tensor, detail: Tensor, wavelet: str) -> Tensor:
    lh, hl, hh = (detail * 0.5).unbind(2)
    low = low * 0.5
    sums = torch.stack((low + hl, low - hl), dim=-1).flatten(-2)
    diffs = torch.stack((lh + hh, lh - hh), dim=-1).flatten(-2)
    return torch.stack((sums + diffs, sums - diffs), dim=-2).flatten(-3, -2)


def _in_place(wavelet: str) -> bool:
    """Whether Haar runs as :mod:`.haar` has it: autograd's gradient of plain operations takes two to three times as
    long, unless compiled.
    """
    return wavelet in HAAR and not torch.compiler.is_compiling()


# The other wavelets.
def _analysis(x: Tensor, wavelet: str) -> tuple[Tensor, Tensor]:
    return _filter('AFB2D', wavelet, x)


def _synthesis(low: Tensor, detail: Tensor, wavelet: str) -> Tensor:
    if detail.requires_grad and not low.requires_grad:
        low = low.detach().requires_grad_()  # SFB2D.backward forgets the details' gradient unless low needs one
    return _filter('SFB2D', wavelet, low, detail)


def _filter(function: str, wavelet: str, *inputs: Tensor):
    """Run pytorch_wavelets' AFB2D (analysis) or SFB2D (synthesis), in float32 at least."""
    library = _library()
    dtype, device = inputs[0].dtype, inputs[0].device
    work = torch.promote_types(dtype, torch.float32)
    low, high = _taps(wavelet, function == 'SFB2D', device, work)
    with torch.autocast(device.type, enabled=False):
        out = getattr(library, function).apply(*(x.to(work) for x in inputs), low, high, low, high,
                                               library.mode_to_int('zero'))
    return tuple(band.to(dtype) for band in out) if isinstance(out, tuple) else out.to(dtype)


@cache
def _library():
    with warnings.catch_warnings():  # its __init__ imports the deprecated pkg_resources
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        from pytorch_wavelets.dwt import lowlevel
    return lowlevel


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # saved for backward later, which a tensor born in inference mode cannot be
def _taps(wavelet: str, synthesis: bool, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Not the library's module: it rounds the filters to the default dtype, which costs float64 half its digits.
    w = _wavelet(wavelet)
    filters = (w.rec_lo, w.rec_hi) if synthesis else (w.dec_lo[::-1], w.dec_hi[::-1])
    return tuple(torch.tensor(taps, dtype=dtype, device=device) for taps in filters)


@cache
def _wavelet(name: str) -> pywt.Wavelet:
    import pywt
    names = pywt.wavelist(kind='discrete')
    if name not in names:
        raise ValueError(f'unknown wavelet {name!r}, nearest: {nearest(str(name), names)}; possible: '
                         "all of pywt.wavelist(kind='discrete')")
    return pywt.Wavelet(name)
