"""What holds for every connector, whatever the maps: sizes, channels, layouts, types, masks and values."""
import contextlib
import copy
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfkd.connectors import (
    Align,
    CommonGrid,
    Decomposed,
    DualStreamRefinement,
    EmbeddingProjector,
    LogitProjector,
    MaskedGeneration,
    WaveletConnector,
)
from sfkd.errors import ConfigError
from sfkd.losses import BandMSE, FeatureMSE, GaussianFrequencyLoss

# EXAMPLES=5000 searches for longer, at random
settings.register_profile('suite', deadline=None, database=None, derandomize='EXAMPLES' not in os.environ,
                          max_examples=int(os.environ.get('EXAMPLES', 100)))
settings.load_profile('suite')

sides = st.integers(1, 13)
grids = st.tuples(sides, sides)
channels = st.integers(1, 9)
batches = st.integers(1, 4)
seeds = st.integers(0, 2**31)
layouts = st.sampled_from(['plain', 'channels_last', 'every other', 'tokens'])
#: By how much normal numbers are multiplied; 'constant' and 'zero' have no spread at all.
values = st.sampled_from([1.0, 1e-30, 1e-10, 1e4, 1e10, 1e18, 'constant', 'zero', 'large constant', 'spike'])
masks = st.sampled_from([None, 'ones', 'zeros', 'one cell', 'a column', 'random'])
casts = st.sampled_from([None, torch.bfloat16, torch.float16])


def features(shape, value=1.0, layout='plain', seed=0, dtype=torch.float32):
    """A map of some memory layout, that takes gradients, and what it was made of."""
    n, c, h, w = shape
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(seed))
    if value == 'spike':
        x = torch.zeros_like(x)
        x[0, 0, 0, 0] = 1e4
    elif isinstance(value, str):
        x = torch.full_like(x, {'constant': 3.0, 'zero': 0.0, 'large constant': 6e4}[value])
    else:
        x = x * value
    if dtype == torch.float16:
        x = x.clamp(-6e4, 6e4)
    x = x.to(dtype)
    if layout == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == 'every other':
        x = torch.stack([x, torch.full_like(x, torch.nan)], -1).flatten(3)[..., ::2]
    elif layout == 'tokens':
        x = x.flatten(2).transpose(1, 2).contiguous().transpose(1, 2).unflatten(2, (h, w))
    return x.detach().requires_grad_()


