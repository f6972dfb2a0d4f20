"""What the two streams of wavelet bands tell each other: the low grid gates the details, and learns of their energy.

One pass over the details each way: gating them and measuring their energy both read every number once, and so does the
gradient. In SFKD (arXiv 2607.01906) "from two directions"; the form and the code are ours. On a CPU float32 and float64
run as loops that numba compiles at the first call; elsewhere they are PyTorch's operations.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .loops import compiled, runs_loops

# Up to this many cells of a level its loops run over cells, beyond, where rows are long, over rows and columns.
_SHORT = 400


def exchange(details: tuple[Tensor, ...], gate: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """Multiply the details by a gate, and measure their energy before that.

    Row i of h_j lies over row i h // h_j of the low grid's h, and columns likewise.

    Args:
        details: of each level, (N, C, 3, h_j, w_j), no grid smaller than the gate's.
        gate: (N, C, h, w), of the details' dtype.

    Returns:
        tuple: the details times the gate of the cell that they lie over; and the energy (N, C, h, w), the mean square
            over the three bands and the cells of a level that lie over each, summed over the levels.
    """
    if runs_loops(gate) and not torch.compiler.is_compiling():
        energy, *gated = _Exchange.apply(gate, *details)
        return tuple(gated), energy
    gated, energies = [], []
    for detail in details:
        rows, columns = (torch.arange(n, device=gate.device) * m // n for n, m in zip(detail.shape[3:], gate.shape[2:]))
        gated.append(detail * gate.index_select(2, rows).index_select(3, columns).unsqueeze(2))
        square = detail.square().mean(2)
        for axis, index in (2, rows), (3, columns):
            size = [*square.shape]
            size[axis] = gate.shape[axis]
            total = square.new_zeros(size).index_add(axis, index, square)
            count = square.new_zeros(size[axis]).index_add(0, index, square.new_ones(len(index)))
            square = total / count.view(-1, *[1] * (3 - axis))
        energies.append(square)
    return tuple(gated), sum(energies)


class _Exchange(torch.autograd.Function):
    """``apply(gate, *details)``: the energy, then the gated details."""

    @staticmethod
    def forward(ctx, gate: Tensor, *details: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(gate, *details)
        energy, gated = _new(torch.zeros_like, gate), [_new(torch.empty_like, detail) for detail in details]
        for detail, out in zip(details, gated):
            loops, cells = (_gate_cells, _cells) if _short(detail) else (_gate, _rows)
            compiled(loops)(*_arrays(gate, detail), *_arrays(energy, out), *cells(detail, gate))
        return energy, *gated

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, of_energy: Tensor, *of_gated: Tensor) -> tuple[Tensor, ...]:
        gate, *details = ctx.saved_tensors
        of_gate, of_details = _new(torch.zeros_like, gate), [_new(torch.empty_like, detail) for detail in details]
        for detail, given, out in zip(details, of_gated, of_details):
            loops, cells = (_gate_cells_backward, _cells) if _short(detail) else (_gate_backward, _rows)
            compiled(loops)(*_arrays(gate, detail, of_energy, given), *_arrays(of_gate, out), *cells(detail, gate))
        return of_gate, *of_details


def _new(like, x: Tensor) -> Tensor:
    return like(x, memory_format=torch.contiguous_format)  # what is written is no copy


def _short(detail: Tensor) -> bool:
    return detail.shape[3] * detail.shape[4] <= _SHORT


def _arrays(*maps: Tensor) -> list:
    """Planes (N C, ...) of each."""
    return [x.detach().contiguous().flatten(0, 1).numpy() for x in maps]


def _rows(detail: Tensor, gate: Tensor) -> tuple:
    """Which rows of the details begin each row of the gate (h + 1), over which of its columns each lies (W), and what a
    square there counts in the mean (h, W).
    """
    (height, width), (h, w) = detail.shape[3:], gate.shape[2:]
    first = -(-np.arange(h + 1) * height // h)
    column = np.arange(width) * w // width
    share = 1 / (3 * np.maximum(np.diff(first), 1)[:, None] * np.bincount(column, minlength=w)[column])
    return first, column, share.astype(gate.detach().numpy().dtype)


def _cells(detail: Tensor, gate: Tensor) -> tuple:
    """Over which cell of the gate each cell of the details lies, counted row by row, and what a square there counts in
    the mean; both (H W).
    """
    height, (h, w) = detail.shape[3], gate.shape[2:]
    _, column, share = _rows(detail, gate)
    row = np.arange(height) * h // height
    return (row[:, None] * w + column).ravel(), share[row].ravel()


# A row of the low grid at a time. What it says is spread over a row of the details first, so that the inner loops run
# over neighbours alone and become vector code; sums over bands and rows go to the cells at its end.
def _gate(gate, details, energy, gated, first, column, share):
    """Arrays gate (P, h, w), details (P, 3, H, W) -> adds to energy (P, h, w), writes gated (P, 3, H, W)."""
    wide, sums = share[0].copy(), share[0].copy()
    for p in range(gate.shape[0]):
        for r in range(gate.shape[1]):
            for j in range(len(column)):
                wide[j], sums[j] = gate[p, r, column[j]], 0
            for band in range(3):
                for i in range(first[r], first[r + 1]):
                    for j in range(len(column)):
                        x = details[p, band, i, j]
                        gated[p, band, i, j] = x * wide[j]
                        sums[j] += x * x
            for j in range(len(column)):
                energy[p, r, column[j]] += sums[j] * share[r, j]


def _gate_backward(gate, details, of_energy, of_gated, of_gate, of_details, first, column, share):
    """Its gradient: adds to of_gate (P, h, w), writes of_details (P, 3, H, W)."""
    wide, sums, slope = share[0].copy(), share[0].copy(), share[0].copy()
    for p in range(gate.shape[0]):
        for r in range(gate.shape[1]):
            for j in range(len(column)):
                wide[j], sums[j] = gate[p, r, column[j]], 0
                slope[j] = of_energy[p, r, column[j]] * (share[r, j] + share[r, j])
            for band in range(3):
                for i in range(first[r], first[r + 1]):
                    for j in range(len(column)):
                        x, g = details[p, band, i, j], of_gated[p, band, i, j]
                        of_details[p, band, i, j] = g * wide[j] + x * slope[j]
                        sums[j] += g * x
            for j in range(len(column)):
                of_gate[p, r, column[j]] += sums[j]


# The same over all cells of a level: one longer loop where rows are short.
def _gate_cells(gate, details, energy, gated, cell, share):
    """Arrays gate (P, h, w), details (P, 3, H, W), cell and share (H W)."""
    planes, cells = len(gate), len(cell)
    gate, energy = gate.reshape(planes, -1), energy.reshape(planes, -1)
    details, gated = details.reshape(planes, 3, cells), gated.reshape(planes, 3, cells)
    wide, sums = share.copy(), share.copy()
    for p in range(planes):
        for k in range(cells):
            wide[k] = gate[p, cell[k]]
        for band in range(3):
            for k in range(cells):
                gated[p, band, k] = details[p, band, k] * wide[k]
        for k in range(cells):
            a, b, c = details[p, 0, k], details[p, 1, k], details[p, 2, k]
            sums[k] = (a * a + b * b + c * c) * share[k]
        for k in range(cells):
            energy[p, cell[k]] += sums[k]


def _gate_cells_backward(gate, details, of_energy, of_gated, of_gate, of_details, cell, share):
    planes, cells = len(gate), len(cell)
    gate, of_energy, of_gate = gate.reshape(planes, -1), of_energy.reshape(planes, -1), of_gate.reshape(planes, -1)
    details, of_gated = details.reshape(planes, 3, cells), of_gated.reshape(planes, 3, cells)
    of_details = of_details.reshape(planes, 3, cells)
    wide, sums, slope = share.copy(), share.copy(), share.copy()
    for p in range(planes):
        for k in range(cells):
            wide[k] = gate[p, cell[k]]
            slope[k] = of_energy[p, cell[k]] * (share[k] + share[k])
        for band in range(3):
            for k in range(cells):
                of_details[p, band, k] = of_gated[p, band, k] * wide[k] + details[p, band, k] * slope[k]
        for k in range(cells):
            sums[k] = (of_gated[p, 0, k] * details[p, 0, k] + of_gated[p, 1, k] * details[p, 1, k]
                       + of_gated[p, 2, k] * details[p, 2, k])
        for k in range(cells):
            of_gate[p, cell[k]] += sums[k]
