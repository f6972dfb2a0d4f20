"""Standardised maps: their numbers, their gradients, masks, and processes that share their statistics."""
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

from sfkd.ops import standardisation, standardise

EPS = 1e-5
# so that pictures, and what processes see of them, differ in their statistics
UNLIKE = torch.arange(1., 7).view(6, 1, 1, 1)


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(x, mask=None):
    """In NumPy, float64, channel by channel."""
    x, found = np.asarray(x.double()), np.zeros(x.shape)
    inside = np.ones((len(x), *x.shape[2:]), bool) if mask is None else np.asarray(mask[:, 0] > 0)
    for channel in range(x.shape[1]):
        cells = x[:, channel][inside]
        found[:, channel][inside] = (cells - cells.mean()) / np.sqrt(cells.var() + EPS)
    return found


def a_mask():
    """Of six pictures: one whole, one empty, and corners as padding leaves them."""
    mask = torch.zeros(6, 1, 4, 5)
    for picture, (height, width) in zip(mask, [(4, 5), (0, 0), (3, 5), (4, 2), (1, 1), (2, 4)]):
        picture[:, :height, :width] = 1
    return mask


@pytest.mark.parametrize('mask', [None, a_mask()], ids=['whole', 'masked'])
@pytest.mark.parametrize('dtype, atol', [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 2e-5)])
def test_values(dtype, atol, mask):
    deviation, mean = (torch.tensor(values).view(4, 1, 1) for values in ([1., 10, .1, 3], [0., 50, -2, 7]))
    x = (randn(6, 4, 4, 5) * deviation + mean).to(dtype)
    y = randn(6, 3, 4, 5, seed=1).to(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        found = standardise(x, y, mask=mask)
    for ours, given in zip(found, (x, y)):
        assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        np.testing.assert_allclose(ours.numpy(), by_definition(given, mask), rtol=0, atol=atol)


def test_a_small_spread_around_a_large_mean_is_kept():
    x = 1000 + randn(8, 1, 16, 16)
    for mask in (None, torch.ones(8, 1, 16, 16)):
        np.testing.assert_allclose(standardise(x.float(), mask=mask)[0], by_definition(x.float()), rtol=0, atol=1e-3)


def test_a_constant_channel_becomes_zero():
    torch.testing.assert_close(standardise(torch.full((2, 1, 3, 3), 7.))[0], torch.zeros(2, 1, 3, 3), rtol=0, atol=1e-3)


@pytest.mark.parametrize('value', [1.0, 1e18])
def test_a_cell_by_itself_is_zero_and_has_no_gradient(value):
    """Rounding would leave of a large one what 1 / sqrt(eps) makes larger still, and of its gradient infinity."""
    x = (torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * value).requires_grad_()
    mask = torch.zeros(2, 1, 4, 4)
    mask[1, 0, 2, 3] = 1
    y, = standardise(x, mask=mask)
    gradient, = torch.autograd.grad(y.sum() + y.square().sum(), x)
    assert not y.any() and not gradient.any()
    mask[0, 0, 1, 1] = 1
    assert standardise(x, mask=mask)[0].any()  # of two cells there is a spread


def test_an_empty_mask_leaves_zeros_and_no_gradient():
    x = randn(2, 3, 4, 5).requires_grad_()
    y, = standardise(x, mask=torch.zeros(2, 1, 4, 5))
    y.sum().backward()
    assert not y.any() and not x.grad.any()


@pytest.mark.parametrize('mask', [None, a_mask()], ids=['whole', 'masked'])
def test_gradients(mask):
    x, y = randn(6, 2, 4, 5).requires_grad_(), randn(6, 1, 4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: standardise(x, y, mask=mask), (x, y))


def test_the_teachers_side_needs_no_gradient():
    x, y = randn(6, 2, 4, 5).requires_grad_(), randn(6, 2, 4, 5, seed=1)
    student, teacher = standardise(x, y, mask=a_mask())
    assert student.requires_grad and not teacher.requires_grad


@pytest.mark.parametrize('shape', [(100, 6, 7, 7), (8, 5, 13, 17), (20, 4, 2, 3), (3, 2, 56, 56)])
def test_loops_give_what_batch_norm_gives_to_the_last_bit(shape):
    """And its gradient: figures of before stay what they are. (Without instructions that multiply and add in one, the
    last bit is another.)
    """
    exact = torch.backends.cpu.get_cpu_capability() in ('AVX2', 'AVX512')
    scale, shift = 0.1 + 9 * torch.rand(1, shape[1], 1, 1), 4 * torch.randn(1, shape[1], 1, 1)
    x = (torch.randn(shape) * scale + shift).requires_grad_()
    found = [standardise(x)[0], F.batch_norm(x, None, None, training=True)]
    assert type(found[0].grad_fn).__name__ == '_LoopsBackward'
    g = torch.randn(shape)
    for ours, theirs in found, [torch.autograd.grad(y, x, g)[0] for y in found]:
        torch.testing.assert_close(ours, theirs, **dict(rtol=0, atol=0) if exact else dict(rtol=1e-4, atol=1e-5))


@pytest.mark.parametrize('mask', [None, a_mask()], ids=['whole', 'masked'])
def test_it_compiles_without_a_break_of_the_graph(mask):
    x = randn(6, 3, 4, 5).float()
    compiled = torch.compile(standardise, backend='eager', fullgraph=True)
    np.testing.assert_allclose(compiled(x, mask=mask)[0], by_definition(x, mask), atol=2e-5, rtol=0)


def test_what_loops_do_not_take_is_standardised_all_the_same(monkeypatch):
    def by_pytorch(x):
        found, = standardise(x.requires_grad_())
        assert type(found.grad_fn).__name__ != '_LoopsBackward'
        return found
    x = torch.randn(4, 6, 8, 8)
    expected, = standardise(x)
    for other in x.to(memory_format=torch.channels_last), x.mT.contiguous().mT:
        torch.testing.assert_close(by_pytorch(other), expected, check_stride=False)
    cell = x[..., :1, :1].contiguous()
    np.testing.assert_allclose(by_pytorch(cell).detach().numpy(), by_definition(cell.detach()), rtol=0, atol=2e-5)
    monkeypatch.setattr(standardisation, 'MOST_THREADS', 0)
    torch.testing.assert_close(by_pytorch(x), expected)


def test_there_is_a_second_derivative_without_mask_in_one_process():
    x = randn(4, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: standardise(x)[0], x)


def weighted(part: slice, mask: torch.Tensor | None):
    """Results and the gradient of a sum with weights, for some pictures of six; sums over processes have this gradient,
    too.
    """
    x, y = (randn(6, c, 4, 5, seed=c) * UNLIKE for c in (2, 3))
    x = x[part].requires_grad_()
    found = standardise(x, y[part], mask=None if mask is None else mask[part])
    sum((result * randn(*result.shape[1:], seed=7) * UNLIKE[part]).sum() for result in found).backward()
    return *(result.detach() for result in found), x.grad


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    part = slice(0, 2) if rank == 0 else slice(2, 6)  # unlike counts
    torch.save([weighted(part, mask) for mask in (None, a_mask(), a_mask() * (torch.arange(6) > 1).view(6, 1, 1, 1))],
               f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_find_what_one_finds_on_the_joined_batch(tmp_path):
    """Also where one process has nothing inside its mask."""
    mp.spawn(one_of_two, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    masks = None, a_mask(), a_mask() * (torch.arange(6) > 1).view(6, 1, 1, 1)
    for mask, *parts in zip(masks, first, second):
        for expected, *found in zip(weighted(slice(0, 6), mask), *parts):
            torch.testing.assert_close(torch.cat(found), expected, rtol=1e-10, atol=1e-12)
            assert expected.abs().max() > 0.1
