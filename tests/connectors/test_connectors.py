"""Connectors: their numbers, their start, their size, and that they cannot cheat."""
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sfkd.connectors import Align, Decomposed, DualStreamRefinement, MaskedGeneration, WaveletConnector, wavelet
from sfkd.connectors.wavelet import PACE, BandResidual
from sfkd.losses import BandMSE, GaussianFrequencyLoss
from sfkd.ops import Bands, dwt2, standardise


def randn(*shape, seed=0, **kwargs):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), **kwargs)


def perturb(module, by=0.3):
    for i, p in enumerate(module.parameters()):
        p.data += by * randn(*p.shape, seed=i)


def tensors(decomposed):
    return decomposed.map, decomposed.bands.low, *decomposed.bands.details


def joint(student, teacher):
    """DS2S before both terms."""
    return BandMSE(refined=True)(student, teacher) + GaussianFrequencyLoss()(student, teacher)


# ---- align ----

def test_align_by_hand():
    align = Align(2, 1)
    align.project.weight.data = torch.tensor([1., 2.]).view(1, 2, 1, 1)
    # projected: 1 2 0 0, mean 3/4, variance 11/16
    student = torch.tensor([[[[1., 0.], [0., 0.]], [[0., 1.], [0., 0.]]]])
    teacher = torch.arange(16.).view(1, 1, 4, 4)  # pooled: 2.5 4.5 10.5 12.5, mean 7.5, variance 17
    student, teacher = align(student, teacher)
    torch.testing.assert_close(student.flatten(), torch.tensor([1, 5, -3, -3]) / 4 / math.sqrt(11 / 16 + 1e-5))
    torch.testing.assert_close(teacher.flatten(), torch.tensor([-5., -3, 3, 5]) / math.sqrt(17 + 1e-5))


def test_align_takes_the_smaller_side_in_each_direction():
    align = Align(1, 1)
    align.project.weight.data.fill_(1)
    student, teacher = align(torch.arange(8.).view(1, 1, 2, 4), torch.arange(8.).view(1, 1, 4, 2))
    assert student.shape == teacher.shape == (1, 1, 2, 2)
    # .5 2.5 4.5 6.5
    torch.testing.assert_close(student.flatten(), torch.tensor([-2.5, -.5, 1.5, 3.5]).sub(.5) / math.sqrt(5))
    assert torch.equal(standardise(torch.tensor([[[[1., 2.], [5., 6.]]]]))[0], teacher)


# ---- the wavelet connector ----

def connectors(student, teacher, **kwargs):
    """With and without refinement, of one projection."""
    refined, plain = (WaveletConnector(student, teacher, refine=refine, **kwargs) for refine in (True, False))
    plain.align.load_state_dict(refined.align.state_dict())
    return refined, plain


@pytest.mark.parametrize('wavelet', ('haar', 'db2'))
@pytest.mark.parametrize('grid', [(8, 8), (7, 7), (5, 6)])
def test_refinement_starts_as_the_identity(grid, wavelet):
    refined, plain = connectors(6, 8, wavelet=wavelet)
    s, t = randn(2, 6, *grid), randn(2, 8, 9, 9, seed=1)
    (student, teacher), (student_plain, teacher_plain) = refined(s, t), plain(s, t)
    for a, b in zip(tensors(student.refined), tensors(student_plain), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-6)
    perturb(refined.refine)
    moved, teacher_after = refined(s, t)
    for a, b in zip(tensors(moved.refined), tensors(student_plain), strict=True):
        assert (a - b).abs().mean() > 0.1 * PACE
    for a, b in zip(tensors(moved), tensors(student_plain), strict=True):
        assert torch.equal(a, b)  # what is not refined stays as it was
    assert teacher.refined is teacher and student_plain.refined is student_plain
    for a, b, c in zip(tensors(teacher_after), tensors(teacher), tensors(teacher_plain), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)  # nothing learned acts on the teacher


def test_plain_connector_is_align_then_dwt():
    _, plain = connectors(6, 8)
    s, t = randn(2, 6, 7, 7), randn(2, 8, 14, 14, seed=1)
    for found, expected in zip(plain(s, t), plain.align(s, t)):
        assert torch.equal(found.map, expected)
        for a, b in zip(found.bands.each(), dwt2(expected, 2).each(), strict=True):
            assert torch.equal(a, b)


