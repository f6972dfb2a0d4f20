"""What losses make of pictures that do not fill the batch, or of which some pixels are taught alone."""
import copy

import pytest
import torch
import torch.nn.functional as F

from sfkd.connectors import Align, CommonGrid, ConvModuleConnector
from sfkd.distillation import Pair
from sfkd.features.padding import TaughtCells
from sfkd.features.probe import Stage
from sfkd.losses import (
    ChannelWiseDivergence,
    CorrelationCongruence,
    CosineDistance,
    FeatureMSE,
    PooledMSE,
    RelationalKD,
)


def test_under_a_mask_only_means_over_the_grid_are_set_right_by_its_share():
    """A quarter of the cells counts: a mean over all cells is four times too small, a divergence of whole channels is
    not.
    """
    stages = Stage('s', 3, (8, 8), 8, ''), Stage('t', 3, (8, 8), 8, '')
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, :4, :4] = 1
    torch.manual_seed(0)
    maps = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    losses = dict(mse=(2.0, FeatureMSE()), cwd=(2.0, ChannelWiseDivergence()))
    found = Pair('p', *stages, None, losses)(*maps, TaughtCells(mask, [(8, 8)]))
    torch.testing.assert_close(found['distill.p.loss_mse'], 2 * F.mse_loss(*(x[:, :, :4, :4] for x in maps)))
    torch.testing.assert_close(found['distill.p.loss_cwd'],
                               2 * ChannelWiseDivergence()(*(x[:, :, :4, :4] for x in maps)))


def padded(taught, connector, loss, student=None, teacher=None):
    """A pair's loss of two maps whose pictures fill the upper left part alone, and the gradient in the student's."""
    torch.manual_seed(0)
    student, teacher = (torch.randn(3, 4, 6, 6) if x is None else x for x in (student, teacher))
    hidden = torch.ones(3, 1, *student.shape[2:])
    hidden[:, :, :taught[0], :taught[1]] = 0
    stages = (Stage(name, x.shape[1], tuple(x.shape[2:]), 8, '') for name, x in (('s', student), ('t', teacher)))
    pair = Pair('p', *stages, connector, dict(x=(1.0, loss)))
    found = []
    for junk in 5.0, -30.0:  # what the border holds is nothing to the loss
        s = torch.where(hidden > 0, torch.full_like(student, junk), student).requires_grad_()
        t = torch.where(hidden > 0, torch.full_like(teacher, -junk), teacher)
        value = pair(s, t, TaughtCells(1 - hidden, [(6, 6)]))['distill.p.loss_x']
        gradient, = torch.autograd.grad(value, s)
        assert not gradient[hidden.expand_as(gradient) > 0].any()
        found.append(value.item())
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-7)
    whole = Pair('p', *pair.stages, connector, dict(x=(1.0, loss)))
    inside = [x[:, :, :taught[0], :taught[1]] for x in (student, teacher)]
    assert found[0] == pytest.approx(whole(*inside)['distill.p.loss_x'].item(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize('loss', [ChannelWiseDivergence(), CosineDistance(), PooledMSE(), CorrelationCongruence(),
                                  RelationalKD()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize('kind', [None, CommonGrid, Align])
def test_of_padded_pictures_only_what_is_inside_is_compared(kind, loss):
    connector = kind and kind(4, 4, standardised=False)
    if kind is Align and isinstance(loss, ChannelWiseDivergence):  # a shift of all channels is nothing to it
        low = torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1)) - 20
        padded((6, 3), connector, loss, low, low.flip(0))
    padded((4, 3), connector, loss)


@pytest.mark.parametrize('loss', [ChannelWiseDivergence(), CosineDistance(), PooledMSE(), CorrelationCongruence(),
                                  RelationalKD()], ids=lambda loss: type(loss).__name__)
def test_a_picture_of_which_nothing_counts_is_none_of_the_batch(loss):
    """As a crop of a segmentor's picture in which all is 255."""
    s, t = (torch.randn(4, 5, 6, 6, generator=torch.Generator().manual_seed(i)) for i in range(2))
    s.requires_grad_()
    mask = torch.ones(4, 1, 6, 6)
    mask[2] = 0
    kept = [0, 1, 3]
    # a connector hides it too
    found, expected = loss(s, t * mask, mask=mask), loss(s[kept], t[kept], mask=mask[kept])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5) != 0
    gradients = [torch.autograd.grad(x, s)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    assert not gradients[0][2].any()
    nothing = loss(s, t, mask=torch.zeros_like(mask))
    assert nothing == 0 and not torch.autograd.grad(nothing, s)[0].any()


@pytest.mark.parametrize('kind', [torch.bool, torch.uint8, torch.int64])
def test_a_mask_may_be_of_whole_numbers(kind):
    mask = (torch.arange(8) < 5).expand(2, 1, 6, 8)
    found, expected = (TaughtCells(mask.to(kind), [(3, 4)]) for kind in (kind, torch.float32))
    assert torch.equal(found.on((3, 4)), expected.on((3, 4))) and found.scale((3, 4)) == expected.scale((3, 4)) > 1


@pytest.mark.parametrize('options', [{}, dict(momentum=None), dict(track_running_stats=False), dict(affine=False)],
                         ids=str)
def test_the_batch_norm_of_srrl_counts_no_padding(options):
    torch.manual_seed(0)
    connector = ConvModuleConnector(4, 5, norm_cfg=dict(type='BN', **options))
    other = copy.deepcopy(connector)
    x, t, mask = torch.randn(3, 4, 6, 6), torch.randn(3, 5, 6, 6), torch.zeros(3, 1, 6, 6)
    mask[:, :, :4, :3] = 1
    s = torch.where(mask > 0, x, 50.0).requires_grad_()
    for _ in range(2):
        found, _ = connector(s, t, mask)
        expected, _ = other(x[:, :, :4, :3], t[:, :, :4, :3])
    torch.testing.assert_close(found[:, :, :4, :3], expected)
    assert not found[:, :, 4:].any() and not found[..., 3:].any()
    for name, value in other.conv.bn.state_dict().items():
        torch.testing.assert_close(connector.conv.bn.state_dict()[name], value)
    gradient, = torch.autograd.grad(found.square().sum(), s)
    assert not gradient[(mask == 0).expand_as(gradient)].any() and gradient[:, :, :4, :3].any()
    padded((4, 3), ConvModuleConnector(4, 4, norm_cfg=dict(type='BN')), PooledMSE())
