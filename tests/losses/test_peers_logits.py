"""Peers on class scores: hand-computed numbers, slow float64 definitions, and what each must not see."""
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from sfkd.connectors import LogitProjector
from sfkd.losses import (
    DIST,
    DKD,
    CorrelationCongruence,
    KLDivergence,
    OFALoss,
    RedundancySuppression,
    RelationalKD,
)
from sfkd.registry import MODELS

LOGITS = [DKD(1, 2, 2.), DIST(2, 1, 2.), OFALoss(1.5, 2.)]


def randn(*shape, seed=0, dtype=torch.float64, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype, **kwargs)


def softmax(row, temperature=1.):
    exponentials = [math.exp(x / temperature) for x in row]
    return [e / sum(exponentials) for e in exponentials]


# ---- KL ----

def test_kl_of_class_maps_is_the_mean_over_all_cells():
    """Each cell is a picture of its own: in numbers worked out here, and as the same scores without a grid."""
    teacher, student = torch.tensor([.5, .3, .2]), torch.tensor([.25, .25, .5])
    one = float((teacher * (teacher / student).log()).sum())
    maps = [torch.stack([x.log(), teacher.log()], -1).reshape(1, 3, 1, 2) for x in (student, teacher)]
    assert KLDivergence()(*maps).item() == pytest.approx(one / 2, rel=1e-5)  # the second cell is right
    assert KLDivergence(reduction='mean')(*maps).item() == pytest.approx(one / 6, rel=1e-5)
    assert KLDivergence(reduction='picture')(*maps).item() == pytest.approx(one, rel=1e-5)
    s, t = randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1)
    rows = [x.movedim(1, -1).reshape(-1, 3) for x in (s, t)]
    assert KLDivergence(2.)(s, t).item() == pytest.approx(KLDivergence(2.)(*rows).item(), rel=1e-12)
    assert torch.equal(KLDivergence(2.)(*rows), F.kl_div(*(F.log_softmax(x / 2, 1) for x in rows), log_target=True,
                                                         reduction='batchmean') * 4)


# ---- DKD ----

def test_dkd_by_hand():
    teacher, student = torch.tensor([[.5, .3, .2]]).log(), torch.tensor([[.25, .25, .5]]).log()
    tckd = .5 * math.log(.5 / .25) + .5 * math.log(.5 / .75)
    nckd = .6 * math.log(.6 / (1 / 3)) + .4 * math.log(.4 / (2 / 3))
    assert DKD(1, 0)(student, teacher).item() == pytest.approx(tckd, rel=1e-5)
    assert DKD(0, 1)(student, teacher).item() == pytest.approx(nckd, rel=1e-5)
    assert DKD(3, 8)(student + 5, teacher - 5).item() == pytest.approx(3 * tckd + 8 * nckd, rel=1e-5)


@pytest.mark.parametrize('temperature', (1., 4.))
def test_dkd_equals_its_definition(temperature):
    s, t = 3 * randn(5, 6), 3 * randn(5, 6, seed=1)
    expected = 0
    for q, p in zip(s.tolist(), t.tolist()):
        q, p = softmax(q, temperature), softmax(p, temperature)
        c = p.index(max(p))
        expected += p[c] * math.log(p[c] / q[c]) + (1 - p[c]) * math.log((1 - p[c]) / (1 - q[c]))
        for i in set(range(6)) - {c}:
            p_i, q_i = p[i] / (1 - p[c]), q[i] / (1 - q[c])
            expected += 8 * p_i * math.log(p_i / q_i)
    assert DKD(1, 8, temperature)(s, t).item() == pytest.approx(temperature**2 * expected / 5, rel=1e-10)


def test_kl_is_tckd_and_nckd_weighted_by_the_rest():
    """The decomposition that the paper starts from, picture by picture."""
    for s, t in zip(3 * randn(4, 1, 7), 3 * randn(4, 1, 7, seed=1)):
        rest = 1 - (t / 2).softmax(1).max().item()
        torch.testing.assert_close(DKD(1, rest, 2.)(s, t), KLDivergence(2.)(s, t), rtol=1e-10, atol=0)


def test_dkd_of_two_classes_is_kl():
    s, t = randn(5, 2), randn(5, 2, seed=1)
    torch.testing.assert_close(DKD(1, 8)(s, t), KLDivergence()(s, t), rtol=1e-10, atol=0)


