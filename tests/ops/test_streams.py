"""Gating the details and measuring their energy, in loops and in PyTorch's operations."""
import pytest
import torch
import torch.nn.functional as F

from sfkd.ops import streams
from sfkd.ops.streams import exchange

#: The gate's grid and those of the levels: halved, halved with a rest, as longer filters leave them, and of few cells.
GRIDS = [((2, 3), [(8, 12), (4, 6)]), ((4, 2), [(13, 5), (7, 3)]), ((5, 5), [(8, 9), (5, 5)]),
         ((1, 1), [(2, 2), (1, 1)]), ((1, 2), [(1, 4), (1, 3)])]


@pytest.fixture(params=['loops over cells', 'loops over rows', 'operations'])
def path(request, monkeypatch):
    if request.param == 'operations':
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: True)
    elif request.param == 'loops over rows':
        monkeypatch.setattr(streams, '_SHORT', 0)


def maps(grid, levels, planes=(2, 3), **kwargs):
    torch.manual_seed(0)
    kwargs = dict(dict(dtype=torch.float64, requires_grad=True), **kwargs)
    return torch.randn(*planes, *grid, **kwargs), tuple(torch.randn(*planes, 3, *level, **kwargs) for level in levels)


@pytest.mark.parametrize('grid, levels', GRIDS)
def test_it_is_what_it_says_cell_by_cell(grid, levels, path):
    gate, details = maps(grid, levels)
    gated, energy = exchange(details, gate)
    expected = torch.zeros_like(energy)
    for detail, ours in zip(details, gated, strict=True):
        h, w = detail.shape[3:]
        for r in range(grid[0]):
            for c in range(grid[1]):
                cell = [(i, j) for i in range(h) for j in range(w) if i * grid[0] // h == r and j * grid[1] // w == c]
                inside = torch.stack([detail[..., i, j] for i, j in cell], -1)
                expected[..., r, c] += inside.square().mean((2, 3))
                theirs = torch.stack([ours[..., i, j] for i, j in cell], -1)
                torch.testing.assert_close(theirs, inside * gate[..., r, c, None, None])
    torch.testing.assert_close(energy, expected)


def test_on_halved_grids_it_is_pooling_and_nearest_neighbours(path):
    gate, details = maps(*GRIDS[0])
    gated, energy = exchange(details, gate)
    torch.testing.assert_close(energy, sum(F.adaptive_avg_pool2d(d.square().mean(2), gate.shape[2:]) for d in details))
    for detail, ours in zip(details, gated):
        torch.testing.assert_close(ours, detail * F.interpolate(gate, detail.shape[3:]).unsqueeze(2))


@pytest.mark.parametrize('grid, levels', GRIDS)
def test_gradients(grid, levels, path):
    def both(gate, *details):
        gated, energy = exchange(details, gate)
        return energy, *gated
    gate, details = maps(grid, levels, planes=(1, 2))  # each number costs two evaluations of all
    assert torch.autograd.gradcheck(both, (gate, *details))


def test_the_loops_give_in_float32_what_the_operations_give(monkeypatch):
    given = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, 'is_compiling', lambda: compiling)
        gate, details = maps((7, 7), [(28, 28), (14, 14)], dtype=torch.float32)
        gated, energy = exchange(details, gate)
        (energy.sum() + sum((d * d).sum() for d in gated)).backward()
        given.append([energy, *gated, gate.grad, *(d.grad for d in details)])
    for ours, theirs in zip(*given, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


def test_layouts_with_gaps(path):
    gate, (detail, ) = maps((4, 4), [(8, 8)])
    apart = exchange((detail.transpose(3, 4), ), gate.transpose(2, 3))
    (gated, ), energy = exchange((detail.transpose(3, 4).contiguous(), ), gate.transpose(2, 3).contiguous())
    torch.testing.assert_close(apart[0][0], gated)
    torch.testing.assert_close(apart[1], energy)
