"""Against PyTorch's pooling, where windows overlap, where they do not, and where there are too many for a product."""
import pytest
import torch
import torch.nn.functional as F

from sfkd.ops import area_pool, pooling


@pytest.mark.parametrize('size, grid, by_product', [
    ((7, 7), (4, 4), True), ((7, 7), (1, 4), True), ((7, 8), (4, 8), True), ((5, 16), (5, 3), True),
    ((14, 14), (7, 7), False), ((17, 16), (5, 5), False), ((16, 16), (5, 5), True)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('strided', [False, True])
def test_it_is_pytorchs_pooling(size, grid, by_product, dtype, strided, monkeypatch):
    torch.manual_seed(0)
    x = torch.randn(3, 5, *size, dtype=dtype)
    x = (x.to(memory_format=torch.channels_last) if strided else x).requires_grad_()
    asked, windows = [], pooling._windows
    monkeypatch.setattr(pooling, '_windows', lambda *args: asked.append(args) or windows(*args))
    ours, theirs = area_pool(x, grid), F.adaptive_avg_pool2d(x, grid)
    given = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, x, given), torch.autograd.grad(theirs, x, given))
    assert bool(asked) == (by_product and dtype != torch.bfloat16)


def test_gradients():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: area_pool(x, (3, 4)), x)


def test_the_same_grid_costs_nothing():
    x = torch.randn(1, 2, 5, 5)
    assert area_pool(x, (5, 5)) is x


def test_autocast_and_inference_change_nothing():
    pooling._windows.cache_clear()
    x = torch.randn(2, 3, 7, 7)
    wanted = F.adaptive_avg_pool2d(x, (4, 4))
    with torch.inference_mode():
        area_pool(x, (4, 4))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        ours = area_pool(x.requires_grad_(), [4, 4])
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, wanted)
    ours.sum().backward()
