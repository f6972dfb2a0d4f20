"""What holds for every loss, whatever it compares: finite values and gradients, no loss below zero, none for equals."""
import contextlib
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfkd.connectors import CommonGrid, Decomposed
from sfkd.losses import (
    DIST,
    DKD,
    BandInfoNCE,
    BandMSE,
    ChannelWiseDivergence,
    CorrelationCongruence,
    CosineDistance,
    DetailL1,
    FeatureMSE,
    GaussianFrequencyLoss,
    KLDivergence,
    OFALoss,
    RedundancySuppression,
    RelationalKD,
)
from sfkd.ops import dwt2, gaussian_frequency_loss, max_levels

# EXAMPLES=5000 searches for longer, at random
settings.register_profile('suite', deadline=None, database=None, derandomize='EXAMPLES' not in os.environ,
                          max_examples=int(os.environ.get('EXAMPLES', 60)))
settings.load_profile('suite')

MAPS = [BandMSE(), BandMSE('none'), GaussianFrequencyLoss(), GaussianFrequencyLoss(None), GaussianFrequencyLoss(0.1),
        FeatureMSE(), FeatureMSE('batchmean'), CosineDistance(), ChannelWiseDivergence(), ChannelWiseDivergence(4.0),
        DetailL1(), BandInfoNCE(), CorrelationCongruence(), RelationalKD(), RedundancySuppression()]
SCORES = [KLDivergence(), KLDivergence(4.0, 'mean'), DKD(), DKD(temperature=4.0), DIST(), OFALoss(), OFALoss(1.5)]
BANDS = (BandMSE, DetailL1, BandInfoNCE)
#: Zero for equals, whatever they are. (Cosines are of no direction at 0; OFA has the teacher's entropy, a contrast
#: the other pictures, RSD whether one channel tells of another.)
DISTANCES = (BandMSE, GaussianFrequencyLoss, FeatureMSE, ChannelWiseDivergence, DetailL1, CorrelationCongruence,
             RelationalKD, KLDivergence, DKD)

sides = st.integers(2, 13)
grids = st.tuples(sides, sides)
channels = st.integers(1, 7)
batches = st.integers(1, 4)
seeds = st.integers(0, 2**31)
layouts = st.sampled_from(['plain', 'channels_last', 'every other'])
values = st.sampled_from([1.0, 1e-30, 1e-20, 1e-10, 1e4, 1e8, 1e15, 'constant', 'zero', 'one-sided'])
casts = st.sampled_from([None, torch.bfloat16, torch.float16])
ids = lambda loss: type(loss).__name__


def numbers(shape, value=1.0, layout='plain', seed=0, dtype=torch.float32):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if value == 'one-sided':
        x = x.abs() + 100
    elif isinstance(value, str):
        x = torch.full_like(x, 3.0 if value == 'constant' else 0.0)
    else:
        x = x * value
    x = (x.clamp(-6e4, 6e4) if dtype == torch.float16 else x).to(dtype)
    if layout == 'channels_last' and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    elif layout == 'every other':
        x = torch.stack([x, torch.full_like(x, torch.nan)], -1).flatten(-2)[..., ::2]
    return x.detach().requires_grad_()


def as_taken(loss, x):
    """What a connector would hand to a loss."""
    if isinstance(loss, RedundancySuppression):
        return x.mean((2, 3))
    if not isinstance(loss, BANDS):
        return x
    return Decomposed(x, dwt2(x, min(2, max_levels(x.shape[2:]))), isometric=isinstance(loss, BandMSE))


def autocast(dtype):
    return contextlib.nullcontext() if dtype is None else torch.autocast('cpu', dtype)


def check(loss, s, t, cast=None):
    with autocast(cast):
        value = loss(as_taken(loss, s), as_taken(loss, t))
    gradient, = torch.autograd.grad(value, s)
    assert value.shape == () and value.dtype in (torch.float32, torch.float64), value.dtype
    assert value.isfinite() and value > -1e-5, value
    assert gradient.isfinite().all(), (value, gradient)
    return value, gradient


@pytest.mark.parametrize('loss', MAPS, ids=ids)
@given(n=batches, c=channels, grid=grids, value=values, teacher=values, layout=layouts, cast=casts, seed=seeds)
def test_losses_on_maps_are_finite_with_finite_gradients(loss, n, c, grid, value, teacher, layout, cast, seed):
    """Of maps as connectors give them, float32 whatever the autocast."""
    s = numbers((n, c, *grid), value, layout, seed)
    check(loss, s, numbers((n, c, *grid), teacher, layout, seed + 1).detach(), cast)


@pytest.mark.parametrize('loss', [FeatureMSE(), GaussianFrequencyLoss(), ChannelWiseDivergence(), BandMSE('none')],
                         ids=ids)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@given(n=batches, c=channels, grid=grids, value=st.sampled_from([1.0, 1e-10, 1e4, 'constant', 'zero']), seed=seeds)
