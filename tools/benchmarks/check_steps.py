"""Training steps of every distillation config in configs/mini on a device, in float32 and in mixed precision: losses
and gradients are finite, and the losses of half precision near those of float32. Exit status 0 only if all are.
"""
import math
import sys

import torch
from common import ROOT, Steps, finish, parser, show, start

SIZES = dict(cls=(64, 64), det=(128, 128), seg=(128, 128))
#: How far, relative to it, the sum of the losses may be from float32's.
BOUND = 0.05


def configs() -> dict[str, str]:
    """``{name: path}`` of the mini configs that distil."""
    return {path.stem: str(path.relative_to(ROOT)) for path in sorted(ROOT.glob('configs/mini/*_to_*.py'))
            if not path.stem.endswith('_cached')}


def step(steps: Steps, dtype: torch.dtype | None) -> tuple[float, bool]:
    """The sum of the losses of one step, and whether every gradient is finite."""
    steps.distiller.zero_grad()
    steps.distiller.distillation.teacher.precision = 'auto' if dtype else 'fp32'
    with torch.autocast(steps.device, dtype, enabled=dtype is not None):
        loss, _ = steps.distiller.parse_losses(steps.distiller(steps.inputs, steps.samples, mode='loss'))
    (64 * loss).backward()  # as a loss scaler does
    return loss.item(), all(p.grad.isfinite().all() for p in steps.distiller.parameters() if p.grad is not None)


def main() -> None:
    found = parser(__doc__, repeats=2)
    found.add_argument('--configs', nargs='+', choices=configs(), default=list(configs()))
    args = found.parse_args()
    start(args)
    dtypes = [None, torch.bfloat16, *([torch.float16] if args.device != 'cpu' else [])]
    rows = []
    for name in args.configs:
        steps = Steps(configs()[name], SIZES[name[:3]], 4, args.device)
        taken = [step(steps, dtype) for dtype in dtypes]
        rows += [dict(config=name, dtype=str(dtype or torch.float32).removeprefix('torch.'), loss=loss,
                      difference=abs(loss - taken[0][0]) / taken[0][0], gradients_finite=finite)
                 for dtype, (loss, finite) in zip(dtypes, taken)]
    show(rows)
    finish(args, rows)
    if wrong := [row for row in rows if not (math.isfinite(row['loss']) and row['gradients_finite']
                                             and row['difference'] <= BOUND)]:
        sys.exit(f'{len(wrong)} of {len(rows)} steps are wrong, the first of them: {wrong[0]}')
    print(f'{len(rows)} of {len(rows)} steps are right')


if __name__ == '__main__':
    main()
