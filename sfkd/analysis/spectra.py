"""Where the energy of feature maps lies: by wavelet band, and by spatial frequency."""
from __future__ import annotations

import torch
from torch import Tensor

from ..ops import Bands, dwt2


def band_names(levels: int) -> list[str]:
    """Of the bands in the order of :meth:`~sfkd.ops.dwt.Bands.each`: 'LL2', 'LH1', 'HL1', 'HH1', 'LH2', ..."""
    return [f'LL{levels}', *(f'{kind}{j}' for j in range(1, levels + 1) for kind in ('LH', 'HL', 'HH'))]


def band_energies(maps: Tensor, levels: int, wavelet: str = 'haar') -> dict[str, float]:
    """What each band adds to the mean square of a map.

    Args:
        maps: (N, C, h, w).
        levels, wavelet: see :func:`~sfkd.ops.dwt2`.

    Returns:
        dict: ``{band: its sum of squares / number of the map's cells}``; with an orthogonal wavelet they sum to the
        map's mean square (Parseval), which is 1 for standardised maps.
    """
    bands: Bands = dwt2(maps.double(), levels, wavelet)
    return {name: float(band.square().sum() / maps.numel()) for name, band in zip(band_names(levels), bands.each())}


def radial_spectrum(maps: Tensor, rings: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """The power spectrum of maps, averaged over pictures, channels and directions.

    Args:
        maps: (N, C, h, w).
        rings: how many, of the same width; None for one a frequency of the longer side, up to Nyquist's corner.

    Returns:
        tuple: of each ring that has a frequency, (r,) each: the mean radius of its frequencies, 1 at Nyquist of either
        side and sqrt(2) in the corner; the mean of |FFT2|^2 (orthonormal) over them; how many they are. So
        ``(power * count).sum()`` is the mean over pictures and channels of the map's sum of squares.
    """
    height, width = maps.shape[-2:]
    power = torch.fft.fft2(maps.double(), norm='ortho').abs().square().flatten(0, -3).mean(0).flatten()
    v, u = (torch.fft.fftfreq(n, dtype=torch.float64) * 2 for n in (height, width))
    radius = (v[:, None].square() + u.square()).sqrt().flatten()
    step = 2 / max(height, width) if rings is None else 2**0.5 / rings
    ring = (radius / step).round().long()
    count = torch.bincount(ring)
    there = count > 0
    mean = [torch.bincount(ring, x.to(radius))[there] / count[there] for x in (radius, power.cpu())]
    return mean[0], mean[1], count[there]


def gaussian_gain(radius: Tensor, sigma: float) -> Tensor:
    """What the Gaussian of the GFFL leaves of the power at a frequency, ``g(u)^2 g(v)^2 = exp(-(radius / sigma)^2)``.

    Args:
        radius: relative to Nyquist, as :func:`radial_spectrum` gives it.
        sigma: of the Gaussian, relative to Nyquist (docs/method.md).
    """
    return torch.exp(-(radius / sigma).square())
