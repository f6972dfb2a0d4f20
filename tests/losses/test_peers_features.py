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
    MaskedGeneration,
    WaveletConnector,
)
from sfkd.distillation import Pair
from sfkd.features.padding import TaughtCells
from sfkd.features.probe import Stage
from sfkd.losses import (
    BandMSE,
    ChannelWiseDivergence,
    DetailL1,
    FeatureMSE,
    PooledMSE,
)
from sfkd.openmmlab.distiller import Distiller
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


# ---- MGD ----

def convolved(x, conv):
    """A map (C, h, w) by a convolution that keeps its grid, number by number, in NumPy."""
    weight, bias = (p.detach().double().numpy() for p in (conv.weight, conv.bias))
    size, (_, height, width) = weight.shape[-1], x.shape
    x = np.pad(x, ((0, 0), (size // 2, ) * 2, (size // 2, ) * 2))
    return np.array([[[(weight[o] * x[:, i:i + size, j:j + size]).sum() + bias[o] for j in range(width)]
                      for i in range(height)] for o in range(len(weight))])


def generated_by_definition(connector, student, keep):
    """Of maps (N, Cs, h, w); ``keep`` is 1 where nothing is hidden."""
    maps = student.detach().double().numpy()
    if isinstance(connector.align.project, torch.nn.Conv2d):
        maps = np.stack([convolved(x, connector.align.project) for x in maps])
    maps = maps * keep.double().numpy()
    first, _, last = connector.generation
    return np.stack([convolved(np.maximum(convolved(x, first), 0), last) for x in maps])


@pytest.mark.parametrize('channels', [(2, 3), (3, 3)])
def test_mgd_that_hides_nothing_is_the_plain_generation(channels):
    s, t = randn(2, channels[0], 4, 5), randn(2, channels[1], 8, 10, seed=1)
    connector = MaskedGeneration(*channels, ratio=0)
    student, teacher = connector(s, t)
    assert student.detach().numpy() == pytest.approx(generated_by_definition(connector, s, torch.ones(1)), abs=1e-5)
    assert torch.equal(teacher, F.avg_pool2d(t, 2))
    # the authors' is without the 1x1 convolution where the channels are the same
    assert ('align.project.weight' in connector.state_dict()) == (channels[0] != channels[1])


def test_mgd_by_hand():
    """Only the centres of the kernels are not 0; the second picture loses its first channel."""
    connector = MaskedGeneration(2, 2, ratio=0.5)
    for conv, weight, bias in ((connector.generation[0], [[1., 0], [1, 1]], [0., -3]),
                               (connector.generation[2], [[1., 0], [0, 2]], [.5, 0])):
        conv.weight.data.zero_()
        conv.weight.data[:, :, 1, 1] = torch.tensor(weight)
        conv.bias.data = torch.tensor(bias)
    seed = next(i for i in range(1000) if (rand_of(i, 2, 2, 1, 1).flatten() >= .5).tolist() == [1, 1, 0, 1])
    torch.manual_seed(seed)
    student = torch.tensor([[[[5., -1]], [[1, 1]]], [[[5, -1]], [[4, 1]]]])  # (2, 2, 1, 2)
    found, _ = connector(student, torch.zeros(2, 2, 1, 2))
    assert found.tolist() == [[[[5.5, .5]], [[2 * 3., 0]]], [[[.5, .5]], [[2 * 1., 0]]]]


def rand_of(seed, *shape):
    torch.manual_seed(seed)
    return torch.rand(shape)


@pytest.mark.parametrize('masked, shape', [('channels', (2, 3, 1, 1)), ('cells', (2, 1, 4, 5))])
def test_mgd_is_its_definition(masked, shape):
    """With what was drawn: the sum over a picture, a mean over pictures, as the authors' code has it."""
    s, t = randn(2, 2, 4, 5), 2 * randn(2, 3, 4, 5, seed=1)
    connector = MaskedGeneration(2, 3, 0.5, masked)
    keep = (rand_of(7, *shape) >= 0.5).expand(2, 3, 4, 5)
    assert 0.2 < keep.float().mean() < 0.8
    torch.manual_seed(7)
    found = FeatureMSE('batchmean')(*connector(s, t)).item()
    expected = np.square(generated_by_definition(connector, s, keep) - t.double().numpy()).sum() / 2
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('masked, ratio', [('channels', 0.15), ('cells', 0.65), ('cells', 0.75)])
def test_mgd_hides_whole_channels_or_cells_of_each_picture(masked, ratio):
    connector = MaskedGeneration(64, 64, ratio, masked)
    connector.generation = torch.nn.Identity()  # shows what it is given
    x = 1 + randn(64, 64, 8, 8).abs()
    torch.manual_seed(0)
    hidden = connector(x, x)[0] == 0
    assert torch.equal(connector.eval()(x, x)[1], x)  # the teacher's is whole
    whole = (2, 3) if masked == 'channels' else (1, )
    assert torch.equal(hidden.any(whole), hidden.all(whole))
    drawn = hidden.any(whole).float()  # 4,096 numbers: 3 standard deviations are 0.02
    assert drawn.mean().item() == pytest.approx(ratio, abs=0.03)
    assert drawn.std(0).min() > 0  # of each picture anew
    torch.manual_seed(0)
    again, other = (connector(x, x)[0] for _ in range(2))
    assert torch.equal(again == 0, hidden) and not torch.equal(other == 0, hidden)
    assert torch.equal(again, x.masked_fill(hidden, 0))  # what stays is not scaled up, in evaluation too


def test_mgd_refuses_other_ratios_and_masks():
    for ratio in (-0.1, 1, 1.5, math.nan):
        with pytest.raises(ValueError, match='ratio must be a number from 0 to below 1'):
            MaskedGeneration(2, 3, ratio)
    with pytest.raises(ValueError, match="'pixels' is neither 'channels' nor 'cells'"):
        MaskedGeneration(2, 3, masked='pixels')


@pytest.mark.parametrize('masked', ['channels', 'cells'])
def test_mgd_gradients(masked):
    connector, (s, t) = MaskedGeneration(2, 3, 0.4, masked).double(), (x[:, :2] for x in two_sides(2, 3, 4, 3))
    t = randn(2, 3, 4, 3, seed=1, dtype=torch.float64)

    def loss(x, *_):
        torch.manual_seed(3)
        return FeatureMSE('batchmean')(*connector(x, t))
    weights = tuple(connector.parameters())
    assert len(weights) == 6
    assert torch.autograd.gradcheck(loss, (s.detach().requires_grad_(), *weights))


def test_mgd_teaches_the_student_and_its_own_layers_alone():
    connector, s, t = MaskedGeneration(3, 4), randn(4, 3, 5, 5, requires_grad=True), randn(4, 4, 5, 5, seed=1)
    student, teacher = connector(s, t)
    assert torch.equal(teacher, t) and not teacher.requires_grad
    FeatureMSE('batchmean')(student, teacher).backward()
    assert all(p.grad.any() for p in connector.parameters()) and s.grad.abs().amin((0, 2, 3)).min() > 0


@pytest.mark.parametrize('masked', ['channels', 'cells'])
def test_mgd_under_a_mask_is_a_sum_over_what_it_leaves(masked):
    """Whatever the padding holds; and a sum needs no share of the grid to set it right."""
    stages = Stage('s', 2, (6, 4), 8, ''), Stage('t', 3, (6, 4), 8, '')
    mask = torch.zeros(2, 1, 6, 4)
    mask[:, :, :4] = 1
    s, t = randn(2, 2, 6, 4), randn(2, 3, 6, 4, seed=1)
    connector = MaskedGeneration(2, 3, 0.5, masked)
    connector.align.project.bias.data.zero_()  # so that zeros stay zeros without a mask too
    pair = Pair('p', *stages, connector, dict(mgd=(2.0, FeatureMSE('batchmean'))))
    torch.manual_seed(7)
    found = pair(s + 100 * (1 - mask), t - 50 * (1 - mask), TaughtCells(mask, [(6, 4)]))['distill.p.loss_mgd']
    torch.manual_seed(7)
    student, teacher = (x[:, :, :4] for x in connector(s * mask, t))
    torch.testing.assert_close(found, 2 * (student - teacher).square().sum() / 2)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_mgd_under_autocast_is_float32_and_does_not_overflow(dtype):
    connector, s, t = MaskedGeneration(3, 4), 3e4 * randn(4, 3, 5, 5).clamp(-2, 2), randn(4, 4, 5, 5, seed=1)
    connector.generation[0].weight.data *= 100
    torch.manual_seed(0)
    exact, _ = connector(s, t)
    assert exact.abs().max() > 1e5  # more than float16 holds
    torch.manual_seed(0)
    with torch.autocast('cpu', dtype):
        student, teacher = connector(s.to(dtype), t.to(dtype))
    assert student.dtype == teacher.dtype == torch.float32
    assert (student - exact).norm() < 0.03 * exact.norm()


def test_mgd_config_is_the_authors_code_for_classification():
    method = Config.fromfile(PEERS / 'mgd.py').model
    connector = MODELS.build(dict(method.connector, student_channels=2, teacher_channels=3))
    for built in (connector, MaskedGeneration(2, 3)):
        assert (built.ratio, built.masked) == (0.15, 'channels')
    s, t = randn(2, 2, 4, 4), 20 * randn(2, 3, 8, 8, seed=1)
    seed = next(i for i in range(1000) if (rand_of(i, 2, 3, 1, 1) < 0.15).sum() == 2)
    keep = rand_of(seed, 2, 3, 1, 1) >= 0.15
    torch.manual_seed(seed)
    config, = method.losses
    found = config.weight * build(config)(*connector(s, t)).item()
    difference = generated_by_definition(connector, s, keep) - F.avg_pool2d(t.double(), 2).numpy()
    assert found == pytest.approx(0.00007 * np.square(difference).sum() / 2, rel=1e-5)


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


# ---- SRRL ----

def test_pooled_mse_by_hand():
    s, t = torch.tensor([[[[1., 3.]], [[0., 4.]]]]), torch.tensor([[[[2., 2.]], [[5., 1.]]]])
    assert PooledMSE()(s, t).item() == ((2 - 2)**2 + (2 - 3)**2) / 2
    with torch.autocast('cpu', torch.bfloat16):
        assert PooledMSE()(s.bfloat16(), t.bfloat16()).item() == 0.5


@torch.no_grad()
def test_srrl_is_its_two_terms(zoo):
    """With the teacher's own classifier on the student's map."""
    model = Config.fromfile(PEERS / 'srrl.py').model
    kind = {key: value for key, value in model.items() if key not in ('type', 'pairs')}
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), kind=Distiller, pairs='auto', **kind).train()
    network, pair = distiller.distillation.teacher.network, distiller.distillation.pairs[-1]
    data = distiller.data_preprocessor(zoo.batch(), True)
    with zoo.recorded(distiller.student, [pair.student_path]) as student, \
            zoo.recorded(network, [pair.teacher_path, 'head']) as teacher:
        losses = distiller(**data, mode='loss')
    tokens, own = student[pair.student_path][0], teacher[pair.teacher_path][0]
    side = int(tokens.shape[1]**0.5)
    conv = pair.connector.conv.conv
    assert conv.bias is None and conv.weight.std().item() == pytest.approx((2 / own.shape[1])**0.5, rel=0.1)
    ours = torch.einsum('oc,nchw->nohw', conv.weight[:, :, 0, 0], tokens.transpose(1, 2).unflatten(2, (side, side)))
    ours = (ours - ours.mean((0, 2, 3), keepdim=True)) / (ours.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    ours = F.adaptive_avg_pool2d(ours.clamp_min(0), own.shape[2:])
    pooled = F.mse_loss(ours.mean((2, 3)), own.mean((2, 3)))
    assert losses[f'distill.{pair.name}.loss_fm'].item() == pytest.approx(pooled.item(), rel=1e-4)
    scores = F.mse_loss(network.head.fc(ours.mean((2, 3))), teacher['head'][0])
    assert losses['distill.anchor.loss'].item() == pytest.approx(scores.item(), rel=1e-3)
