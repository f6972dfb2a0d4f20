"""MGD's masked generation and its loss, by hand and against a slow definition in NumPy."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from sfkd.connectors import MaskedGeneration
from sfkd.distillation import Pair
from sfkd.features.padding import TaughtCells
from sfkd.features.probe import Stage
from sfkd.losses import FeatureMSE
from sfkd.registry import MODELS

PEERS = Path(__file__).parents[2] / 'configs' / 'peers'


def randn(*shape, seed=0, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **kwargs)


def build(config):
    return MODELS.build({key: value for key, value in config.items() if key not in ('name', 'weight')})


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
    connector, s = MaskedGeneration(2, 3, 0.4, masked).double(), randn(2, 3, 4, 3, dtype=torch.float64)[:, :2]
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
