"""Losses on relations and embeddings, CC, RKD and RSD with its projector: by hand, against slow float64 definitions,
and what each must not see.
"""
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from sfkd.connectors import EmbeddingProjector
from sfkd.losses import CorrelationCongruence, PooledMSE, RedundancySuppression, RelationalKD
from sfkd.registry import MODELS

RELATIONS = [CorrelationCongruence(), RelationalKD()]


def randn(*shape, seed=0, dtype=torch.float64, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype, **kwargs)


def maps(embeddings):
    """Embeddings (N, C) as maps (N, C, 1, 2) that no single position shows: one must pool."""
    x = torch.as_tensor(embeddings, dtype=torch.float64)
    return torch.stack([x - 7, x + 7], -1).unsqueeze(2)


def test_pooled_mse_by_hand():
    s, t = torch.tensor([[[[1., 3.]], [[0., 4.]]]]), torch.tensor([[[[2., 2.]], [[5., 1.]]]])
    assert PooledMSE()(s, t).item() == ((2 - 2)**2 + (2 - 3)**2) / 2
    with torch.autocast('cpu', torch.bfloat16):
        assert PooledMSE()(s.bfloat16(), t.bfloat16()).item() == 0.5


def test_cc_by_hand():
    """Cosines 0 against 1/2: the kernels differ by exp(-2 gamma) (gamma + gamma^2 / 2) off the diagonal."""
    student, teacher = maps([[2., 0], [0, 5]]), maps([[1., 0, 0], [1, math.sqrt(3), 0]])
    for gamma in (.4, 1.):
        expected = 2 * (math.exp(-2 * gamma) * (gamma + gamma**2 / 2))**2 / 4
        assert CorrelationCongruence(gamma)(student, teacher).item() == pytest.approx(expected, rel=1e-10)


def test_cc_tends_to_the_gaussian_kernel():
    s, t = randn(5, 4), randn(5, 6, seed=1)
    kernels = [np.array([[math.exp(-.4 * (a - b).square().sum()) for a in x] for b in x])
               for x in (F.normalize(s), F.normalize(t))]
    expected = np.square(kernels[0] - kernels[1]).mean()
    assert CorrelationCongruence(order=20)(maps(s), maps(t)).item() == pytest.approx(expected, rel=1e-10)
    assert CorrelationCongruence()(maps(s), maps(t)).item() == pytest.approx(expected, rel=.3)


def rkd_by_definition(s, t, distance_weight, angle_weight):
    def huber(x, y):
        d = abs(x - y)
        return d**2 / 2 if d <= 1 else d - .5

    def relations(x):
        x, n = x.numpy(), len(x)
        norm = np.linalg.norm
        mean = np.mean([norm(x[i] - x[j]) for i, j in itertools.permutations(range(n), 2)])
        distances = {(i, j): norm(x[i] - x[j]) / mean for i, j in itertools.permutations(range(n), 2)}
        angles = {(i, j, k): (x[i] - x[j]) @ (x[k] - x[j]) / norm(x[i] - x[j]) / norm(x[k] - x[j])
                  for i, j, k in itertools.permutations(range(n), 3)}
        return distances, angles
    totals = [sum(huber(a[key], b[key]) for key in a) for a, b in zip(relations(s), relations(t))]
    return distance_weight * totals[0] / len(s)**2 + angle_weight * totals[1] / len(s)**3


@pytest.mark.parametrize('weights', [(1, 0), (0, 1), (25, 50)])
def test_rkd_equals_its_definition(weights):
    s, t = randn(6, 4)**3, randn(6, 5, seed=1)  # some distances and angles differ by more than Huber's 1
    assert RelationalKD(*weights)(maps(s), maps(t)).item() == pytest.approx(rkd_by_definition(s, t, *weights), rel=1e-9)


def test_rkd_by_hand():
    """A right triangle 3 4 5 against a line 0 1 2."""
    student, teacher = maps([[0., 0], [3, 0], [0, 4]]), maps([[0.], [1], [2]])
    distances = sum((a / 4 - b / (4 / 3))**2 for a, b in ((3, 1), (4, 2), (5, 1)))  # each pair twice, halved by Huber
    # cosines 0 .6 .8 against 1 -1 1; the second is past 1, where Huber is linear
    angles = 2 * (1**2 / 2 + (1.6 - .5) + .2**2 / 2)
    assert RelationalKD(1, 0)(student, teacher).item() == pytest.approx(distances / 9, rel=1e-9)
    assert RelationalKD(0, 1)(student, teacher).item() == pytest.approx(angles / 27, rel=1e-9)


