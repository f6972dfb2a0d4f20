"""Feature losses of the peer methods against hand-computed numbers and slow float64 definitions, and the peers'
configs.
"""
import math
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
import torch.nn.functional as F
from mmengine.config import Config

from sfkd.connectors import (
    Align,
    Decomposed,
    WaveletConnector,
)
from sfkd.losses import (
    BandMSE,
    ChannelWiseDivergence,
    DetailL1,
    FeatureMSE,
)
from sfkd.ops import Bands, dwt2, standardise
from sfkd.registry import MODELS

PEERS = Path(__file__).parents[2] / 'configs' / 'peers'


def randn(*shape, seed=0, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **kwargs)


def two_sides(*shape, **kwargs):
    return randn(*shape, dtype=torch.float64, **kwargs), randn(*shape, seed=1, dtype=torch.float64)


def decomposed(x, levels=2):
    return Decomposed(x, dwt2(x, levels))


# ---- the connector without standardisation ----

def test_align_without_standardisation_by_hand():
    align = Align(2, 1, standardised=False)
    align.project.weight.data = torch.tensor([1., 2.]).view(1, 2, 1, 1)
    align.project.bias.data.fill_(10)
    student = torch.tensor([[[[1., 0.], [0., 0.]], [[0., 1.], [0., 0.]]]])
    teacher = torch.arange(16.).view(1, 1, 4, 4)
    student, teacher = align(student, teacher)
    assert student.flatten().tolist() == [11, 12, 10, 10]
    assert teacher.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]  # means of 2x2 cells
    untouched = torch.arange(4.).view(1, 1, 2, 2)
    assert torch.equal(align(torch.zeros(1, 2, 8, 8), untouched)[1], untouched)


def test_the_bias_is_there_only_where_nothing_removes_it():
    assert Align(2, 3).project.bias is None
    assert Align(2, 3, standardised=False).project.bias.shape == (3, )


def test_the_wavelet_connector_hands_the_option_on():
    connector = WaveletConnector(2, 3, levels=2, refine=False, standardised=False)
    s, t = randn(2, 2, 7, 7), 50 + randn(2, 3, 14, 14, seed=1)
    student, teacher = connector(s, t)
    pooled = F.adaptive_avg_pool2d(t, 7)
    assert torch.equal(student.map, connector.align.project(s)) and torch.equal(teacher.map, pooled)
    for found, expected in zip(teacher.bands.each(), dwt2(pooled, 2).each(), strict=True):
        assert torch.equal(found, expected)


# ---- FeatureMSE: aligned MSE, FitNet, PKD ----

def test_feature_mse_by_hand():
    s, t = torch.tensor([1., 2, 3, 4]).view(1, 2, 1, 2), torch.tensor([1., 0, 0, 4]).view(1, 2, 1, 2)
    assert FeatureMSE()(s, t).item() == (0 + 4 + 9 + 0) / 4


def test_feature_mse_of_whole_pictures_by_hand():
    s, t = torch.tensor([1., 2, 3, 4]).view(2, 1, 1, 2), torch.tensor([1., 0, 0, 4]).view(2, 1, 1, 2)
    assert FeatureMSE('batchmean')(s, t).item() == ((0 + 4) + (9 + 0)) / 2
    assert FeatureMSE().mean_over_grid and not FeatureMSE('batchmean').mean_over_grid
    with pytest.raises(ValueError, match="'sum' is neither 'mean' nor 'batchmean'"):
        FeatureMSE('sum')


def test_fitnets_hint_is_its_definition():
    """Eq. 3 sums over a picture and halves; ours is its mean over pictures, divided by C h w / 2."""
    s, t = randn(3, 2, 4, 4), randn(3, 5, 4, 4, seed=1)
    align = Align(2, 5, standardised=False)
    weight, bias = (parameter.detach().double().numpy() for parameter in (align.project.weight, align.project.bias))
    weight = weight[:, :, 0, 0]
    hints = []
    for picture, target in zip(s.double().numpy(), t.double().numpy()):
        total = 0.
        for y in range(4):
            for x in range(4):
                total += np.square(weight @ picture[:, y, x] + bias - target[:, y, x]).sum()
        hints.append(total / 2)
    assert FeatureMSE()(*align(s, t)).item() == pytest.approx(np.mean(hints) / (5 * 4 * 4 / 2), rel=1e-5)


def pkd_by_definition(s, t):
    """Mean over channels of 1 - Pearson's r over all pictures and positions."""
    total = 0.
    for channel in range(s.shape[1]):
        a, b = (x[:, channel].flatten().tolist() for x in (s, t))
        mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
        cross = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b))
        spread_a, spread_b = sum((x - mean_a)**2 for x in a), sum((y - mean_b)**2 for y in b)
        total += 1 - cross / math.sqrt(spread_a * spread_b)
    return total / s.shape[1]


