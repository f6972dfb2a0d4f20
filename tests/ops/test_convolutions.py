"""On grids of a few cells and of more, against PyTorch's convolution and products, and against finite differences."""
import pytest
import torch
import torch.nn.functional as F

from sfkd.ops import convolutions, depthwise3x3, pointwise


def operands(grid, dtype):
    torch.manual_seed(0)
    return [torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((3, 5, *grid), (5, 1, 3, 3), (5, ))]


@pytest.mark.parametrize('grid', [(1, 1), (2, 2)])
def test_gradients(grid):
    assert torch.autograd.gradcheck(depthwise3x3, operands(grid, torch.float64))


@pytest.mark.parametrize('grid', [(1, 1), (1, 2), (2, 2), (3, 2)])
@pytest.mark.parametrize('strided', [False, True])
def test_it_is_pytorchs_convolution(grid, strided, monkeypatch):
    ran = []
    monkeypatch.setattr(convolutions, 'compiled', lambda loops: lambda *arrays: ran.append(loops) or loops(*arrays))
    x, *weights = operands(grid, torch.float32)
    if strided:
        x = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    ours, theirs = depthwise3x3(x, *weights), F.conv2d(x, *weights, padding=1, groups=5)
    given = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, (x, *weights), given),
                               torch.autograd.grad(theirs, (x, *weights), given))
    assert len(ran) == 2 * (grid == (2, 2))


@pytest.mark.parametrize('cells', [1, 4, 5, 12])
def test_channels_are_mixed_picture_by_picture(cells):
    torch.manual_seed(0)
    x, to, weight = (torch.randn(*shape, dtype=torch.float64, requires_grad=True)
                     for shape in ((3, 5, cells), (3, 2, cells), (2, 5)))
    for i in range(3):
        torch.testing.assert_close(pointwise(x, weight)[i], weight @ x[i])
        torch.testing.assert_close(pointwise(x, weight, to, 0.1)[i], to[i] + 0.1 * (weight @ x[i]))
    assert torch.autograd.gradcheck(lambda *args: pointwise(*args, scale=0.1), (x, weight, to))
