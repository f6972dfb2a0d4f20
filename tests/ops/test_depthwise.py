"""The gradient on grids of a few cells, against finite differences and against PyTorch's convolution."""
import pytest
import torch
import torch.nn.functional as F

from sfkd.ops import depthwise
from sfkd.ops.depthwise import depthwise3x3


def operands(grid, dtype):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((3, 5, *grid), (5, 1, 3, 3), (5, ))]


@pytest.mark.parametrize('grid', [(1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (1, 3)])
def test_gradients(grid):
    assert torch.autograd.gradcheck(depthwise3x3, operands(grid, torch.float64))


@pytest.mark.parametrize('grid', [(1, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize('strided', [False, True])
def test_it_is_pytorchs_convolution(grid, strided, monkeypatch):
    ran = []
    monkeypatch.setattr(depthwise, 'compiled', lambda loops: lambda *arrays: ran.append(loops) or loops(*arrays))
    x, *weights = operands(grid, torch.float32)
    if strided:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    ours, theirs = depthwise3x3(x, *weights), F.conv2d(x, *weights, padding=1, groups=5)
    given = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, *weights), given),
                               torch.autograd.grad(theirs, (x, *weights), given))
    assert len(ran) == (grid[0] * grid[1] <= depthwise.FEW)
