"""A pair checks shapes first, and leaves other errors their own words."""
import pytest
import torch
from torch import nn

from sfkd.connectors import Align, WaveletConnector
from sfkd.distillation import Pair
from sfkd.errors import ConfigError
from sfkd.features.padding import TaughtCells
from sfkd.features.probe import Stage


def pair(connector, loss, grid=(8, 8)):
    stages = (Stage(path, 4, grid, 8, 'a map') for path in ('backbone.layer3', 'backbone.stages.2'))
    return Pair('layer3', *stages, connector, {'mse': (2.0, loss)})


class Aborted(nn.Module):
    def forward(self, student, teacher):
        raise RuntimeError('NCCL communicator was aborted on rank 1.')


@pytest.mark.parametrize('connector', [None, Align(4, 4)], ids=['as they are', 'aligned'])
def test_errors_of_others_keep_their_words(connector):
    with pytest.raises(RuntimeError, match=r'^NCCL communicator was aborted on rank 1\.$') as caught:
        pair(connector, Aborted())(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
    assert not isinstance(caught.value, ConfigError)


@pytest.mark.parametrize('connector, shapes, problem', [
    (WaveletConnector(4, 4), [(2, 4, 1, 1), (2, 4, 1, 1)], 'a grid of 1x1 is too small for any level'),
    (None, [(2, 4, 8, 8), (2, 4, 4, 4)], 'without a connector their grids must be the same')])
def test_a_batch_that_does_not_fit_names_pair_shapes_and_remedy(connector, shapes, problem):
    with pytest.raises(ConfigError) as caught:
        pair(connector, nn.MSELoss())(*map(torch.zeros, shapes))
    for part in ("pair 'layer3'", f"'backbone.layer3' gives {shapes[0]}", f"'backbone.stages.2' {shapes[1]}", problem,
                 'stages=', 'input_size='):
        assert part in str(caught.value), str(caught.value)


class Twice(nn.Module):
    """A connector without a mask, as of somebody who has read the guide no further."""

    def forward(self, student, teacher):
        return 2 * student, teacher


class Scores(Twice):
    def forward(self, student, teacher):
        return student.mean((2, 3)), teacher.mean((2, 3))


class Three(Twice):
    def forward(self, *maps):
        assert len(maps) == 3 and maps[2].shape == (2, 1, 8, 8)
        return super().forward(*maps[:2])


def test_what_a_connector_without_a_mask_gives_is_masked():
    student, teacher = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    pixels = torch.ones(2, 1, 64, 64)
    pixels[1, :, :, 16:] = 0  # the second picture has two columns of cells
    taught = TaughtCells(pixels, [(8, 8)])
    ours, theirs = pair(Twice(), nn.MSELoss()).connect(student, teacher, taught)
    assert torch.equal(ours[0], 2 * student[0]) and torch.equal(theirs[1, :, :, :2], teacher[1, :, :, :2])
    assert not ours[1, :, :, 2:].any() and not theirs[1, :, :, 2:].any()
    ours, _ = pair(Three(), nn.MSELoss()).connect(student, teacher, taught)
    assert torch.equal(ours, 2 * student)  # which has seen the mask, and knows what to do with it
    ours, _ = pair(Scores(), nn.MSELoss()).connect(student, teacher, taught)
    assert torch.equal(ours, student.mean((2, 3)))


def test_bands_that_no_mask_was_given_for_are_an_error():
    class Bands(Twice):
        def forward(self, student, teacher):
            return WaveletConnector(4, 4)(student, teacher)
    maps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    with pytest.raises(ConfigError, match="pair 'layer3': Bands takes no mask, and what it gives, Decomposed, cannot"):
        pair(Bands(), nn.MSELoss()).connect(*maps, TaughtCells(torch.ones(2, 1, 64, 64), [(8, 8)]))


def test_losses_are_weighted_and_named():
    student, teacher = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    found = pair(None, nn.MSELoss())(student, teacher)
    assert list(found) == ['distill.layer3.loss_mse']
    torch.testing.assert_close(found['distill.layer3.loss_mse'], 2 * (student - teacher).square().mean())
