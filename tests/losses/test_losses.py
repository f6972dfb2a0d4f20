"""Losses against hand-computed numbers and slow float64 definitions."""
import math

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F

from sfkd.connectors import Decomposed
from sfkd.losses import BandInfoNCE, BandMSE, GaussianFrequencyLoss, KLDivergence
from sfkd.ops import Bands, dwt2


def randn(*shape, seed=0, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **kwargs)


def decomposed(x, levels=2):
    return Decomposed(x, dwt2(x, levels))


def two_sides(*shape, dtype=torch.float64, requires_grad=False):
    x = randn(*shape, dtype=dtype, requires_grad=requires_grad)
    return decomposed(x), decomposed(randn(*shape, seed=1, dtype=dtype))


# ---- bands ----

@pytest.mark.parametrize('shape', [(2, 3, 8, 8), (2, 3, 7, 7), (3, 2, 5, 12)])
def test_band_mse_balanced_by_gain_is_mse_of_the_maps(shape):
    s, t = two_sides(*shape)
    torch.testing.assert_close(BandMSE()(s, t), F.mse_loss(s.map, t.map), rtol=1e-12, atol=0)


@pytest.mark.parametrize('shape', [(2, 3, 8, 8), (2, 3, 7, 7)])
def test_band_mse_unbalanced_is_the_sum_of_the_bands_means(shape):
    s, t = two_sides(*shape)
    low, *details = pywt.wavedec2((s.map - t.map).numpy(), 'haar', 'zero', 2)
    expected = np.square(low).mean() + sum(np.square(band).mean() for level in details for band in level)
    assert BandMSE('none')(s, t).item() == pytest.approx(expected, rel=1e-12)


def test_band_mse_by_hand():
    s = Decomposed(torch.zeros(1, 1, 2, 2),
                   Bands(torch.tensor([[[[3.]]]]), (torch.tensor([1., 2., 0.]).view(1, 1, 3, 1, 1), )))
    t = decomposed(torch.zeros(1, 1, 2, 2), 1)
    assert BandMSE('none')(s, t).item() == 9 + 1 + 4 + 0
    assert BandMSE()(s, t).item() == 14 / 4


def test_band_infonce_by_hand_for_two_pictures():
    def side(low):
        return Decomposed(torch.zeros(2, 2, 2, 2),
                          Bands(torch.tensor(low).view(2, 2, 1, 1), (torch.zeros(2, 2, 3, 1, 1), )))
    student, teacher = side([[3., 0.], [0., 2.]]), side([[5., 0.], [.6, .8]])  # cosines: 1 and .6; 0 and .8
    low = (math.log(1 + math.exp((.6 - 1) / .5)) + math.log(1 + math.exp((0 - .8) / .5))) / 2
    empty = math.log(2)  # three detail bands that tell nothing
    assert BandInfoNCE(temperature=.5)(student, teacher).item() == pytest.approx((low + 3 * empty) / 4, rel=1e-5)


# ---- frequencies ----

def gffl_by_definition(s, t, sigma):
    difference = (s - t).numpy()
    h, w = difference.shape[-2:]
    spectrum, total = np.fft.fft2(difference, norm='ortho'), 0
    for i in range(h):
        for j in range(w):
            u, v = (i if i <= (h - 1) / 2 else i - h), (j if j <= (w - 1) / 2 else j - w)
            gain = math.exp(-(u / (sigma * h / 2))**2 / 2) * math.exp(-(v / (sigma * w / 2))**2 / 2)
            total += (np.abs(gain * spectrum[..., i, j])**2).sum()
    return total / difference.size


@pytest.mark.parametrize('shape', [(2, 3, 8, 8), (2, 3, 7, 9)])
@pytest.mark.parametrize('sigma', (0.25, 0.5))
def test_gffl_is_its_definition(shape, sigma):
    s, t = two_sides(*shape)
    expected = gffl_by_definition(s.map, t.map, sigma)
    assert GaussianFrequencyLoss(sigma)(s, t).item() == pytest.approx(expected, rel=1e-10)
    assert GaussianFrequencyLoss(sigma)(s.map, t.map).item() == pytest.approx(expected, rel=1e-10)