def test_losses_on_maps_of_half_precision(loss, dtype, n, c, grid, value, seed):
    """Without a connector that makes them float32."""
    s, t = (numbers((n, c, *grid), value, seed=seed + i, dtype=dtype) for i in range(2))
    if isinstance(loss, BandMSE):
        s, t = s.detach().float().requires_grad_(), t.float()  # bands are made of aligned maps
    value, _ = check(loss, s, t.detach(), dtype)
    assert value.dtype == torch.float32


@pytest.mark.parametrize('loss', SCORES, ids=ids)
@given(n=batches, classes=st.integers(2, 20), value=values, teacher=values, layout=layouts, seed=seeds,
       dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_losses_on_scores_are_finite_with_finite_gradients(loss, n, classes, value, teacher, layout, seed, dtype):
    s = numbers((n, classes), value, layout, seed, dtype)
    if isinstance(loss, DIST) and dtype == torch.float16 and (s.float().softmax(1).std(1) < 1e-3).any():
        return  # a correlation with what hardly differs: a slope of up to 1e8, for the loss scaler to skip
    check(loss, s, numbers((n, classes), teacher, layout, seed + 1, dtype).detach(),
          None if dtype == torch.float32 else dtype)


@pytest.mark.parametrize('loss', [loss for loss in MAPS + SCORES if isinstance(loss, DISTANCES)], ids=ids)
@given(n=batches, c=st.integers(2, 7), grid=grids, seed=seeds, value=st.sampled_from([1.0, 1e-10, 1e4, 'zero']))
def test_equals_cost_nothing(loss, n, c, grid, seed, value):
    shape = (n, c) if loss in SCORES else (n, c, *grid)
    x = numbers(shape, value, seed=seed)
    found, gradient = check(loss, x, x.detach().clone())
    assert abs(found.item()) < 1e-5 and gradient.abs().max() < 1e-3 * max(1.0, value if value != 'zero' else 1.0)


@pytest.mark.parametrize('loss', MAPS, ids=ids)
@given(n=st.integers(2, 4), c=channels, grid=grids, seed=seeds)
def test_the_order_of_the_pictures_is_nothing_to_a_loss(loss, n, c, grid, seed):
    s, t = (numbers((n, c, *grid), seed=seed + i).detach() for i in range(2))
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    there, back = (loss(as_taken(loss, a), as_taken(loss, b)) for a, b in ((s, t), (s[order], t[order])))
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-6)


@given(n=batches, c=channels, grid=grids, seed=seeds, mask=st.sampled_from(['ones', 'zeros', 'one cell', 'random']),
       index=st.integers(0, 2))
def test_what_a_mask_hides_gets_no_gradient(n, c, grid, seed, mask, index):
    loss = (FeatureMSE(), ChannelWiseDivergence(), GaussianFrequencyLoss())[index]
    s, t = numbers((n, c, *grid), seed=seed), numbers((n, c, *grid), seed=seed + 1).detach()
    hidden = torch.rand(n, 1, *grid, generator=torch.Generator().manual_seed(seed)).round()
    if mask != 'random':
        hidden = torch.full_like(hidden, float(mask == 'ones'))
        hidden[0, 0, 0, 0] = float(mask != 'zeros')
    _, gradient = check(loss, s, t)
    value = loss(*CommonGrid(c, c)(s, t, hidden))
    masked, = torch.autograd.grad(value, s)
    assert value.isfinite() and not masked[hidden.expand_as(masked) == 0].any()
    if mask == 'ones':
        torch.testing.assert_close(masked, gradient)
    if mask == 'zeros':
        assert abs(value.item()) < 1e-6


@pytest.mark.parametrize('loss', [RelationalKD(), CorrelationCongruence(), CosineDistance()], ids=ids)
@given(n=st.integers(2, 4), c=channels, grid=grids, seed=seeds, power=st.sampled_from([-70, -40, -10, 3, 20, 70]))
def test_relations_forget_the_scale(loss, n, c, grid, seed, power):
    s, t = (numbers((n, c, *grid), seed=seed + i).detach() for i in range(2))
    if isinstance(loss, (CorrelationCongruence, CosineDistance)):
        power = max(-10, min(power, 20))  # a floor under the norms shows below
    torch.testing.assert_close(loss(s, t * 2.0**power), loss(s, t), rtol=1e-4, atol=1e-5)


@given(sigma=st.floats(0.05, 4), n=batches, c=channels, grid=grids, seed=seeds)
def test_a_filter_never_adds_energy(sigma, n, c, grid, seed):
    s, t = (numbers((n, c, *grid), seed=seed + i).detach() for i in range(2))
    assert 0 <= gaussian_frequency_loss(s, t, sigma) <= gaussian_frequency_loss(s, t, None) * (1 + 1e-5)


@pytest.mark.parametrize('loss', [GaussianFrequencyLoss(), GaussianFrequencyLoss(None)], ids=ids)
@given(a=st.tuples(batches, channels, sides, sides), b=st.tuples(batches, channels, sides, sides))
def test_maps_of_two_shapes_are_an_error_with_both(loss, a, b):
    s, t = numbers(a), numbers(b)
    if a == b:
        check(loss, s, t.detach())
        return
    with pytest.raises(ValueError) as error:
        loss(s, t)
    assert str(a) in str(error.value) and str(b) in str(error.value)
