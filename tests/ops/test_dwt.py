"""The DWT against PyWavelets (values) and finite differences (gradients)."""
import itertools

import numpy as np
import pytest
import pywt
import torch
from torch.autograd import gradcheck, gradgradcheck

from sfkd.ops import haar
from sfkd.ops.dwt import Bands, _taps, dwt2, idwt2, is_isometric, max_levels
from sfkd.ops.loops import compiled

WAVELETS = ('haar', 'db2', 'bior2.2')
SIZES = ((8, 8), (7, 7), (8, 7), (5, 12))


def random_map(*shape, dtype=torch.float64, **kwargs):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0), **kwargs)


def energy(bands):
    return bands.low.square().sum() + sum(d.square().sum() for d in bands.details)


def assert_equals_pywt(bands, x, wavelet, atol):
    low, *details = pywt.wavedec2(x.numpy(), wavelet, 'zero', len(bands.details))
    np.testing.assert_allclose(bands.low.numpy(), low, rtol=0, atol=atol)
    for ours, theirs in zip(bands.details, reversed(details), strict=True):
        np.testing.assert_allclose(ours.numpy(), np.stack(theirs, axis=2), rtol=0, atol=atol)


def test_haar_of_one_block_by_hand():
    bands = dwt2(torch.tensor([[[[1., 2.], [4., 8.]]]]))
    assert bands.low.item() == 7.5
    assert bands.details[0].flatten().tolist() == [-4.5, -2.5, 1.5]  # (cH, cV, cD)


@pytest.mark.filterwarnings('ignore:Level value')  # pywt on maps that it finds small
@pytest.mark.parametrize('wavelet', (*WAVELETS, 'db1', 'db4', 'sym4', 'coif1', 'bior1.3', 'rbio3.1'))
def test_equals_pywavelets_and_inverts_at_all_sizes_and_levels(wavelet):
    for size in (*SIZES, (2, 3), (16, 16), (33, 21)):
        x = random_map(2, 3, *size)
        for levels in range(1, max_levels(size, wavelet) + 1):
            bands = dwt2(x, levels, wavelet)
            assert_equals_pywt(bands, x, wavelet, atol=1e-12)
            torch.testing.assert_close(idwt2(bands, wavelet, size), x, rtol=0, atol=1e-10)


def test_haar_in_float32_equals_pywavelets():
    x = random_map(2, 3, 15, 14, dtype=torch.float32)
    assert_equals_pywt(dwt2(x, 3), x, 'haar', atol=1e-6)


