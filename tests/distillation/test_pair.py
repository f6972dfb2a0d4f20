"""A pair checks shapes first, and leaves other errors their own words."""
import pytest
import torch
from torch import nn

from sfkd.connectors import Align, WaveletConnector
from sfkd.distillation import Pair
from sfkd.errors import ConfigError
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


def test_losses_are_weighted_and_named():
    student, teacher = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    found = pair(None, nn.MSELoss())(student, teacher)
    assert list(found) == ['distill.layer3.loss_mse']
    torch.testing.assert_close(found['distill.layer3.loss_mse'], 2 * (student - teacher).square().mean())