def cells(kind, n, grid, seed=0):
    """A mask (n, 1, h, w)."""
    if kind is None:
        return None
    mask = torch.zeros(n, 1, *grid)
    if kind == 'ones':
        mask += 1
    elif kind == 'one cell':
        mask[-1, 0, grid[0] // 2, grid[1] // 2] = 1
    elif kind == 'a column':
        mask[..., 0] = 1
    elif kind == 'random':
        mask = torch.rand(n, 1, *grid, generator=torch.Generator().manual_seed(seed)).round()
    return mask


def autocast(dtype):
    return contextlib.nullcontext() if dtype is None else torch.autocast('cpu', dtype)


def common(a, b):
    return tuple(map(min, a, b))


def finite(*tensors):
    return all(x is None or bool(x.isfinite().all()) for x in tensors)


def perturb(module, seed):
    """Weights as training might leave them: no branch is the identity any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)


wavelet_options = st.fixed_dictionaries(dict(
    levels=st.integers(1, 4), wavelet=st.sampled_from(['haar', 'db2', 'bior2.2', 'sym4']),
    refine=st.sampled_from([False, *(part or True for part in DualStreamRefinement.PARTS)]), streams=st.booleans()))


@given(options=wavelet_options, cs=channels, ct=channels, n=batches, gs=grids, gt=grids, layout=layouts, value=values,
       teacher=values, mask=masks, cast=casts, seed=seeds)
def test_the_wavelet_connector_gives_finite_losses_and_gradients_or_an_error_with_the_grid(
        options, cs, ct, n, gs, gt, layout, value, teacher, mask, cast, seed):
    """SFKD's own path, on anything at all; with huge, constant and zero features too, under both autocasts."""
    connector = WaveletConnector(cs, ct, **options)
    perturb(connector, seed)
    grid = common(gs, gt)
    s = features((n, cs, *gs), value, layout, seed, cast or torch.float32)
    t = features((n, ct, *gt), teacher, layout, seed + 1).detach()
    if not connector.levels_on(grid):  # and of a single cell, batch normalisation says so first, with its shape
        with pytest.raises(ValueError, match=rf'{grid[0]}x{grid[1]}|\[1, {ct}, 1, 1\]'), autocast(cast):
            GaussianFrequencyLoss()(*connector(s, t, cells(mask, n, grid, seed)))
            BandMSE('none')(*connector(s, t, cells(mask, n, grid, seed)))
        return
    with autocast(cast):
        student, taught = connector(s, t, cells(mask, n, grid, seed))
        losses = [loss(student, taught) for loss in (BandMSE(), BandMSE('none', refined=True), GaussianFrequencyLoss())]
    for side in (student, student.refined, taught):
        assert side.map.shape == (n, ct, *grid) and side.map.dtype == torch.float32
        assert finite(side.map, *side.bands.each())
    gradients = torch.autograd.grad(sum(losses), [s, *connector.parameters()], allow_unused=True)
    assert all(loss >= 0 for loss in losses) and finite(*losses, *gradients), (losses, gradients[0])


@pytest.mark.parametrize('cast', [None, torch.bfloat16, torch.float16])
@pytest.mark.parametrize('value', ['constant', 'zero', 'large constant', 'spike', 1e4, 1e18])
@pytest.mark.parametrize('options', [
    {}, dict(refine=True), dict(streams=True), dict(wavelet='db2', levels=1, refine=True)])
def test_gradients_of_the_frequency_losses_are_finite_for_constant_zero_and_huge_features(options, value, cast):
    for seed in range(5):
        connector = WaveletConnector(4, 5, **options)
        perturb(connector, seed)
        s = features((3, 4, 7, 6), value, seed=seed, dtype=cast or torch.float32)
        for teacher in (1.0, 'zero', 'large constant'):
            t = features((3, 5, 7, 6), teacher, seed=seed + 1, dtype=cast or torch.float32).detach()
            with autocast(cast):
                sides = connector(s, t)
                loss = GaussianFrequencyLoss()(*sides) + BandMSE('none')(*sides) + BandMSE(refined=True)(*sides)
            assert finite(loss, *torch.autograd.grad(loss, [s, *connector.parameters()]))


@given(cs=channels, ct=channels, n=batches, gs=grids, gt=grids, layout=layouts, value=values, mask=masks, cast=casts,
       seed=seeds, refine=st.booleans(), streams=st.booleans())
def test_what_a_mask_hides_changes_nothing_and_gets_no_gradient(cs, ct, n, gs, gt, layout, value, mask, cast, seed,
                                                                refine, streams):
    grid = gs
    hidden = cells(mask, n, grid, seed)
    if hidden is None or min(grid) < 2:
        return
    connector = WaveletConnector(cs, ct, refine=refine, streams=streams)
    perturb(connector, seed)
    s = features((n, cs, *grid), value, layout, seed, cast or torch.float32)
    t = features((n, ct, *grid), 1.0, layout, seed + 1).detach()
    with autocast(cast):
        student, teacher = connector(s, t, hidden)
        loss = FeatureMSE()(student.map, teacher.map) + FeatureMSE()(student.refined.map, teacher.map)
    gradient, = torch.autograd.grad(loss, s)
    outside = hidden.expand_as(gradient) == 0
    assert not gradient[outside].any()
    for side in (student, student.refined):
        assert not side.map[hidden.expand_as(side.map) == 0].any()
    other = torch.where(hidden > 0, s, torch.full_like(s, 77.0))
    with autocast(cast):
        changed, _ = connector(other, torch.where(hidden > 0, t, -t), hidden)
    torch.testing.assert_close(changed.map, student.map, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed.refined.map, student.refined.map, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', [Align, WaveletConnector])
@given(cs=channels, ct=channels, n=batches, grid=st.tuples(st.integers(2, 9), st.integers(2, 9)), seed=seeds,
       standardised=st.booleans())
def test_a_mask_of_ones_is_no_mask(kind, cs, ct, n, grid, seed, standardised):
    connector = kind(cs, ct, standardised=standardised)
    s, t = features((n, cs, *grid), seed=seed), features((n, ct, *grid), seed=seed + 1)
    plain, masked = (connector(s, t, mask) for mask in (None, cells('ones', n, grid)))
    for a, b in zip(plain, masked):
        a, b = (x.map if isinstance(x, Decomposed) else x for x in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', [Align, CommonGrid])
@given(c=channels, n=batches, grid=st.tuples(st.integers(2, 9), st.integers(2, 9)), seed=seeds,
       scale=st.sampled_from([0.5, 3.0, 1e4]), shift=st.sampled_from([0.0, -1.0, 30.0]),
       mask=st.sampled_from([None, 'ones', 'random']))
def test_standardised_maps_forget_the_teachers_scale_and_shift(kind, c, n, grid, seed, scale, shift, mask):
    connector = kind(c, c, standardised=True)
    s, t = (features((n, c, *grid), seed=seed + i).detach() for i in range(2))
    hidden = cells(mask, n, grid, seed)
    seen = torch.ones(n, 1, *grid) if hidden is None else hidden
    if seen.sum() < 3:
        return
    plain, scaled = (connector(s, x, hidden)[1] for x in (t, (t + shift) * scale))
    mean = (t * seen).sum((0, 2, 3), keepdim=True) / seen.sum()
    spread = ((t - mean).square() * seen).sum((0, 2, 3), keepdim=True) / seen.sum() > 0.01  # or the floor shows
    torch.testing.assert_close(torch.where(spread, plain, 0), torch.where(spread, scaled, 0), rtol=5e-3, atol=5e-3)


@given(cs=channels, ct=channels, gs=grids, gt=grids)
def test_maps_of_other_channels_have_no_common_grid_connector(cs, ct, gs, gt):
    if cs != ct:
        with pytest.raises(ValueError, match=f'student has {cs} classes and the teacher {ct}'):
            CommonGrid(cs, ct)
        return
    student, teacher = CommonGrid(cs, ct)(features((2, cs, *gs)), features((2, ct, *gt)))
    assert student.shape == teacher.shape == (2, cs, *common(gs, gt))


@given(c=channels, n=batches, grid=grids, value=values, layout=layouts, mask=masks, seed=seeds,
       standardised=st.booleans())
def test_common_grid_is_zero_outside_of_the_mask(c, n, grid, value, layout, mask, seed, standardised):
    s, t = features((n, c, *grid), value, layout, seed), features((n, c, *grid), 1.0, layout, seed + 1).detach()
    hidden = cells(mask, n, grid, seed)
    if standardised and hidden is None and n * grid[0] * grid[1] == 1:
        return  # nothing to standardise over: torch says so
    student, teacher = CommonGrid(c, c, standardised)(s, t, hidden)
    assert finite(student, teacher)
    if hidden is not None:
        assert not any(side.masked_fill(hidden > 0, 0).any() for side in (student, teacher))
        gradient, = torch.autograd.grad(student.sum(), s)
        assert not gradient[hidden.expand_as(gradient) == 0].any()


@given(c=channels, classes=st.integers(1, 12), n=batches, grid=grids, layout=layouts, value=values, cast=casts,
       seed=seeds)
def test_the_logit_projector_gives_scores_or_says_that_it_needs_more_pictures(c, classes, n, grid, layout, value, cast,
                                                                              seed):
    projector = LogitProjector(c, classes)
    s = features((n, c, *grid), value, layout, seed, cast or torch.float32)
    t = torch.randn(n, classes)
    if cast == torch.float16 and value in (1e4, 1e10, 1e18, 'large constant'):
        return  # a plain network in half precision: its sums overflow, and the loss scaler skips the step
    try:
        with autocast(cast):
            student, teacher = projector(s, t)
    except ValueError as error:  # batch normalisation of one value a channel
        assert n == 1 and max(grid) <= 4 and 'more than 1 value per channel' in str(error)
        return
    assert student.shape == (n, classes) and teacher is t and finite(student)
    assert finite(*torch.autograd.grad(student.float().square().sum(), [s, *projector.parameters()]))


@given(cs=channels, ct=channels, n=batches, gs=grids, gt=grids, layout=layouts, value=values, mask=masks, cast=casts,
       seed=seeds)
def test_the_embedding_projector_gives_finite_embeddings_or_says_that_it_needs_more_pictures(
        cs, ct, n, gs, gt, layout, value, mask, cast, seed):
    projector, grid = EmbeddingProjector(cs, ct), common(gs, gt)
    s = features((n, cs, *gs), value, layout, seed, cast or torch.float32)
    t = features((n, ct, *gt), value, layout, seed + 1).detach()
    hidden = cells(mask, n, grid, seed)
    if n == 1:
        with pytest.raises(ValueError, match='this one has one'):
            projector(s, t, hidden)
        return
    with autocast(cast):
        student, teacher = projector(s, t, hidden)
    assert student.shape == teacher.shape == (n, ct) and student.dtype == teacher.dtype == torch.float32
    assert finite(student, teacher, *torch.autograd.grad(student.sum(), [s, *projector.parameters()]))
    if gs == grid and hidden is not None:
        gradient, = torch.autograd.grad(projector(s, t, hidden)[0].square().sum(), s)
        assert not gradient[hidden.expand_as(gradient) == 0].any()


@given(cs=channels, ct=channels, n=batches, gs=grids, gt=grids, layout=layouts, value=values, mask=masks, cast=casts,
       seed=seeds, masked=st.sampled_from(['channels', 'cells']), ratio=st.sampled_from([0, 0.15, 0.75]))
def test_masked_generation_gives_finite_maps_that_padding_does_not_reach(cs, ct, n, gs, gt, layout, value, mask, cast,
                                                                         seed, masked, ratio):
    connector, grid = MaskedGeneration(cs, ct, ratio, masked), common(gs, gt)
    s = features((n, cs, *gs), value, layout, seed, cast or torch.float32)
    t = features((n, ct, *gt), value, layout, seed + 1).detach()
    hidden = cells(mask, n, grid, seed)
    with autocast(cast):
        student, teacher = connector(s, t, hidden)
    assert student.shape == teacher.shape == (n, ct, *grid) and student.dtype == teacher.dtype == torch.float32
    gradients = torch.autograd.grad(student.sum(), [s, *connector.parameters()])
    assert finite(student, teacher, *gradients)
    if hidden is not None:
        assert not any(x[hidden.expand_as(x) == 0].any() for x in (student, teacher))
        assert gs != grid or not gradients[0][hidden.expand_as(s) == 0].any()


@given(n=st.integers(1, 3), c=st.integers(1, 4), grid=grids, dims=st.sampled_from([2, 3, 5]), seed=seeds)
def test_what_is_no_map_is_refused(n, c, grid, dims, seed):
    shape = (n, c, *grid, 2)[:dims]
    with pytest.raises((ValueError, RuntimeError, IndexError, ConfigError)):
        WaveletConnector(c, c)(torch.randn(shape), torch.randn(shape))


@pytest.mark.parametrize('kind, options', [
    (Align, {}), (Align, dict(standardised=False)), (WaveletConnector, {}), (WaveletConnector, dict(refine=True)),
    (WaveletConnector, dict(streams=True)), (EmbeddingProjector, {}), (MaskedGeneration, {}), (LogitProjector, {})])
@pytest.mark.parametrize('grid', [(8, 8), (4, 4)])  # DS2S has loops of its own for the low band of the second
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_connectors_train_in_half_precision_as_a_whole(kind, options, grid, dtype):
    """As ``.half()`` of a distillation casts them, not autocast: in float32 where maps are, near the values there."""
    connector = kind(5, 6, **options)
    perturb(connector, 0)
    half = copy.deepcopy(connector).to(dtype)
    s, t = features((4, 5, *grid)).detach().requires_grad_(), features((4, 6, *grid), seed=1).detach()
    found = []
    for module, cast in (connector, torch.float32), (half, dtype):
        torch.manual_seed(0)  # MGD draws what it hides
        given = s.detach().to(cast).requires_grad_()
        side = module(given, t.to(cast))[0]
        side = side.refined.map if isinstance(side, Decomposed) else side
        side.float().square().sum().backward()
        assert finite(given.grad.float(), *(weight.grad.float() for weight in module.parameters()))
        found.append(side.float())
    assert (found[1] - found[0]).norm() < 0.05 * found[0].norm()