@pytest.mark.filterwarnings('ignore:pkg_resources is deprecated')
@pytest.mark.parametrize('size', SIZES)
def test_haar_equals_pytorch_wavelets(size):
    from pytorch_wavelets import DWTForward
    x = random_map(2, 3, *size, dtype=torch.float32)
    low, details = DWTForward(J=2, wave='haar', mode='zero')(x)
    bands = dwt2(x, 2)
    torch.testing.assert_close(bands.low, low, rtol=0, atol=2e-6)
    for ours, theirs in zip(bands.details, details, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize('size', SIZES)
def test_haar_keeps_the_energy_at_all_sizes(size):
    x = random_map(2, 3, *size)
    torch.testing.assert_close(energy(dwt2(x, max_levels(size))), x.square().sum(), rtol=1e-13, atol=0)


@pytest.mark.parametrize('wavelet', ('haar', 'db2', 'sym4', 'coif1', 'bior2.2', 'dmey'))
def test_isometric_wavelets_keep_the_energy_at_all_sizes(wavelet):
    x = random_map(1, 2, 63, 70)
    kept = energy(dwt2(x, max_levels(x.shape[2:], wavelet), wavelet)) / x.square().sum()
    assert is_isometric(wavelet) == (abs(kept - 1) < 1e-9)  # PyWavelets tabulates its filters to about 1e-11


@pytest.mark.parametrize('wavelet, size', list(itertools.product(WAVELETS, SIZES[:3])))
def test_gradients(wavelet, size):
    x = random_map(1, 1, *size, requires_grad=True)

    def analyse(x):
        bands = dwt2(x, min(2, max_levels(size, wavelet)), wavelet)
        return bands.low, *bands.details

    def synthesise(low, *details):
        return idwt2(Bands(low, details), wavelet, size)

    bands = [band.detach().requires_grad_() for band in analyse(x)]
    assert gradcheck(analyse, x)
    assert gradcheck(synthesise, bands)
    # A frozen low band once lost the details their gradient in pytorch_wavelets.
    assert gradcheck(synthesise, (bands[0].detach(), *bands[1:]))


@pytest.mark.parametrize('wavelet', ('haar', 'db2'))
def test_second_gradients(wavelet):
    def cubed(x):
        low, details = dwt2(x, 1, wavelet)
        return idwt2(Bands(low**2, tuple(d**3 for d in details)), wavelet, (5, 4))

    assert gradgradcheck(cubed, random_map(1, 1, 5, 4, requires_grad=True))


@pytest.mark.parametrize('wavelet', ('haar', 'db2'))
def test_bands_made_in_inference_mode_first_do_not_break_training(wavelet):
    x = random_map(1, 1, 10, 11, dtype=torch.float32)
    _taps.cache_clear()
    with torch.inference_mode():
        dwt2(x, 1, wavelet)
    x.requires_grad_()
    dwt2(x, 1, wavelet).low.sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize('dtype', (torch.bfloat16, torch.float16))
@pytest.mark.parametrize('wavelet', WAVELETS)
def test_half_precision_keeps_its_dtype(wavelet, dtype):
    x = random_map(2, 3, 7, 8).to(dtype).requires_grad_()
    bands = dwt2(x, 1, wavelet)
    again = idwt2(bands, wavelet, (7, 8))
    again.float().sum().backward()
    assert {bands.low.dtype, bands.details[0].dtype, again.dtype, x.grad.dtype} == {dtype}
    eps = torch.finfo(dtype).eps
    exact = dwt2(x.detach().double(), 1, wavelet)
    torch.testing.assert_close(bands.low.double(), exact.low, rtol=4 * eps, atol=8 * eps)
    torch.testing.assert_close(bands.details[0].double(), exact.details[0], rtol=4 * eps, atol=8 * eps)


@pytest.mark.parametrize('wavelet', ('haar', 'db2'))
def test_autocast_changes_nothing(wavelet):
    x = random_map(2, 3, 7, 8, dtype=torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        bands = dwt2(x, 1, wavelet)
        again = idwt2(bands, wavelet, size=(7, 8))
    assert bands.low.dtype == torch.float32
    assert torch.equal(bands.details[0], dwt2(x, 1, wavelet).details[0])
    torch.testing.assert_close(again, x, rtol=0, atol=1e-5)


@pytest.mark.parametrize('size', (*SIZES, (1, 1), (2, 1), (2, 8), (16, 31)))
def test_haars_loops_and_operations_agree(size):
    """CPUs run the loops, accelerators and half precision the operations."""
    x = random_map(3, *size)
    h, w = ((n + 1) // 2 for n in size)
    low, details, again = x.new_empty(3, h, w), x.new_empty(3, 3, h, w), torch.empty_like(x)
    haar._analyse(x, low, details)
    haar._synthesise(low, details, again)
    torch.testing.assert_close(again, x, rtol=0, atol=1e-14)
    few = [(haar._analyse_few, haar._synthesise_few)] if size[0] % 2 == size[1] % 2 == 0 else []
    for analyse, synthesise in (haar._analyse_loops, haar._synthesise_loops), *few:
        mine = tuple(torch.full_like(y, torch.nan) for y in (low, details, x))
        compiled(analyse)(x.numpy(), *(y.numpy() for y in mine[:2]))
        compiled(synthesise)(*(y.numpy() for y in mine))
        torch.testing.assert_close(mine, (low, details, again), rtol=0, atol=1e-14)


def test_haar_takes_maps_and_gradients_in_any_layout():
    x = random_map(2, 4, 7, 6, dtype=torch.float32)
    last = x.to(memory_format=torch.channels_last).requires_grad_()
    bands = dwt2(last, 2)
    for mine, plain in zip(bands.each(), dwt2(x, 2).each(), strict=True):
        assert torch.equal(mine, plain)
    gradient, = torch.autograd.grad(sum(band.sum() for band in bands.each()), last)  # of a sum: one number, expanded
    plain = [torch.ones(band.shape) for band in (bands.low, *bands.details)]
    torch.testing.assert_close(gradient, idwt2(Bands(plain[0], tuple(plain[1:])), size=(7, 6)))


def test_float16_does_not_overflow_before_its_bands_do():
    x = torch.full((1, 1, 2, 2), 3e4, dtype=torch.float16)
    assert dwt2(x).low.item() == torch.tensor(6e4, dtype=torch.float16).item()


@pytest.mark.parametrize('size, wavelet, levels', (
    ((7, 7), 'haar', 3), ((2, 2), 'haar', 1), ((1, 4), 'haar', 0), ((100, 167), 'haar', 7), ((3, 100), 'db1', 2),
    ((8, 8), 'db2', 2), ((7, 7), 'db2', 2), ((3, 3), 'db2', 0), ((6, 6), 'bior2.2', 1), ((5, 64), 'bior2.2', 0)))
def test_max_levels(size, wavelet, levels):
    assert max_levels(size, wavelet) == levels


def test_haar_compiles_to_one_graph():
    x = random_map(1, 2, 7, 8)
    compiled = torch.compile(lambda x: idwt2(dwt2(x, 2), size=(7, 8)), backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(x), x)


def test_without_a_size_the_padding_comes_back_too():
    x = random_map(1, 2, 5, 6)
    again = idwt2(dwt2(x, 2))
    assert again.shape == (1, 2, 6, 6)
    torch.testing.assert_close(again[..., :5, :], x)
    assert again[..., 5:, :].abs().max() < 1e-12


@pytest.mark.parametrize('wavelet', ['haar', 'db2', 'bior2.2'])
@pytest.mark.parametrize('size', [None, (5, 6)])
def test_no_levels_are_the_map_as_in_pywavelets(wavelet, size):
    x = random_map(1, 2, 5, 6)
    low, details = bands = dwt2(x, 0, wavelet)
    theirs, = pywt.wavedec2(x.numpy(), wavelet, level=0)
    assert low is x and details == () and torch.equal(low, torch.from_numpy(theirs))
    assert torch.equal(idwt2(bands, wavelet, size), x)


@pytest.mark.parametrize('kwargs, message', (
    (dict(wavelet='harr'), r"unknown wavelet 'harr', nearest: 'haar'.*wavelist"),
    (dict(wavelet='morl'), r"unknown wavelet 'morl'"),
    (dict(levels=-1), r"levels=-1 on a grid of 7x4: 'haar' allows 0 to 2"),
    (dict(levels=3), r"levels=3 on a grid of 7x4: 'haar' allows 0 to 2"),
    (dict(wavelet='db4'), r"levels=1 on a grid of 7x4: 'db4' allows 0 to 0")))
def test_errors_name_what_was_given_and_what_is_possible(kwargs, message):
    with pytest.raises(ValueError, match=message):
        dwt2(torch.zeros(1, 1, 7, 4), **kwargs)


def test_other_errors():
    with pytest.raises(ValueError, match=r'\(N, C, H, W\), got shape \(7, 4\)'):
        dwt2(torch.zeros(7, 4))
    with pytest.raises(ValueError, match=r'size=\(6, 4\) does not fit bands of a map of \(8, 4\)'):
        idwt2(dwt2(torch.zeros(1, 1, 7, 4)), size=(6, 4))