def test_rkd_ignores_scale_rotation_and_shift():
    x, t = randn(6, 4), randn(6, 4, seed=3)
    rotation = torch.linalg.qr(randn(4, 4, seed=1))[0]
    moved = 5 * x @ rotation + randn(1, 4, seed=2)
    assert RelationalKD()(maps(moved), maps(x)).item() == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(RelationalKD()(maps(moved), maps(t)), RelationalKD()(maps(x), maps(t)), rtol=1e-9,
                               atol=0)
    assert RelationalKD()(maps(x * torch.tensor([1., 1, 1, 5])), maps(x)) > .1


@pytest.mark.parametrize('loss', RELATIONS, ids=repr)
def test_relations_survive_collapse_and_single_pictures(loss):
    for s in (torch.zeros(4, 3, 2, 2), torch.ones(4, 3, 2, 2), torch.zeros(1, 3, 2, 2)):
        s.requires_grad_()
        value = loss(s, randn(len(s), 5, 2, 2, dtype=torch.float32))
        value.backward()
        assert value.isfinite() and s.grad.isfinite().all()


@pytest.mark.parametrize('loss', RELATIONS, ids=repr)
def test_relations_survive_a_picture_seen_twice(loss):
    x = randn(4, 3, 2, 2)
    s = torch.cat([x, x[:1]]).requires_grad_()
    loss(s, randn(5, 6, 3, 3, seed=1)).backward()
    assert s.grad.isfinite().all() and s.grad.abs().max() < 1e3


def rsd_by_definition(s, t, kappa):
    """Of nested lists of N embeddings of D numbers."""
    def standardised(x):
        columns = []
        for column in zip(*x):
            mean = sum(column) / len(column)
            deviation = math.sqrt(sum((v - mean)**2 for v in column) / len(column))
            columns.append([(v - mean) / (deviation + 1e-5) for v in column])
        return columns
    total = 0.
    for i, teacher in enumerate(standardised(t)):
        for j, student in enumerate(standardised(s)):
            r = sum(a * b for a, b in zip(teacher, student)) / len(s)
            total += (r - 1)**2 if i == j else kappa * r**2
    return total


@pytest.mark.parametrize('kappa', (0., .01, .7, 3.))
def test_rsd_equals_its_definition(kappa):
    s, t = randn(6, 4)**3, 3 + randn(6, 4, seed=1)
    expected = rsd_by_definition(s.tolist(), t.tolist(), kappa)
    assert RedundancySuppression(kappa)(s, t).item() == pytest.approx(expected, rel=1e-12)


def test_rsd_by_hand():
    """Two pictures: standardised they are 1 and -1, so that every r is 1 or -1."""
    student = torch.tensor([[1., 30], [-3, 10]], dtype=torch.float64)  # (1, 1), (-1, -1)
    teacher = torch.tensor([[6., -1], [4, 1]], dtype=torch.float64)    # (1, -1), (-1, 1): the second channel is opposed
    for kappa in (.01, .5):
        value = RedundancySuppression(kappa)(student, teacher).item()
        assert value == pytest.approx((1 - 1)**2 + (1 + 1)**2 + 2 * kappa, rel=1e-4)


def test_rsd_is_zero_for_equal_embeddings_without_correlations_and_for_no_others():
    white = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)  # of Hadamard
    loss = RedundancySuppression()
    assert loss(white, white).item() == pytest.approx(0, abs=1e-8)
    # each channel of one side twice: four pairs of two channels with r = 1
    doubled = white[:, [0, 0, 1, 1]]
    assert loss(doubled, doubled).item() == pytest.approx(4 * .01, rel=1e-4)
    assert loss(white, white[:, [1, 2, 0]]).item() == pytest.approx(3 + 3 * .01, rel=1e-4)  # which channel is which
    assert loss(-white, white).item() == pytest.approx(3 * 2**2, rel=1e-4)
    assert loss(torch.full_like(white, 5), white).item() == 3  # a student that says nothing: D
    assert loss(white[:1], white[:1]).item() == 3              # as one picture alone does