def test_half_the_mse_of_standardised_maps_is_pkd():
    s, t = two_sides(3, 4, 5, 6)
    s = s + 0.7 * t  # so that r is not 0
    expected = pkd_by_definition(s, t)
    assert 0.2 < expected < 0.8
    assert FeatureMSE()(*standardise(s, t, eps=1e-12)).item() / 2 == pytest.approx(expected, rel=1e-9)
    assert FeatureMSE()(*standardise(s, t)).item() / 2 == pytest.approx(expected, rel=1e-4)  # the default epsilon


def test_pkd_config_is_the_papers_weight_of_pkd():
    method = Config.fromfile(PEERS / 'pkd.py').model
    align = MODELS.build(dict(method.connector, student_channels=3, teacher_channels=4))
    s, t = randn(3, 3, 8, 8), 100 * randn(3, 4, 4, 4, seed=1) + 7
    expected = pkd_by_definition(F.adaptive_avg_pool2d(align.project(s), 4).double(), t.double())
    assert method.losses[0].weight * FeatureMSE()(*align(s, t)).item() == pytest.approx(6 * expected, rel=1e-3)


# ---- CWD ----

def cwd_by_definition(s, t, temperature):
    n, c = s.shape[:2]
    total = 0.
    for i in range(n):
        for j in range(c):
            a, b = (x[i, j].flatten().tolist() for x in (s, t))
            sum_a, sum_b = (sum(math.exp(v / temperature) for v in row) for row in (a, b))
            for x, y in zip(a, b):
                p, q = math.exp(y / temperature) / sum_b, math.exp(x / temperature) / sum_a
                total += p * math.log(p / q)
    return temperature**2 * total / (n * c)


def test_cwd_by_hand():
    student = torch.zeros(1, 2, 1, 2)  # 1/2 1/2 in both channels
    teacher = torch.tensor([[math.log(3.), 0.], [5., 5.]]).view(1, 2, 1, 2)  # 3/4 1/4, and 1/2 1/2
    one = .75 * math.log(1.5) + .25 * math.log(.5)
    assert ChannelWiseDivergence()(student, teacher).item() == pytest.approx((one + 0) / 2, rel=1e-6)
    p = math.sqrt(3) / (1 + math.sqrt(3))  # at T = 2 the odds are sqrt(3) : 1
    one = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 - 2 * p))
    assert ChannelWiseDivergence(2)(student, teacher).item() == pytest.approx(one / 2, rel=1e-6)


@pytest.mark.parametrize('temperature', (1.0, 4.0))
def test_cwd_is_its_definition(temperature):
    s, t = (3 * x for x in two_sides(2, 3, 4, 5))
    expected = cwd_by_definition(s, t, temperature)
    assert ChannelWiseDivergence(temperature)(s, t).item() == pytest.approx(expected, rel=1e-12)


def test_cwd_sees_neither_an_added_constant_nor_the_order_of_positions():
    s, t = two_sides(2, 3, 4, 5)
    loss, value = ChannelWiseDivergence(2), ChannelWiseDivergence(2)(s, t)
    constants = 100 * randn(2, 3, 1, 1, seed=2, dtype=torch.float64)
    torch.testing.assert_close(loss(s + constants, t - 2 * constants), value, rtol=1e-10, atol=0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(*(x.flatten(2)[..., order].view_as(x) for x in (s, t))), value, rtol=1e-12, atol=0)
    # a mean over pictures
    torch.testing.assert_close(loss(torch.cat([s, s]), torch.cat([t, t])), value, rtol=1e-12, atol=0)
    assert not torch.isclose(loss(t, s), value, rtol=1e-2)  # the teacher is what is expected over
    assert not torch.isclose(loss(s, 2 * t), value, rtol=1e-2)  # scale matters


def test_cwd_survives_scores_whose_softmax_underflows():
    s = torch.tensor([0., 500.]).view(1, 1, 1, 2).requires_grad_()
    loss = ChannelWiseDivergence()(s, torch.tensor([500., 0.]).view(1, 1, 1, 2))
    loss.backward()
    assert loss.item() == 500 and s.grad.flatten().tolist() == [-1, 1]


# ---- FreeKD's details ----

def test_detail_l1_by_hand():
    def side(low, fine, coarse):
        return Decomposed(torch.zeros(1, 1, 4, 4), Bands(torch.full((1, 1, 1, 1), low), (
            torch.tensor(fine).view(1, 1, 3, 1, 1).expand(1, 1, 3, 2, 2), torch.tensor(coarse).view(1, 1, 3, 1, 1))))
    student, teacher = side(9., [1., -2., 0.], [4., 0., 0.]), side(0., [0., 0., 0.], [1., 0., 1.])
    assert DetailL1()(student, teacher).item() == pytest.approx((1 + 2 + 0) / 3 + (3 + 0 + 1) / 3, rel=1e-6)


