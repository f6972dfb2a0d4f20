"""The mean square of a difference: PyTorch's numbers and gradients, and what is kept for them."""
import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from sfkd.ops import mean_square, squares


def maps(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    return (3 * x + 1).requires_grad_(), y


@pytest.mark.parametrize('shape', [(4, 6, 9, 13), (2, 3, 56, 56), (5, 1, 1, 1), (3, 7)], ids=str)
def test_value_and_gradient_are_mse_losss(shape):
    x, y = maps(*shape)
    y.requires_grad_()
    found, expected = mean_square(x, y), F.mse_loss(x.double(), y.double())
    assert found.dtype == torch.float32 and math.isclose(found, expected, rel_tol=2e-7)
    for weight in 1.0, 2.5, 0.3:
        ours, theirs = (torch.autograd.grad(weight * loss, (x, y), retain_graph=True)
                        for loss in (found, F.mse_loss(x, y)))
        assert all(map(torch.equal, ours, theirs)), 'to the last bit'


@pytest.mark.parametrize('threads', [1, squares.MOST_THREADS + 1])
def test_gradcheck_in_loops_and_without(threads, monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    x, y = maps(2, 3, 4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(mean_square, (x, y))
    assert torch.autograd.gradcheck(mean_square, (x, y.requires_grad_()))
    assert math.isclose(mean_square(x, y), F.mse_loss(x, y), rel_tol=1e-14)


def test_large_maps_are_summed_up_well():
    x = torch.full((2, 3, 512, 512), 1000.0) + torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    expected = F.mse_loss(x.double(), torch.zeros(2, 3, 512, 512).double())
    assert math.isclose(mean_square(x, torch.zeros(2, 3, 512, 512)), expected, rel_tol=1e-7)


@pytest.mark.parametrize('layout', ['transposed', 'channels last', 'expanded'])
def test_other_layouts(layout):
    x, y = maps(4, 6, 8, 8)
    other = dict(transposed=lambda z: z.mT, expanded=lambda z: z[:1].expand(4, -1, -1, -1))
    view = other.get(layout, lambda z: z.contiguous(memory_format=torch.channels_last))
    found, expected = (torch.autograd.grad(loss(view(x), view(y)), x)[0] for loss in (mean_square, F.mse_loss))
    torch.testing.assert_close(found, expected)


def test_one_map_is_kept():
    kept = []
    x, y = maps(4, 6, 8, 8)
    with torch.autograd.graph.saved_tensors_hooks(lambda z: kept.append(z) or z, lambda z: z):
        loss = mean_square(x, y)
    assert [z.shape for z in kept] == [x.shape] and not torch.equal(kept[0], x)
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    torch.testing.assert_close(x.grad, 2 * first, rtol=0, atol=0)


def test_other_shapes_are_pytorchs_matter():
    with pytest.warns(UserWarning, match='Using a target size'):
        mean_square(torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(RuntimeError):
            mean_square(torch.zeros(2, 3), torch.zeros(2, 4))