def test_rsd_ignores_each_sides_scale_and_shift_and_a_common_order():
    s, t = randn(6, 4), randn(6, 4, seed=1)
    loss, value = RedundancySuppression(), RedundancySuppression()(s, t)
    scales, shifts = 1 + randn(2, 1, 4, seed=2).abs(), 10 * randn(2, 1, 4, seed=3)
    torch.testing.assert_close(loss(s * scales[0] + shifts[0], t * scales[1] + shifts[1]), value, rtol=1e-4, atol=0)
    pictures, channels = torch.tensor([2, 0, 5, 1, 3, 4]), torch.tensor([1, 3, 0, 2])
    torch.testing.assert_close(loss(s[pictures], t[pictures]), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss(s[:, channels], t[:, channels]), value, rtol=1e-12, atol=0)
    signs = torch.tensor([1., -1, -1, 1], dtype=torch.float64)
    torch.testing.assert_close(loss(s * signs, t * signs), value, rtol=1e-12, atol=0)
    rotation = torch.linalg.qr(randn(4, 4, seed=4))[0]
    for other in ((s[pictures], t), (s[:, channels], t), (s * signs, t), (s @ rotation, t @ rotation)):
        assert not torch.isclose(loss(*other), value, rtol=1e-2)


def test_rsd_gradients():
    t = randn(5, 4, seed=1)
    assert torch.autograd.gradcheck(lambda s: RedundancySuppression(.3)(s, t), randn(5, 4, requires_grad=True))


def test_rsd_takes_embeddings_of_one_length():
    for s, t in ((randn(4, 3), randn(4, 5)), (randn(4, 3, 2, 2), randn(4, 3, 2, 2)), (randn(4, 3), randn(5, 3))):
        with pytest.raises(ValueError, match='EmbeddingProjector') as error:
            RedundancySuppression()(s, t)
        assert str(tuple(s.shape)) in str(error.value) and str(tuple(t.shape)) in str(error.value)


def test_embedding_projector_by_hand():
    """In evaluation batch normalisation divides by sqrt(1 + 1e-5) alone."""
    project = EmbeddingProjector(2, 1, gamma=1).double().eval()
    first, _, _, last = project.project
    first.weight.data = torch.tensor([[1., 2], [0, -1]], dtype=torch.float64)
    last.weight.data = torch.tensor([[10., 100]], dtype=torch.float64)
    student, teacher = project(maps([[3., -1]]), maps([[4., 5]]))

    def gelu(x):
        return x * (1 + math.erf(x / math.sqrt(2))) / 2
    one = 1 / math.sqrt(1 + 1e-5)
    assert student.item() == pytest.approx(10 * gelu(1 * one) + 100 * gelu(1 * one), rel=1e-12)
    assert teacher.tolist() == [[4, 5]]


def test_embedding_projector_is_the_authors():
    """Its sizes, its start and what it leaves out."""
    project = EmbeddingProjector(64, 100)
    assert {key: tuple(p.shape) for key, p in project.named_parameters()} == {
        'project.0.weight': (128, 64), 'project.1.weight': (128, ), 'project.1.bias': (128, ),
        'project.3.weight': (100, 128)}
    for linear in (project.project[0], project.project[3]):
        assert linear.weight.std().item() == pytest.approx(.02, rel=.05)
    student = randn(2, 3, 4, 4, dtype=torch.float32)
    project = EmbeddingProjector(3, 5)
    with pytest.raises(ValueError, match='drop_last=True'):
        project(student[:1], student[:1])
    assert project.eval()(student[:1], student[:1])[0].shape == (1, 5)