def test_gffl_without_filter_is_mse():
    s, t = two_sides(2, 3, 7, 8)
    torch.testing.assert_close(GaussianFrequencyLoss(None)(s, t), F.mse_loss(s.map, t.map), rtol=1e-12, atol=0)


# ---- logits ----

def test_kl_by_hand_for_two_classes():
    student, teacher = torch.tensor([[0., 0.]]), torch.tensor([[math.log(3.), 0.]])  # 1/2 1/2 against 3/4 1/4
    assert KLDivergence()(student, teacher).item() == pytest.approx(.75 * math.log(1.5) + .25 * math.log(.5), rel=1e-6)
    # At T = 2 the teacher's odds are sqrt(3) : 1
    p = math.sqrt(3) / (1 + math.sqrt(3))
    expected = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 - 2 * p))
    assert KLDivergence(2)(student, teacher).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('temperature', (1.0, 4.0))
def test_kl_equals_torch_in_float64(temperature):
    s, t = 5 * randn(6, 10), 5 * randn(6, 10, seed=1)
    p, q = (F.softmax(x.double() / temperature, 1) for x in (s, t))
    expected = temperature**2 * F.kl_div(p.log(), q, reduction='sum') / 6
    assert KLDivergence(temperature)(s, t).item() == pytest.approx(expected.item(), rel=1e-5)


def test_kl_gradient_keeps_its_size_at_any_temperature():
    """What T^2 is for (Hinton et al., section 2.1): for small logits the gradient tends to (s - t) / (classes * N)."""
    s, t = (1e-2 * (x - x.mean(1, keepdim=True)) for x in (randn(3, 4), randn(3, 4, seed=1)))
    for temperature in (1., 8.):
        gradient, = torch.autograd.grad(KLDivergence(temperature)(s.requires_grad_(), t), s)
        torch.testing.assert_close(gradient, (s - t).detach() / 12, rtol=0.05, atol=1e-5)


# ---- all of them ----

@pytest.mark.parametrize('loss', [BandMSE(), BandMSE('none'), GaussianFrequencyLoss(), BandInfoNCE()],
                         ids=repr)
def test_gradients(loss):
    t = decomposed(randn(2, 2, 5, 4, seed=1, dtype=torch.float64))
    x = randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    if isinstance(loss, BandInfoNCE):  # computes in float32
        gradient, = torch.autograd.grad(loss(decomposed(x), t), x)
        direction, step = randn(*x.shape, seed=2, dtype=torch.float64), 1e-2
        slope = (loss(decomposed(x + step * direction), t) - loss(decomposed(x - step * direction), t)) / (2 * step)
        assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-2)
    else:
        assert torch.autograd.gradcheck(lambda x: loss(decomposed(x), t), x)


@pytest.mark.parametrize('loss', [BandMSE(), BandMSE('none'), GaussianFrequencyLoss(), BandInfoNCE(),
                                  KLDivergence(2)], ids=repr)
def test_bf16_autocast_gives_finite_float32(loss):
    s, t = two_sides(2, 3, 7, 7, dtype=torch.float32, requires_grad=True)
    if isinstance(loss, KLDivergence):
        s, t = randn(2, 9, requires_grad=True), 100 * randn(2, 9, seed=1)
    exact = loss(s, t)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = loss(s, t)
    assert rounded.dtype == torch.float32 and rounded.dim() == 0
    torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=0)
    if isinstance(loss, KLDivergence):
        assert loss(s.bfloat16(), t.bfloat16()).dtype == torch.float32


def test_an_unknown_balance_is_refused():
    with pytest.raises(ValueError, match='must be'):
        BandMSE('level')