def test_nckd_ignores_the_target_class_and_survives_certainty():
    s, t = randn(3, 5), randn(3, 5, seed=1)
    target = t.argmax(1, keepdim=True)
    moved = s.scatter_add(1, target, torch.full((3, 1), 2., dtype=s.dtype))
    torch.testing.assert_close(DKD(0, 1)(moved, t), DKD(0, 1)(s, t), rtol=1e-10, atol=0)
    assert DKD(1, 0)(moved, t) != DKD(1, 0)(s, t)
    certain = torch.tensor([[300., 0, 1, 2]])  # 1 - p is 0 in float32, its logarithm is not
    student = torch.tensor([[0., 300, 0, 0]], requires_grad=True)
    loss = DKD()(student, certain)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all() and student.grad.any()


# ---- DIST ----

def test_dist_equals_numpy_correlations():
    s, t = randn(4, 5), randn(4, 5, seed=1)
    q, p = ((x / 2).softmax(1).numpy() for x in (s, t))
    inter = 1 - np.mean([np.corrcoef(q[i], p[i])[0, 1] for i in range(4)])
    intra = 1 - np.mean([np.corrcoef(q[:, c], p[:, c])[0, 1] for c in range(5)])
    assert DIST(2, 3, 2.)(s, t).item() == pytest.approx(4 * (2 * inter + 3 * intra), rel=1e-10)


def test_dist_by_hand():
    p = torch.tensor([[.6, .3, .1], [.2, .5, .3]])
    # less their means, in thirtieths: 8 -1 -7 with 8 -7 -1, and -4 5 -1 with -4 -1 5
    inter = 1 - (78 / 114 + 6 / 42) / 2
    assert DIST(1, 0)(p[:, [0, 2, 1]].log(), p.log()).item() == pytest.approx(inter, rel=1e-5)
    # of two pictures, swapped: -1 in every class
    assert DIST(0, 1)(p.flip(0).log(), p.log()).item() == pytest.approx(2, rel=1e-5)


def test_dist_ignores_positive_affine_changes_of_the_probabilities():
    p = randn(6, 5).softmax(1)
    for a in (.2, .9):  # a p + b that still sums to 1
        flatter = (a * p + (1 - a) / 5).log()
        assert DIST()(flatter, p.log()).item() == pytest.approx(0, abs=1e-12)
        assert KLDivergence()(flatter, p.log()).item() > 1e-3
    # one scale a picture: no change within it, a change within a class
    a = torch.linspace(.2, .9, 6, dtype=p.dtype).unsqueeze(1)
    flatter = (a * p + (1 - a) / 5).log()
    assert DIST(1, 0)(flatter, p.log()).item() == pytest.approx(0, abs=1e-12)
    assert DIST(0, 1)(flatter, p.log()).item() > 1e-2


def test_dist_sees_rare_classes_and_survives_constants():
    p = torch.tensor([[.5, .5 - 3e-5, 1e-5, 2e-5], [.4, .6 - 3e-5, 2e-5, 1e-5]], dtype=torch.float64)
    # two of four classes reversed
    assert DIST(0, 1)(p[:, [0, 1, 3, 2]].log(), p.log()).item() == pytest.approx(1, rel=1e-6)
    s = torch.zeros(1, 4, requires_grad=True)  # no spread over classes, none over the batch
    loss = DIST()(s, torch.zeros(1, 4))
    loss.backward()
    assert loss.item() == 2 and s.grad.isfinite().all()


# ---- OFA ----

def test_ofa_by_hand():
    teacher, student = torch.tensor([[.2, .5, .3]]).log(), torch.tensor([[.25, .25, .5]]).log()
    expected = -(.2 * math.log(.25) + (1.5**2 - 1) * math.log(.25) + .3 * math.log(.5))
    assert OFALoss(2.)(student, teacher).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('temperature', (1., 2.))
def test_ofa_without_enhancement_is_kl_and_the_teachers_entropy(temperature):
    s, t = 2 * randn(4, 6), 2 * randn(4, 6, seed=1)
    p = (t / temperature).softmax(1)
    expected = KLDivergence(temperature)(s, t) / temperature**2 - (p * p.log()).sum(1).mean()
    torch.testing.assert_close(OFALoss(1., temperature)(s, t), expected, rtol=1e-10, atol=0)


def test_ofa_enhances_the_target_more_the_surer_the_teacher_is():
    def pull(certainty):  # on the target's score at equal inputs, where plain distillation has none
        t = torch.tensor([[certainty, 0., 0.]], dtype=torch.float64)
        s = t.clone().requires_grad_()
        plain, = torch.autograd.grad(OFALoss(1.)(s, t), s)
        assert plain.abs().max() < 1e-12
        gradient, = torch.autograd.grad(OFALoss(1.5)(s, t), s)
        p = t.softmax(1)[0, 0].item()
        extra = (1 + p)**1.5 - 1 - p
        assert gradient[0, 0].item() == pytest.approx(-extra * (1 - p), rel=1e-9)
        return extra
    assert pull(3.) > pull(1.) > pull(.1) > 0