def test_rsd_teaches_the_student_and_the_projector_alone():
    project, s = EmbeddingProjector(3, 5), randn(6, 3, 4, 4, dtype=torch.float32, requires_grad=True)
    t = randn(6, 5, 2, 3, seed=1, dtype=torch.float32)
    student, teacher = project(s, t)
    torch.testing.assert_close(teacher, t.mean((2, 3)))
    assert not teacher.requires_grad
    RedundancySuppression()(student, teacher).backward()
    assert all(p.grad.any() for p in project.parameters())
    assert s.grad.abs().amin((0, 2, 3)).min() > 0
    assert torch.equal(s.grad, s.grad[..., :1, :1].expand_as(s))  # a mean: every cell the same


@pytest.mark.parametrize('finer', ['student', 'teacher'])
def test_rsd_leaves_padding_out(finer):
    """Left is what the upper rows alone give, whichever side has the finer grid."""
    grids = ((4, 6), (2, 3)) if finer == 'student' else ((2, 3), (4, 6))
    mask = torch.tensor([1., 0]).view(1, 1, 2, 1).expand(5, 1, 2, 3)
    project, s, t = EmbeddingProjector(3, 4).double(), randn(5, 3, *grids[0]), randn(5, 4, *grids[1], seed=1)
    s.requires_grad_()
    expected = project(s[:, :, :grids[0][0] // 2], t[:, :, :grids[1][0] // 2])
    found = project(s, t, mask)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    gradient, = torch.autograd.grad(RedundancySuppression()(*found), s)
    assert not gradient[:, :, grids[0][0] // 2:].any() and gradient.any()
    for a, b in zip(project(s, t, torch.ones_like(mask)), project(s, t)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert all(x.isfinite().all() for x in project(s, t, torch.zeros_like(mask)))


def test_rsd_config_is_the_authors_code():
    """The projector's weights in NumPy, from maps to the weighted loss."""
    method = Config.fromfile('configs/peers/rsd.py').model
    project = MODELS.build(dict(method.connector, student_channels=3, teacher_channels=4))
    s, t = randn(6, 3, 4, 4, dtype=torch.float32), 5 * randn(6, 4, 2, 3, seed=1, dtype=torch.float32)
    config, = method.losses
    loss = MODELS.build(dict(type=config.type, kappa=config.kappa))
    found = config.weight * loss(*project(s, t)).item()
    first, last = (project.project[i].weight.detach().double().numpy() for i in (0, 3))
    assert first.shape == (2 * 3, 3)
    hidden = s.double().numpy().mean((2, 3)) @ first.T
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    hidden = hidden * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) / 2
    expected = .1 * rsd_by_definition((hidden @ last.T).tolist(), t.double().mean((2, 3)).tolist(), .01)
    assert found == pytest.approx(expected, rel=1e-4)


def test_rsd_under_autocast_is_the_same_float32():
    project, s = EmbeddingProjector(3, 5), 1e4 * randn(6, 3, 4, 4, dtype=torch.float32)
    t = randn(6, 5, 2, 3, seed=1, dtype=torch.float32)
    exact = RedundancySuppression()(*project(s, t))
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype):
            rounded = RedundancySuppression()(*project(s, t))
        assert rounded.dtype == torch.float32
        torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=0)
        half = RedundancySuppression()(*project(s.clamp(-6e4, 6e4).to(dtype), t.to(dtype)))
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, exact, rtol=2e-2, atol=0)
        embeddings = [x.detach().to(dtype) for x in project(s, t)]
        half, same = RedundancySuppression()(*embeddings), RedundancySuppression()(*(x.float() for x in embeddings))
        assert half.dtype == torch.float32 and half == same


@pytest.mark.parametrize('loss', RELATIONS, ids=repr)
def test_relation_gradients(loss):
    t = randn(4, 5, 1, 2, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, t), randn(4, 3, 2, 1, requires_grad=True))


@pytest.mark.parametrize('loss', RELATIONS, ids=repr)
def test_zero_and_flat_at_equal_inputs_only(loss, zero_and_flat):
    zero_and_flat(loss, randn(5, 4, 2, 2), randn(5, 4, 2, 2, seed=1))


@pytest.mark.parametrize('loss', RELATIONS, ids=repr)
def test_bf16_autocast_gives_the_same_float32(loss, same_under_bf16_autocast):
    s, t = randn(4, 9, 3, 3, dtype=torch.float32), randn(4, 5, 2, 2, seed=1, dtype=torch.float32)
    same_under_bf16_autocast(loss, s, t)