def test_refined_map_is_rebuilt_from_the_refined_bands():
    connector = WaveletConnector(6, 8, refine=True)
    perturb(connector.refine)
    found = connector(randn(2, 6, 8, 8), randn(2, 8, 8, 8))[0]
    for a, b in zip(dwt2(found.refined.map, 2).each(), found.refined.bands.each(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize('wavelet', ['haar', 'db2'])
@pytest.mark.parametrize('grid, rows, columns', [
    ((25, 25), (0, 15), (0, 25)), ((25, 25), (9, 15), (6, 11)), ((13, 21), (0, 13), (15, 21)),
    ((8, 8), (5, 8), (0, 8))])
def test_what_a_mask_leaves_keeps_what_its_bands_say(grid, rows, columns, wavelet):
    """Wherever there is no label: a coefficient that reaches into the picture is the picture's too."""
    connector = WaveletConnector(6, 8, wavelet=wavelet, refine=True)
    mask = torch.ones(2, 1, *grid)
    mask[0, :, slice(*rows), slice(*columns)] = 0
    student, _ = connector(randn(2, 6, *grid), randn(2, 8, *grid, seed=1), mask)  # DS2S starts as the identity
    torch.testing.assert_close(student.refined.map, student.map, rtol=0, atol=1e-5)
    for a, b in zip(student.refined.bands.each(), dwt2(student.map, 2, wavelet).each(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('grid, name', [((8, 8), 'haar'), ((7, 5), 'haar'), ((7, 10), 'db2')])
def test_balanced_bands_of_orthogonal_wavelets_are_never_computed(grid, name, masked, monkeypatch):
    """By Parseval; the same loss and gradient as over the bands, which are there for who asks."""
    plain = WaveletConnector(6, 8, wavelet=name, refine=False).double()
    s, t = randn(2, 6, *grid, dtype=torch.float64, requires_grad=True), randn(2, 8, *grid, seed=1, dtype=torch.float64)
    mask = torch.ones(2, 1, *grid, dtype=torch.float64)
    mask[0, :, :, 3:] = 0
    sides = plain(s, t, *[mask] * masked)
    explicit = BandMSE()(*(Decomposed(side.map, side.bands) for side in sides))
    monkeypatch.setattr(wavelet, 'dwt2', lambda *_: pytest.fail('bands were computed'))
    loss = BandMSE()(*plain(s, t, *[mask] * masked))
    torch.testing.assert_close(loss, explicit, rtol=1e-9, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, s)[0] for x in (loss, explicit)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('grid, levels', [((2, 2), 1), ((3, 2), 1), ((4, 4), 2), ((7, 7), 2), ((32, 32), 2)])
def test_levels_fall_to_what_the_grid_allows(grid, levels):
    connector = WaveletConnector(3, 5)
    student, teacher = connector(randn(2, 3, *grid), randn(2, 5, 32, 32))
    assert connector.levels_on(grid) == len(student.bands.details) == len(teacher.bands.details) == levels
    assert student.map.shape == teacher.map.shape == (2, 5, *grid)


@pytest.mark.parametrize('masked', [False, True])
def test_without_levels_the_map_is_its_own_low_band(masked):
    """What the ablation of the transform compares with: the low stream's first stage, on the map."""
    connector = WaveletConnector(3, 5, levels=0, refine=True).double()
    assert len(list(connector.refine.parameters())) == 4  # none that would never learn
    for weight in connector.refine.parameters():
        nn.init.normal_(weight, std=0.3, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.float64)
    mask[0, :, :, 4:] = 0
    student, teacher = connector(randn(2, 3, 6, 6).double(), randn(2, 5, 6, 6, seed=1).double(), *[mask] * masked)
    assert torch.equal(student.bands.low, student.map) and student.bands.details == teacher.bands.details == ()
    expected = connector.refine.low(student.map.unsqueeze(2)).squeeze(2)
    expected = expected * mask if masked else expected
    torch.testing.assert_close(student.refined.map, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(student.refined.map, student.map)
    torch.testing.assert_close(BandMSE(refined=True)(student, teacher), F.mse_loss(expected, teacher.map))


@pytest.mark.parametrize('options', [dict(refine='low'), dict(refine='between'), dict(refine=False, streams=True)])
def test_without_levels_there_is_nothing_for_a_second_stream(options):
    with pytest.raises(ValueError, match='levels=0 leaves no details'):
        WaveletConnector(3, 5, levels=0, **options)


# ---- streams ----

@pytest.mark.parametrize('grid, wavelet', [((8, 8), 'haar'), ((7, 5), 'haar'), ((12, 16), 'db2')])
def test_two_streams_of_the_same_weights_are_one_projection(grid, wavelet):
    apart, shared = (WaveletConnector(3, 5, wavelet=wavelet, refine=False, streams=streams).double()
                     for streams in (True, False))
    project, s, t = apart.align.project, randn(2, 3, *grid).double(), randn(2, 5, *grid, seed=1).double()
    for conv in (project.low, project.detail):
        conv.load_state_dict(shared.align.project.state_dict())
    torch.testing.assert_close(apart(s, t)[0].map, shared(s, t)[0].map, rtol=1e-10, atol=1e-10)


def test_each_stream_has_its_own_weights():
    """By hand: a silent detail stream leaves what its band says at its grid, a silent low stream the rest."""
    x, connector = randn(1, 2, 4, 4).double(), WaveletConnector(2, 3, levels=1, refine=False, streams=True).double()
    project = connector.align.project
    low, detail = (conv.weight.detach()[..., 0, 0] for conv in (project.low, project.detail))
    broad = F.avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)  # what Haar's low band alone gives back
    expected = torch.einsum('oc,nchw->nohw', low, broad) + torch.einsum('oc,nchw->nohw', detail, x - broad)
    torch.testing.assert_close(project(x), expected, rtol=1e-10, atol=1e-12)


# ---- DS2S ----

def bands(channels=4, grid=(8, 8), levels=2):
    return dwt2(randn(2, channels, *grid), levels)


def set_to_constant(branch, value):
    """What a residual of DS2S adds, whatever it gets: GELU(1) through equal weights upwards."""
    branch.depthwise.weight.data.zero_()
    branch.depthwise.bias.data.fill_(1)
    hidden = branch.up.weight.shape[1]
    branch.up.weight.data.fill_(value / (PACE * hidden * float(torch.nn.functional.gelu(torch.tensor(1.)))))


@pytest.mark.parametrize('part', ['low', 'detail', 'low_to_detail', 'detail_to_low'])
def test_each_branch_of_ds2s_by_hand(part):
    """Of a branch that gives 0.5 whatever it gets: residuals add it, gates multiply by 1 + tanh of it."""
    refine, given = DualStreamRefinement(4), bands()
    if '_to_' in part:
        getattr(refine, part).bias.data.fill_(0.5 / PACE)
    else:
        set_to_constant(getattr(refine, part), 0.5)
    found, gate = refine(given), 1 + math.tanh(0.5)
    low = {'low': given.low + 0.5, 'detail_to_low': given.low * gate}.get(part, given.low)
    torch.testing.assert_close(found.low, low)
    for ours, d in zip(found.details, given.details, strict=True):
        torch.testing.assert_close(ours, {'detail': d + 0.5, 'low_to_detail': d * gate}.get(part, d))


def test_the_residual_of_a_band_is_what_its_layers_say():
    """Against torch's own layers, one band at a time."""
    branch, x = BandResidual(8, 4, bands=3).double(), randn(2, 8, 3, 5, 6).double()
    perturb(branch)
    for band in range(3):
        own = torch.nn.Conv2d(4, 4, 3, padding=1, groups=4).double()
        rows = slice(band, None, 3)
        own.weight.data, own.bias.data = branch.depthwise.weight[rows], branch.depthwise.bias[rows]
        expected = x[:, :, band] + PACE * branch.up(torch.nn.functional.gelu(own(branch.down(x[:, :, band]))))
        torch.testing.assert_close(branch(x)[:, :, band], expected)


def test_the_streams_gate_each_other_by_hand():
    refine = DualStreamRefinement(4)
    low, fine, coarse = torch.full((1, 4, 2, 2), 0.3), torch.full((1, 4, 3, 4, 4), 2.), torch.full((1, 4, 3, 2, 2), 3.)
    for gate in (refine.low_to_detail, refine.detail_to_low):
        gate.weight.data[:, :, 1, 1] = 0.7 / PACE  # the centre alone
    set_to_constant(refine.low, 0.1)
    set_to_constant(refine.detail, 0.5)
    found = refine(Bands(low, (fine, coarse)))  # after the first stage: 0.4, 2.5 and 3.5
    torch.testing.assert_close(found.details[0], (fine + 0.5) * (1 + math.tanh(0.7 * 0.4)))
    torch.testing.assert_close(found.details[1], (coarse + 0.5) * (1 + math.tanh(0.7 * 0.4)))
    torch.testing.assert_close(found.low, (low + 0.1) * (1 + math.tanh(0.7 * math.log(2.5**2 + 3.5**2 + 1e-6))))


def test_a_detail_band_acts_on_itself_and_on_the_low_band_alone():
    refine, given = DualStreamRefinement(4), bands()
    perturb(refine)
    changed = Bands(given.low, (given.details[0].clone(), given.details[1]))
    changed.details[0][0, :, 2] += 1  # HH of the finest level, of the first picture
    # LL, then LH HL HH of the finest level, then of the next
    before, after = refine(given).each(), refine(changed).each()
    moved = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if not torch.equal(a[0], b[0])]
    assert moved == [0, 3]
    assert all(torch.equal(a[1], b[1]) for a, b in zip(before, after))  # the other picture


@pytest.mark.parametrize('part, branches', [
    ('within', {'low', 'detail'}), ('between', {'low_to_detail', 'detail_to_low'}), ('low', {'low', 'detail_to_low'}),
    ('detail', {'detail', 'low_to_detail'})])
def test_a_part_of_ds2s_is_the_whole_with_the_rest_as_the_identity(part, branches):
    whole, alone, given = DualStreamRefinement(4), DualStreamRefinement(4, part), bands()
    perturb(alone)
    assert {key.partition('.')[0] for key in alone.state_dict()} == branches
    assert not whole.load_state_dict(alone.state_dict(), strict=False).unexpected_keys
    for ours, expected in zip(alone(given).each(), whole(given).each(), strict=True):
        torch.testing.assert_close(ours, expected)
    assert WaveletConnector(3, 4, refine=part).refine.state_dict().keys() == alone.state_dict().keys()


def test_ds2s_computes_in_float32_under_autocast():
    refine, given = DualStreamRefinement(8), bands(8)
    perturb(refine)
    with torch.autocast('cpu', torch.bfloat16):
        found = refine(given)
    for ours, expected in zip(found.each(), refine(given).each(), strict=True):
        assert torch.equal(ours, expected)


def test_ds2s_names_its_parts():
    with pytest.raises(ValueError, match="'within', 'between', 'low', 'detail', not 'lwo'"):
        DualStreamRefinement(4, 'lwo')


@pytest.mark.parametrize('pair, channels, student', [
    ('Swin-T to ResNet-18', (96, 192, 384, 768), 11.69e6), ('ViT-S to MobileNetV2', (384, ) * 4, 3.50e6),
    ('Mixer-B to ResNet-18', (768, ) * 4, 11.69e6)])
def test_ds2s_is_small(pair, channels, student):
    count = sum(p.numel() for c in channels for p in DualStreamRefinement(c).parameters())
    assert count < 0.1 * student, f'{pair}: {count / student:.1%}'


def test_ds2s_grows_linearly_with_the_channels():
    """Six depthwise 3x3 a channel (three for the details) with biases, and two bottlenecks of 16 with one bias each."""
    assert sum(p.numel() for p in DualStreamRefinement(2048).parameters()) == (2 * 10 + 2 * 2 * 16) * 2048 + 4 * 10 * 16


@pytest.mark.parametrize('grid', [(7, 7), (8, 8), (2, 2)])
def test_everything_trains_after_one_step_and_so_does_the_student(grid):
    connector = WaveletConnector(6, 8, refine=True)
    s, t = randn(4, 6, *grid, requires_grad=True), randn(4, 8, *grid, seed=1)
    optimizer = torch.optim.SGD(connector.parameters(), 0.1)
    for _ in range(2):
        optimizer.zero_grad()
        student, teacher = connector(s, t)
        joint(student, teacher).backward()
        optimizer.step()
    assert [name for name, p in connector.named_parameters() if not p.grad.abs().sum() > 0] == []
    assert s.grad.abs().amin((0, 2, 3)).min() > 0
    assert not any(x.requires_grad for x in tensors(teacher))


def test_bf16_autocast_stays_close():
    connector = WaveletConnector(6, 8, refine=True)
    perturb(connector.refine, 0.1)
    s, t = randn(4, 6, 7, 7, requires_grad=True), randn(4, 8, 14, 14, seed=1)
    exact = connector(s, t)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = connector(s, t)
        loss = joint(*rounded)
    for side, (a, b) in enumerate(zip(exact, rounded)):
        for x, y in zip(tensors(a.refined), tensors(b.refined), strict=True):
            assert y.dtype == torch.float32 and y.isfinite().all()
            assert (x - y).norm() < (0.03, 1e-5)[side] * x.norm()
    loss.backward()
    assert s.grad.isfinite().all() and all(p.grad.isfinite().all() for p in connector.parameters())


# ---- no collapse ----

N, CHANNELS, GRID = 16, 8, (8, 8)  # 1,024 positions for 8 channels: far more than a projection can fit


def unrelated():
    return randn(N, CHANNELS, *GRID), randn(N, CHANNELS, *GRID, seed=1)


def train(loss, *modules, steps=250):
    optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], 0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    return value.item()


def decomposed(x):
    return Decomposed(x, dwt2(x, 2))


def test_a_projection_reaches_the_least_squares_floor_and_no_lower():
    """Standardised sides at correlation r are 2 - 2r apart in mean square; least squares gives the largest r of each
    channel.
    """
    s, t = unrelated()
    connector = WaveletConnector(CHANNELS, CHANNELS, refine=False)
    trained = train(lambda: BandMSE()(*connector(s, t)), connector)
    columns = [x.double().transpose(0, 1).flatten(1).T for x in (s, t)]
    x, y = (c - c.mean(0) for c in columns)
    fit = x @ torch.linalg.lstsq(x, y).solution
    floor = (2 - 2 * (fit.square().sum(0) / y.square().sum(0)).sqrt()).mean().item()
    assert 1.7 < floor < 1.95
    assert floor - 1e-3 < trained < floor + 0.02


def test_refinement_cannot_collapse_the_loss_on_unrelated_features():
    """Shrinking the student to nothing leaves the whole of the standardised teacher: the loss of predicting zero."""
    s, t = unrelated()
    connector = WaveletConnector(CHANNELS, CHANNELS, refine=True)
    perturb(connector.refine, 0.02)
    nothing = joint(decomposed(torch.zeros_like(t)), connector(s, t)[1]).item()
    start = joint(*connector(s, t)).item()
    trained = train(lambda: joint(*connector(s, t)), connector)
    assert start > 1.9 * nothing
    assert 0.8 * nothing < trained < nothing


def test_a_learned_layer_on_the_teachers_side_would_collapse():
    """The contrast that shows what the test above can see."""
    s, t = unrelated()
    connector, layer = WaveletConnector(CHANNELS, CHANNELS, refine=True), nn.Conv2d(CHANNELS, CHANNELS, 1)

    def loss():
        student, teacher = connector(s, t)
        return joint(student, decomposed(layer(teacher.map)))
    nothing = joint(decomposed(torch.zeros_like(t)), connector(s, t)[1]).item()
    assert train(loss, connector, layer) < 0.1 * nothing


# ---- padding ----

def masked(n=3, grid=(8, 8), size=(8, 8), filled=(4, 8)):
    """A mask of ``grid`` of which the upper left ``filled`` cells are picture."""
    mask = torch.zeros(n, 1, *grid)
    mask[:, :, :filled[0], :filled[1]] = 1
    return mask


@pytest.mark.parametrize('connector', [
    pytest.param(Align(5, 6), id='Align'), pytest.param(Align(5, 6, standardised=False), id='Align, as it is'),
    pytest.param(WaveletConnector(5, 6, refine=True), id='DS2S'), pytest.param(WaveletConnector(5, 6), id='no DS2S'),
    pytest.param(MaskedGeneration(5, 6, ratio=0), id='MGD that hides nothing')])
def test_what_is_padded_teaches_nothing(connector):
    torch.manual_seed(0)
    for parameter in connector.parameters():
        parameter.data = 0.3 * torch.randn_like(parameter)
    connector, mask = connector.double(), masked().double()
    student, teacher = torch.randn(3, 5, 8, 8).double().requires_grad_(), torch.randn(3, 6, 8, 8).double()
    noisy_student = (student.detach() + 100 * (1 - mask)).requires_grad_()

    def loss(s, t):
        s, t = connector(s, t, mask)
        if isinstance(s, Decomposed):
            return BandMSE()(s, t) + joint(s, t)
        return F.mse_loss(s, t)
    clean, noisy = loss(student, teacher), loss(noisy_student, teacher - 50 * (1 - mask))
    assert noisy.item() == pytest.approx(clean.item(), rel=1e-12)
    clean.backward()
    noisy.backward()
    assert torch.allclose(noisy_student.grad, student.grad) and student.grad.abs().sum() > 0
    assert (student.grad * (1 - mask)).abs().max() == 0


def test_a_padded_batch_gives_the_loss_of_the_cropped_one():
    """Refinement apart, whose convolutions see zeros instead of an end: masked maps times their share of the grid are
    cropped ones.
    """
    connector, mask = WaveletConnector(5, 6, refine=False).double(), masked().double()
    student, teacher = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 6, 8, 8).double()
    whole = 2 * BandMSE()(*connector(student, teacher, mask))
    cropped = BandMSE()(*connector(student[:, :, :4], teacher[:, :, :4]))
    assert whole.item() == pytest.approx(cropped.item(), rel=1e-10)
