"""The DWT, the GFFL, DS2S's convolutions, pooling and standardisation, forward and backward, against other libraries
and PyTorch.
"""
import argparse
import contextlib
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import finish, interleaved, milliseconds, parser, ratio, show, start
from torch import Tensor

from sfkd.ops import area_pool, depthwise3x3, dwt2, gaussian_frequency_loss, gaussian_frequency_loss_fft, standardise

try:
    import ptwt
except ImportError:
    ptwt = None

#: Common grids and channels of the flagship pairs, at their configs' image sizes and half their batch (cls 32, det 2,
#: seg 2).
FLAGSHIPS = [(32, 96, 56, 56), (32, 192, 28, 28), (32, 384, 14, 14), (32, 768, 7, 7),
             (2, 256, 100, 168), (2, 256, 50, 84), (2, 256, 25, 42), (2, 256, 13, 21),
             (2, 96, 128, 128), (2, 192, 64, 64), (2, 384, 32, 32), (2, 768, 16, 16)]
LEVELS = 2
#: Low bands, and the coarsest details, of maps of 4x4 and 7x7.
SMALL = [(200, 256, 1, 1), (200, 48, 2, 2), (32, 768, 2, 2)]
#: Maps that are pooled to half their side, rounded up.
POOLED = [(32, 96, 56, 56), (32, 192, 28, 28), (100, 64, 14, 14), (100, 256, 7, 7), (32, 768, 7, 7)]
#: Common grids of the classification flagship, and of small pictures.
STANDARDISED = [*FLAGSHIPS[:4], (100, 64, 7, 7), (100, 256, 7, 7), (200, 256, 4, 4)]
#: The shapes of each operation.
OWN = dict(dwt=FLAGSHIPS, gffl=FLAGSHIPS, depthwise=SMALL, pooling=POOLED, standardisation=STANDARDISED)


def parse_args() -> argparse.Namespace:
    found = parser(__doc__, repeats=15)
    found.add_argument('--shapes', nargs='+', metavar='N,C,H,W', help='in place of each operation\'s own')
    found.add_argument('--dtypes', nargs='+', choices=['float32', 'autocast'], default=['float32', 'autocast'],
                       help='autocast: float32 maps, as connectors give them, under bfloat16 autocast')
    found.add_argument('--ops', nargs='+', choices=list(OWN), default=list(OWN))
    return found.parse_args()


def dwt_variants(levels: int) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    """Each returns LL_J and the details (N, C, 3, h, w), the finest first. ptwt's bands come one by one; their stack is
    not its work. Without ptwt (requirements/optional.txt) it is left out.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        from pytorch_wavelets import DWTForward
    modules = {}

    def ours(x):
        bands = dwt2(x, levels)
        return [bands.low, *bands.details]

    def pytorch_wavelets(x):
        key = x.dtype, x.device
        if key not in modules:
            modules[key] = DWTForward(J=levels, wave='haar', mode='zero').to(x)
        low, details = modules[key](x)
        return [low, *details]

    def of_ptwt(x):
        low, *details = ptwt.wavedec2(x, 'haar', mode='zero', level=levels)
        return [low, *(band for level in reversed(details) for band in level)]
    return {'ours': ours, 'pytorch_wavelets': pytorch_wavelets, **({} if ptwt is None else {'ptwt': of_ptwt})}


def gffl_variants(teacher: Tensor) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    return {'ours': lambda x: [gaussian_frequency_loss(x, teacher.to(x.dtype))],
            'torch.fft': lambda x: [gaussian_frequency_loss_fft(x, teacher.to(x.dtype))]}


def depthwise_variants(weights: list[Tensor]) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    return {'ours': lambda x: [depthwise3x3(x, *(weight.to(x) for weight in weights))],
            'F.conv2d': lambda x: [F.conv2d(x, *(weight.to(x) for weight in weights), padding=1, groups=x.shape[1])]}


def pooling_variants(grid: tuple[int, int]) -> dict[str, Callable[[Tensor], list[Tensor]]]:
    return {'ours': lambda x: [area_pool(x, grid)], 'F.adaptive_avg_pool2d': lambda x: [F.adaptive_avg_pool2d(x, grid)]}


def standardisation_variants() -> dict[str, Callable[[Tensor], list[Tensor]]]:
    return {'ours': lambda x: [*standardise(x)],
            'F.batch_norm': lambda x: [F.batch_norm(x, None, None, training=True)]}


class Run:
    """Forward and backward, to weights too, of one variant on one map, with a random gradient at each output."""

    def __init__(self, function: Callable, x: Tensor, weights: list[Tensor] = ()):
        self.function, self.x, self.weights = function, x.detach().requires_grad_(), weights
        generator = torch.Generator().manual_seed(1)
        outputs = function(self.x)
        gradients = [torch.randn(out.shape, generator=generator).to(x) for out in _joined(outputs)]
        self.gradients = [gradient.to(out) for out, gradient in zip(outputs, _split(outputs, gradients), strict=True)]

    def __call__(self) -> tuple[list[Tensor], Tensor]:
        outputs = self.function(self.x)
        gradient, *_ = torch.autograd.grad(outputs, [self.x, *self.weights], self.gradients)
        return _joined(outputs), gradient


def _joined(outputs: list[Tensor]) -> list[Tensor]:
    """Detail bands that came one by one, (N, C, h, w), as one tensor a level."""
    if len(outputs) <= 1 or outputs[1].dim() == 5:
        return outputs
    return [outputs[0], *(torch.stack(outputs[i:i + 3], 2) for i in range(1, len(outputs), 3))]


def _split(outputs: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
    """The gradients of joined outputs as the variant's own outputs take them."""
    if len(outputs) == len(gradients):
        return gradients
    return [gradients[0], *(band for gradient in gradients[1:] for band in gradient.unbind(2))]


