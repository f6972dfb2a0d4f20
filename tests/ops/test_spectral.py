"""GFFL by two real products against its definition by a complex FFT, and against values worked out by hand."""
import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from sfkd.ops import spectral
from sfkd.ops.spectral import _transfer, gaussian_frequency_loss, gaussian_frequency_loss_fft, gaussian_transfer

# tiny, plain, with long sides
SIZES = ((8, 8), (7, 7), (4, 9), (6, 11), (15, 12), (1, 5), (1, 1), (52, 13), (13, 48), (48, 50))


def random_pair(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(*shape, dtype=dtype, generator=generator) for _ in range(2))


@pytest.mark.parametrize('sigma', (0.1, 0.5, 1, 3.0, None, math.inf))
@pytest.mark.parametrize('size', SIZES)
def test_equals_its_definition_and_so_does_its_gradient(size, sigma):
    student, teacher = random_pair(2, 3, *size)
    student.requires_grad_()
    losses = [loss(student, teacher, sigma) for loss in (gaussian_frequency_loss, gaussian_frequency_loss_fft)]
    gradients = [torch.autograd.grad(loss, student)[0] for loss in losses]
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize('sigma', (None, math.inf, 1e9))
def test_without_a_filter_it_is_the_mean_squared_error(sigma):
    student, teacher = random_pair(2, 3, 9, 10)
    loss = gaussian_frequency_loss(student, teacher, sigma)
    torch.testing.assert_close(loss, F.mse_loss(student, teacher), rtol=1e-12, atol=0)


def test_two_by_two_by_hand():
    # Orthonormal spectrum of [[a, b], [c, d]]: sums and differences over 2; the gain at u = -1, sigma = 0.5, n = 2 is
    # exp(-(1 / 0.5)^2 / 2) = exp(-2) an axis.
    difference = torch.tensor([[1., 2.], [4., 8.]], dtype=torch.float64)
    expected = (7.5**2 + math.exp(-4) * (2.5**2 + 4.5**2) + math.exp(-8) * 1.5**2) / 4
    loss = gaussian_frequency_loss(difference, torch.zeros_like(difference), 0.5)
    assert loss.item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize('u, gain', ((0, 1.0), (2, math.exp(-0.125)), (4, math.exp(-0.5)), (-4, math.exp(-0.5))))
def test_one_wave_is_scaled_by_its_gain(u, gain):
    # n = 16, sigma = 0.5: sigma n/2 = 4 is where the gain falls to exp(-1/2).
    wave = torch.cos(2 * math.pi * u * torch.arange(16, dtype=torch.float64) / 16)
    torch.testing.assert_close(gaussian_transfer(16, 0.5, dtype=torch.float64) @ wave, gain * wave, rtol=0, atol=1e-14)


@pytest.mark.parametrize('n', (1, 2, 7, 8))
def test_transfer_is_symmetric_cached_and_an_average(n):
    transfer = gaussian_transfer(n, 0.5)
    assert transfer.shape == (n, n) and transfer.dtype == torch.float32
    assert torch.equal(transfer, transfer.T)
    torch.testing.assert_close(transfer.sum(1), torch.ones(n))  # g(0) = 1
    assert gaussian_transfer(n, 0.5, 'cpu', torch.float32) is transfer
    assert gaussian_transfer(n, 0.25) is not transfer
    torch.testing.assert_close(gaussian_transfer(n, None), torch.eye(n))


@pytest.mark.parametrize('size', ((3, 4), (9, 8), (2, 50)))
def test_gradients(size):
    student, teacher = (x.requires_grad_() for x in random_pair(1, 1, *size))
    assert gradcheck(gaussian_frequency_loss, (student, teacher))
    assert gradgradcheck(gaussian_frequency_loss, (student, teacher))


def test_runs_of_planes_are_one_mean(monkeypatch):
    student, teacher = (x.permute(0, 1, 3, 2) for x in random_pair(5, 3, 50, 11))
    whole = gaussian_frequency_loss(student, teacher)
    monkeypatch.setattr(spectral, '_CACHED_CELLS', 4 * 50 * 11)  # 15 planes in runs of 4
    torch.testing.assert_close(gaussian_frequency_loss(student, teacher), whole, rtol=1e-13, atol=0)


@pytest.mark.filterwarnings('ignore:Dynamo detected a call to a `functools.lru_cache`')
def test_compiles_to_one_graph():
    student, teacher = random_pair(2, 3, 14, 50)
    compiled = torch.compile(gaussian_frequency_loss, backend='eager', fullgraph=True)
    torch.testing.assert_close(compiled(student, teacher), gaussian_frequency_loss(student, teacher))


@pytest.mark.parametrize('size', ((7, 7), (14, 13)))
def test_low_precision_is_computed_in_float32(size):
    student, teacher = random_pair(2, 3, *size, dtype=torch.float32)
    exact = gaussian_frequency_loss(student, teacher)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = gaussian_frequency_loss(student, teacher)
        mixed = gaussian_frequency_loss(student.bfloat16(), teacher)
    assert loss.dtype == mixed.dtype == torch.float32
    assert torch.equal(loss, exact)
    torch.testing.assert_close(mixed, exact, rtol=1e-2, atol=0)
    assert torch.equal(gaussian_frequency_loss(student.half(), teacher.half()),
                       gaussian_frequency_loss(student.half().float(), teacher.half().float()))


def test_float32_keeps_its_digits_over_a_large_batch():
    # the filter keeps a constant; one running sum over all cells loses 9e-4
    student = torch.full((32, 96, 56, 56), 0.1)
    assert gaussian_frequency_loss(student, torch.zeros_like(student)).item() == pytest.approx(0.01, rel=1e-6)


def test_a_matrix_made_in_inference_mode_does_not_break_training():
    student, teacher = random_pair(1, 1, 17, 19)
    _transfer.cache_clear()
    with torch.inference_mode():
        gaussian_frequency_loss(student, teacher, 0.7)
    gaussian_frequency_loss(student.requires_grad_(), teacher, 0.7).backward()
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize('loss', (gaussian_frequency_loss, gaussian_frequency_loss_fft))
def test_errors(loss):
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match=r'\(1, 1, 4, 4\) and \(1, 1, 4, 5\)'):
        loss(x, torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r'\(1, 1, 4, 4\) and \(4, 4\)'):  # no silent broadcast
        loss(x, x[0, 0])
    for sigma in (0, -0.5, math.nan):
        with pytest.raises(ValueError, match='sigma must be positive'):
            loss(x, x, sigma)