def test_logit_projector_gives_scores_and_passes_the_teacher():
    project, teacher = LogitProjector(6, 10), randn(3, 10, dtype=torch.float32)
    for grid in ((2, 2), (7, 5), (16, 16)):
        student = randn(3, 6, *grid, dtype=torch.float32, requires_grad=True)
        scores, same = project(student, teacher)
        assert same is teacher and scores.shape == (3, 10)
        OFALoss()(scores, same).backward()
        assert student.grad.any() and all(p.grad.any() for p in project.parameters())
    with torch.autocast('cpu', torch.bfloat16):
        assert OFALoss()(*project(student, teacher)).isfinite()


def test_logit_projector_by_hand():
    """A delta in, every filter at one: two blocks of stride 2 leave one position, the mean of which the linear layer
    reads.
    """
    project = LogitProjector(1, 2, max_width=1).eval()
    for p in project.parameters():
        p.data.fill_(1)
    for norm in (project.project[2], project.project[6]):
        norm.bias.data.zero_()
    student = torch.zeros(1, 1, 4, 4)
    student[0, 0, 1, 1] = 3.
    gelu = F.gelu(torch.tensor(3.) / math.sqrt(1 + 1e-5))  # at all four positions of the 2x2 grid
    expected = F.gelu(4 * gelu / math.sqrt(1 + 1e-5)) + 1
    torch.testing.assert_close(project(student, None)[0], expected.expand(1, 2))


def test_logit_projector_is_light():
    """Less than a tenth of a ResNet-18 for all of its stages: 11.2 million weights."""
    assert sum(p.numel() for c in (64, 128, 256, 512) for p in LogitProjector(c, 100).parameters()) < 1_120_000


# ---- all of them ----

@pytest.mark.parametrize('loss', LOGITS, ids=repr)
def test_logit_gradients(loss):
    t = 2 * randn(4, 5, seed=1)
    assert torch.autograd.gradcheck(lambda s: loss(s, t), randn(4, 5, requires_grad=True))


@pytest.mark.parametrize('loss', LOGITS[:2], ids=repr)
def test_zero_and_flat_at_equal_inputs_only(loss, zero_and_flat):
    zero_and_flat(loss, randn(5, 4), randn(5, 4, seed=1))


@pytest.mark.parametrize('loss', LOGITS, ids=repr)
def test_bf16_autocast_gives_the_same_float32(loss, same_under_bf16_autocast):
    same_under_bf16_autocast(loss, randn(4, 9, dtype=torch.float32), 100 * randn(4, 9, seed=1, dtype=torch.float32))


@pytest.mark.parametrize('name', ['kd', 'dkd', 'dist', 'cc', 'rkd', 'ofa', 'rsd'])
def test_configs_name_losses_that_build(name):
    model = Config.fromfile(f'configs/peers/{name}.py').model
    assert model.type == 'Distiller' and not {'student', 'teacher'} & set(model)
    configs = [*model.get('losses', []), *model.get('logits', [])]
    assert configs
    for config in configs:
        MODELS.build({key: value for key, value in config.items() if key not in ('name', 'weight')})
    if 'connector' in model:
        MODELS.build(dict(model.connector, student_channels=3, teacher_channels=4))


@pytest.mark.parametrize('loss', [OFALoss(), DIST()], ids=repr)
def test_what_is_of_whole_pictures_refuses_maps(loss):
    with pytest.raises(ValueError, match=rf'{type(loss).__name__} compares scores of pictures.*\(2, 3, 4, 4\)'):
        loss(randn(2, 3, 4, 4), randn(2, 3, 4, 4, seed=1))


# ---- senseless options ----

@pytest.mark.parametrize('kind, option, value', [
    (KLDivergence, 'reduction', 'sum'), (OFALoss, 'gamma', -3), (OFALoss, 'gamma', 0.5), (DKD, 'beta', math.nan),
    (DKD, 'alpha', -1), (DIST, 'beta', -1), (DIST, 'gamma', math.inf), (RelationalKD, 'distance_weight', -1),
    (RelationalKD, 'angle_weight', None), (RedundancySuppression, 'kappa', -1), (CorrelationCongruence, 'gamma', 0),
    (CorrelationCongruence, 'gamma', math.nan), (CorrelationCongruence, 'order', 0)],
    ids=lambda x: getattr(x, '__name__', repr(x)))
def test_senseless_options_are_refused_by_name(kind, option, value):
    with pytest.raises(ValueError, match=f'{option} must be .*{value!r}'):
        kind(**{option: value})
