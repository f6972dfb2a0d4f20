"""Against PyTorch's pooling, and against finite differences."""
import pytest
import torch
import torch.nn.functional as F

from sfkd.ops import area_pool, pooling

#: Windows side by side, overlapping in one direction or both, and too many or too large for what is ours.
SIDE_BY_SIDE = [((14, 14), (7, 7)), ((6, 8), (6, 2)), ((9, 10), (3, 2)), ((16, 8), (2, 1))]
OVERLAPPING = [((7, 7), (4, 4)), ((7, 7), (1, 4)), ((7, 8), (4, 8)), ((5, 16), (5, 3)), ((16, 16), (5, 5))]
PYTORCHS = [((17, 16), (5, 5)), ((18, 9), (2, 3))]


@pytest.fixture
def ours(monkeypatch):
    """What ran in the place of PyTorch's pooling."""
    seen = []

    def noted(function):
        return lambda *args: seen.append(function.__name__) or function(*args)
    for function in pooling._run, pooling._overlapping:
        monkeypatch.setattr(pooling, function.__name__, noted(function))
    return seen


@pytest.mark.parametrize('size, grid, by', [
    *((*sizes, '_run') for sizes in SIDE_BY_SIDE), *((*sizes, '_overlapping') for sizes in OVERLAPPING),
    *((*sizes, None) for sizes in PYTORCHS)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize('strided', [False, True])
def test_it_is_pytorchs_pooling(size, grid, by, dtype, strided, ours):
    torch.manual_seed(0)
    x = torch.randn(3, 5, *size, dtype=dtype)
    x = (x.to(memory_format=torch.channels_last) if strided else x).requires_grad_()
    pooled, expected = area_pool(x, grid), F.adaptive_avg_pool2d(x, grid)
    given = torch.randn_like(expected)
    close = {} if by == '_overlapping' else dict(rtol=0, atol=0)
    torch.testing.assert_close(pooled, expected, **close)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, given) for y in (pooled, expected)), **close)
    if dtype == torch.bfloat16 or by is None or by == '_run' and strided:
        assert not ours
    else:
        assert ours == ([by] if by == '_overlapping' else [by, by])  # forward and backward


@pytest.mark.parametrize('size, grid', [SIDE_BY_SIDE[1], OVERLAPPING[0]])
def test_gradients(size, grid):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: area_pool(x, grid), x)
    assert torch.autograd.gradgradcheck(lambda x: area_pool(x, grid), x)


def test_the_same_grid_costs_nothing():
    x = torch.randn(1, 2, 5, 5)
    assert area_pool(x, (5, 5)) is x


@pytest.mark.parametrize('size', [(7, 7), (8, 8)])
def test_autocast_and_inference_change_nothing(size):
    pooling._overlapping.cache_clear()
    x = torch.randn(2, 3, *size)
    wanted = F.adaptive_avg_pool2d(x, (4, 4))
    with torch.inference_mode():
        area_pool(x, (4, 4))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        pooled = area_pool(x.requires_grad_(), [4, 4])
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, wanted)
    pooled.sum().backward()


def test_a_gradient_of_another_layout():
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    given = torch.randn(2, 3, 2, 2).transpose(2, 3)
    torch.testing.assert_close(*(torch.autograd.grad(pool(x, (2, 2)), x, given)
                                 for pool in (area_pool, F.adaptive_avg_pool2d)))
