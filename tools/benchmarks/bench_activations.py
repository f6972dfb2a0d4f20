"""GELU and SiLU of a teacher in half precision on a CPU: PyTorch's against the table (sfkd/ops/activations.py)."""
from __future__ import annotations

import torch
from common import finish, interleaved, milliseconds, parser, ratio, show, start
from torch import nn

from sfkd.ops.activations import TabulatedActivations

ACTIVATIONS = {'GELU': nn.GELU(), "GELU('tanh')": nn.GELU('tanh'), 'SiLU': nn.SiLU()}


def measure(name: str, dtype: torch.dtype, repeats: int) -> dict:
    x, activation = torch.randn(8, 3136, 384).to(dtype), ACTIVATIONS[name]  # Swin-T's first stage at 224 px, batch 8

    @torch.inference_mode()
    def theirs():
        activation(x)

    @torch.inference_mode()
    def ours():
        with TabulatedActivations():
            activation(x)
    seconds = interleaved(dict(theirs=theirs, ours=ours), repeats, 'cpu')
    faster, spread = ratio(seconds['theirs'], seconds['ours'])
    return {'activation': name, 'precision': str(dtype).removeprefix('torch.'),
            'PyTorch, ms': milliseconds(seconds['theirs']), 'table, ms': milliseconds(seconds['ours']),
            'PyTorch / table': f'{faster:.2f} ± {spread / 2:.2f}'}


def main() -> None:
    args = parser(__doc__, repeats=11).parse_args()
    start(args)
    rows = [measure(name, dtype, args.repeats) for dtype in (torch.bfloat16, torch.float16) for name in ACTIVATIONS]
    show(rows)
    finish(args, rows)


if __name__ == '__main__':
    main()