def furthest(ours: Run, other: Run) -> float:
    """Ours from the other's definition in float64, as a share of its largest value: of each output and of the
    gradient.
    """
    (outputs, gradient), (exact, exact_gradient) = ours(), Run(other.function, other.x.double())()
    return max(((a.double() - b).abs().max() / b.abs().max()).item()
               for a, b in zip([*outputs, gradient], [*exact, exact_gradient]))


def measure(op: str, shape: tuple[int, ...], dtype: str, args: argparse.Namespace) -> tuple[list[dict], list[dict]]:
    x, teacher = (torch.randn(shape, device=args.device) for _ in range(2))
    weights = [torch.randn(shape[1], *rest, device=args.device, requires_grad=True)
               for rest in ((1, 3, 3), ())] if op == 'depthwise' else []
    variants = dict(dwt=lambda: dwt_variants(LEVELS), gffl=lambda: gffl_variants(teacher),
                    depthwise=lambda: depthwise_variants(weights),
                    pooling=lambda: pooling_variants(tuple((n + 1) // 2 for n in shape[2:])),
                    standardisation=standardisation_variants)
    functions = variants[op]()
    runs = {name: Run(function, x, weights) for name, function in functions.items()}
    context = torch.autocast(args.device, torch.bfloat16) if dtype == 'autocast' else contextlib.nullcontext()
    with context:
        seconds = interleaved(runs, args.repeats, args.device)
    rows, seen = [], []
    for name in list(runs)[1:]:
        faster, spread = ratio(seconds[name], seconds['ours'])
        row = dict(op=op, shape=list(shape), dtype=dtype, versus=name, ratio=faster, spread=spread,
                   error=furthest(runs['ours'], runs[name]))
        rows.append(row)
        seen.append({'op': op, 'shape': 'x'.join(map(str, shape)), 'dtype': dtype,
                     'ours, ms': milliseconds(seconds['ours']), 'versus': name,
                     'theirs / ours': f'{faster:.2f} ± {spread / 2:.2f}', 'error': f'{row["error"]:.0e}'})
    return rows, seen


def main() -> None:
    args = parse_args()
    start(args)
    shapes = [tuple(map(int, shape.split(','))) for shape in args.shapes or []]
    rows, seen = [], []
    for op in args.ops:
        for dtype in args.dtypes if op in ('dwt', 'gffl') else ['float32']:  # as the others always compute
            for shape in shapes or OWN[op]:
                found = measure(op, shape, dtype, args)
                rows += found[0]
                seen += found[1]
    show(seen)
    finish(args, rows)


if __name__ == '__main__':
    main()
