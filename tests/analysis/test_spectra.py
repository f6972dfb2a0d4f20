"""Energies by band and by frequency: Parseval, and maps whose spectrum is known."""
import math

import pytest
import torch

from sfkd.analysis.spectra import band_energies, gaussian_gain, radial_spectrum
from sfkd.ops import gaussian_frequency_loss


@pytest.mark.parametrize('size, levels, wavelet', [((8, 8), 2, 'haar'), ((7, 10), 2, 'haar'), ((16, 12), 1, 'db2')])
def test_bands_sum_to_the_mean_square(size, levels, wavelet):
    maps = torch.randn(3, 4, *size)
    energies = band_energies(maps, levels, wavelet)
    assert sum(energies.values()) == pytest.approx(float(maps.square().mean()), rel=1e-6)
    assert list(energies)[:4] == [f'LL{levels}', 'LH1', 'HL1', 'HH1'] and len(energies) == 1 + 3 * levels


def test_each_band_holds_its_own_pattern():
    """Haar by hand: a constant is low; signs that alternate along the height LH1, along both HH1, in pairs along the
    width HL2.
    """
    sign = torch.tensor([1., -1.] * 4)
    pairs = torch.tensor([1., 1., -1., -1.] * 2)
    ones = torch.ones(8)
    for (rows, columns), band in {(ones, ones): 'LL2', (sign, ones): 'LH1', (sign, sign): 'HH1',
                                  (ones, pairs): 'HL2'}.items():
        energies = band_energies((rows[:, None] * columns * 3)[None, None], 2)
        assert energies.pop(band) == pytest.approx(9) and max(energies.values()) < 1e-12


@pytest.mark.parametrize('size', [(16, 16), (12, 15)])
def test_rings_hold_all_the_energy(size):
    maps = torch.randn(2, 3, *size)
    for rings in (None, 5):
        radius, power, count = radial_spectrum(maps, rings)
        assert int(count.sum()) == math.prod(size) and (radius.diff() > 0).all()
        assert float((power * count).sum()) == pytest.approx(float(maps.square().sum((2, 3)).mean()), rel=1e-6)


def test_a_cosine_is_in_the_ring_of_its_frequency():
    """Amplitude 2, 3 periods over 16 cells along the width: sum of squares 16 * 16 * 2^2 / 2, at radius 3 / 8."""
    wave = 2 * torch.cos(2 * math.pi * 3 * torch.arange(16) / 16).expand(1, 1, 16, 16)
    radius, power, count = radial_spectrum(wave)
    energy = power * count
    ring = int(energy.argmax())
    assert float(energy[ring]) == pytest.approx(512, rel=1e-6) and float(energy.sum()) == pytest.approx(512, rel=1e-6)
    assert abs(float(radius[ring]) - 3 / 8) < 1 / 16


def test_the_gain_is_that_of_the_loss():
    """A wave of one frequency, which rounding into rings does not touch: its GFFL is its mean square times the gain."""
    wave = torch.cos(2 * math.pi * 4 * torch.arange(16) / 16)[:, None].expand(1, 1, 16, 16)
    for sigma in (0.25, 0.5):
        left = gaussian_frequency_loss(wave, torch.zeros_like(wave), sigma) / wave.square().mean()
        assert float(gaussian_gain(torch.tensor(4 / 8), sigma)) == pytest.approx(float(left), rel=1e-5)