@pytest.mark.parametrize('grid', [(8, 8), (9, 11)])
def test_detail_l1_is_its_definition(grid):
    s, t = two_sides(2, 3, *grid)
    _, *levels = pywt.wavedec2((s - t).numpy(), 'haar', 'zero', 3)
    expected = sum(np.abs(np.stack(level)).mean() for level in levels)
    assert DetailL1()(decomposed(s, 3), decomposed(t, 3)).item() == pytest.approx(expected, rel=1e-10)


def test_detail_l1_leaves_the_broad_band_to_the_mse():
    """A constant lies in LL alone where no side is padded."""
    s, _ = two_sides(2, 3, 8, 8)
    moved = decomposed(s + 3, 3)
    assert DetailL1()(moved, decomposed(s, 3)).item() == pytest.approx(0, abs=1e-12)
    assert BandMSE()(moved, decomposed(s, 3)).item() == pytest.approx(9, rel=1e-12)


def test_freekd_config_is_details_and_the_mse_of_the_maps():
    method = Config.fromfile(PEERS / 'freekd.py').model
    connector = MODELS.build(dict(method.connector, student_channels=2, teacher_channels=3))
    s, t = randn(2, 2, 9, 9), 5 + 3 * randn(2, 3, 18, 18, seed=1)
    pair = connector(s, t)
    found = sum(config.weight * build(config)(*pair) for config in method.losses).item()
    difference = (connector.align.project(s) - F.adaptive_avg_pool2d(t, 9)).detach().double().numpy()
    _, *levels = pywt.wavedec2(difference, 'haar', 'zero', 3)
    # 4: as tuned
    expected = 4 * (sum(np.abs(np.stack(level)).mean() for level in levels) + 5 * np.square(difference).mean())
    assert found == pytest.approx(expected, rel=1e-5)


# ---- all of them ----

def build(config):
    return MODELS.build({key: value for key, value in config.items() if key not in ('name', 'weight')})


LOSSES = [FeatureMSE(), FeatureMSE('batchmean'), ChannelWiseDivergence(2), DetailL1()]


def call(loss, s, t):
    return loss(decomposed(s), decomposed(t)) if isinstance(loss, DetailL1) else loss(s, t)


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_gradients(loss):
    s, t = two_sides(2, 2, 5, 4, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: call(loss, x, t), s)


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_zero_at_equal_inputs_and_only_there(loss):
    s, t = two_sides(2, 3, 7, 7)
    assert call(loss, s, s.clone()).item() == pytest.approx(0, abs=1e-15)
    assert call(loss, s, t).item() > 0.1


@pytest.mark.parametrize('loss', LOSSES, ids=repr)
def test_bf16_autocast_gives_finite_float32(loss):
    s, t = randn(2, 3, 7, 7, requires_grad=True), 100 * randn(2, 3, 7, 7, seed=1)
    exact = call(loss, s, t)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = call(loss, s, t)
    assert rounded.dtype == torch.float32 and rounded.dim() == 0 and rounded.isfinite()
    torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=0)
    half, same = call(loss, s.bfloat16(), t.bfloat16()), call(loss, s.bfloat16().float(), t.bfloat16().float())
    assert half.dtype == torch.float32
    # bands keep half precision
    torch.testing.assert_close(half, same, rtol=1e-2 if isinstance(loss, DetailL1) else 1e-6, atol=0)


@pytest.mark.parametrize('peer', ['aligned_mse', 'fitnet', 'cwd', 'pkd', 'freekd', 'mgd', 'rsd'])
def test_peer_config_is_a_method_that_trains(peer):
    """No student or teacher in it; its connector and losses build, and under autocast every weight and the student get
    gradients.
    """
    method = Config.fromfile(PEERS / f'{peer}.py').model
    assert set(method) - {'stages'} == {'type', 'pairs', 'connector', 'losses', 'logits'}
    assert method.type == 'Distiller'
    assert [loss.weight for loss in method.logits] == [0]  # a switch for the comparison
    connector = MODELS.build(dict(method.connector, student_channels=3, teacher_channels=4))
    s, t = randn(4, 3, 8, 8, requires_grad=True), 10 * randn(4, 4, 4, 4, seed=1)
    with torch.autocast('cpu', torch.bfloat16):
        pair = connector(s, t)
        loss = sum(config.weight * build(config)(*pair) for config in method.losses)
    loss.backward()
    assert loss.dtype == torch.float32 and loss.isfinite()
    assert s.grad.isfinite().all() and s.grad.abs().amin((0, 2, 3)).min() > 0
    assert connector.state_dict().keys() >= {dict(freekd='align.project.weight', mgd='align.project.weight',
                                                  rsd='project.0.weight').get(peer, 'project.weight')}
    for p in connector.parameters():
        assert p.grad.isfinite().all()
