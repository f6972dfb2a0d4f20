"""Values and gradients of the operators, and of a whole SFKD pair, on a device against float64 on the CPU. Exit status
0 only if every error is within its bound.
"""
import copy
import sys
from collections.abc import Callable
from functools import partial

import torch
from common import finish, parser, show, start
from torch import Tensor, nn

from sfkd.connectors import WaveletConnector
from sfkd.losses import BandMSE, GaussianFrequencyLoss
from sfkd.ops import Bands, area_pool, dwt2, exchange, gaussian_frequency_loss, idwt2, max_levels, standardise

SHAPES = [(2, 8, 7, 7), (2, 32, 13, 21), (4, 96, 56, 56)]
#: The furthest that a value or gradient may be from float64's, as a share of the largest.
BOUNDS = dict(float32=2e-5, autocast=2e-5)
#: The pair's projection multiplies in half precision under autocast.
PAIR_BOUNDS = dict(float32=1e-4, autocast=5e-2)


class WholePair(nn.Module):
    """Connector with DS2S, spatial term and GFFL, with weights that are not those of the beginning."""

    def __init__(self, channels: int, masked: bool):
        super().__init__()
        self.connector = WaveletConnector(channels, channels, refine=True)
        self.losses = nn.ModuleList([BandMSE(), GaussianFrequencyLoss()])
        self.masked = masked
        with torch.no_grad():
            for p in self.parameters():
                p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))

    def forward(self, student: Tensor, teacher: Tensor) -> list[Tensor]:
        mask = None
        if self.masked:
            mask = torch.ones_like(student[:, :1])
            mask[0, :, :, student.shape[3] // 2:] = 0
        pair = self.connector(student, teacher, mask)
        return [loss(*pair) for loss in self.losses]


def bands_of(x: Tensor, wavelet: str) -> list[Tensor]:
    low, details = dwt2(x, min(2, max_levels(x.shape[2:], wavelet)), wavelet)
    return [low, *details]


def there_and_back(x: Tensor, wavelet: str) -> list[Tensor]:
    low, details = dwt2(x, min(2, max_levels(x.shape[2:], wavelet)), wavelet)
    return [idwt2(Bands(low.square(), details), wavelet, size=x.shape[2:])]


def exchanged(x: Tensor) -> list[Tensor]:
    low, details = dwt2(x, 2)
    gated, energy = exchange(details, low)
    return [energy, *gated]


def standardised(*maps: Tensor, masked: bool) -> list[Tensor]:
    mask = (torch.arange(maps[0].shape[3], device=maps[0].device) < 5).to(maps[0]).expand_as(maps[0][:, :1])
    return list(standardise(*maps, mask=mask if masked else None))


def cases(shape: tuple[int, ...]) -> dict[str, tuple[Callable, int, dict]]:
    """``{name: (function of maps, how many maps, bounds)}``."""
    found: dict[str, tuple[Callable, int, dict]] = {}
    for wavelet in ('haar', 'db2', 'bior2.2'):
        found[f'dwt {wavelet}'] = partial(bands_of, wavelet=wavelet), 1, BOUNDS
        found[f'idwt {wavelet}'] = partial(there_and_back, wavelet=wavelet), 1, BOUNDS
    found['exchange'] = exchanged, 1, BOUNDS
    found['pooling'] = lambda x: [area_pool(x, tuple(-(-n // 2) for n in x.shape[2:]))], 1, BOUNDS
    for sigma in (0.5, None):
        found[f'gffl sigma {sigma}'] = lambda *maps, sigma=sigma: [gaussian_frequency_loss(*maps, sigma)], 2, BOUNDS
    for masked in (False, True):
        name = ', masked' if masked else ''
        found[f'standardise{name}'] = partial(standardised, masked=masked), 2, BOUNDS
        found[f'pair{name}'] = WholePair(shape[1], masked), 2, PAIR_BOUNDS
    return found


def run(function: Callable, maps: list[Tensor], device: str = 'cpu', autocast: bool = False) -> list[Tensor]:
    """Outputs, and the gradients of their random mixture in every map. As in training, only the way forward is under
    autocast.
    """
    maps = [x.detach().requires_grad_() for x in maps]
    with torch.autocast(device, torch.bfloat16, enabled=autocast):
        outputs = function(*maps)
    generator = torch.Generator().manual_seed(1)
    mixture = sum((out * torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out)).sum()
                  for out in outputs)
    gradients = torch.autograd.grad(mixture, maps, allow_unused=True)
    return [*outputs, *(gradient for gradient in gradients if gradient is not None)]


def error_of(function: Callable, count: int, shape: tuple[int, ...], device: str, dtype: str) -> float:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(shape, generator=generator) for _ in range(count)]
    exact = copy.deepcopy(function).double() if isinstance(function, nn.Module) else function
    expected = run(exact, [x.double() for x in maps])
    here = copy.deepcopy(function).to(device) if isinstance(function, nn.Module) else function
    found = run(here, [x.to(device) for x in maps], device, dtype == 'autocast')
    return max(((a.cpu().double() - b).abs().max() / b.abs().max().clamp_min(1e-12)).item()
               for a, b in zip(found, expected, strict=True))


def main() -> None:
    args = parser(__doc__, repeats=1).parse_args()
    start(args)
    torch.backends.cudnn.allow_tf32 = False  # its convolutions would keep 10 bits
    rows = [dict(case=name, shape='x'.join(map(str, shape)), dtype=dtype,
                 error=error_of(function, count, shape, args.device, dtype), bound=bounds[dtype])
            for shape in SHAPES for name, (function, count, bounds) in cases(shape).items()
            for dtype in ('float32', 'autocast')]
    show(rows)
    finish(args, rows)
    if wrong := [row for row in rows if not row['error'] <= row['bound']]:
        sys.exit(f'{len(wrong)} of {len(rows)} are too far from float64, the first of them: {wrong[0]}')
    print(f'{len(rows)} of {len(rows)} within their bounds')


if __name__ == '__main__':
    main()
