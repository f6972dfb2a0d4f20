"""How the cost of SFKD grows: a step over its floor (bench_step.py) by image size, levels, pairs, batch and processes.

Each series changes one thing; the rest stays as in the classification flagship at 224 px, batch 2. 'by bands' computes
every band, for BandMSE(balance='none'); without DS2S nothing else needs one, with it the student's are there anyway.
Processes train data-parallel on this machine (gloo on a CPU, NCCL on GPUs); their seconds are of the clock, so give the
machine a core each.
"""
import argparse
import os
import tempfile
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from common import PAIRS, Steps, finish, interleaved, milliseconds, parser, prepare_process, ratio, show, start
from torch.nn.parallel import DistributedDataParallel

SIZE, BATCH = 224, 2
SERIES = dict(
    image=[(str(size), dict(size=size)) for size in (224, 320, 448)],
    refinement=[(name, dict(batch=8, refine=refine)) for name, refine in (('none', False), ('DS2S', True))],
    levels=[(f'{levels} by bands', dict(by_bands=True, levels=levels)) for levels in (1, 2, 3)],
    pairs=[(str(n), dict(stages=list(range(-n, 0)))) for n in (1, 2, 3, 4)],
    batch=[(str(batch), dict(batch=batch)) for batch in (1, 2, 4, 8)])


def parse_args() -> argparse.Namespace:
    found = parser(__doc__, repeats=7)
    found.add_argument('--series', nargs='+', choices=[*SERIES, 'processes'], default=[*SERIES, 'processes'])
    found.add_argument('--processes', nargs='+', type=int, default=[1, 2])
    found.add_argument('--config', default=PAIRS['cls'][0], help='default: %(default)s')
    found.add_argument('--size', type=int, default=SIZE,
                       help='pixels a side, where the series does not change it (default %(default)s)')
    return found.parse_args()


def build(config: str, device: str, size: int, batch: int = BATCH, by_bands: bool = False, levels: int = 2,
          **options) -> Steps:
    steps = Steps(config, (size, size), batch, device, levels=levels, **options)
    if by_bands:
        for pair in steps.distiller.distillation.pairs:
            if 'spatial' in pair.losses:
                pair.losses['spatial'].balance = 'none'
    return steps


def row(series: str, value: str, seconds: dict[str, list[float]]) -> dict:
    over_floor, spread = ratio(seconds['sfkd'], [a + b for a, b in zip(seconds['student'], seconds['teacher'])])
    return dict(series=series, value=value,
                **{f'{key}_ms': milliseconds(seconds[key]) for key in ('student', 'teacher', 'sfkd')},
                step_over_floor=over_floor, spread=spread)


def one_process(rank: int, count: int, args: argparse.Namespace, folder: str) -> None:
    """Steps of one of several processes; the first writes the seconds of each round."""
    prepare_process()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    backend = 'gloo'
    if args.device != 'cpu':
        torch.cuda.set_device(rank)
        backend = 'nccl'
    dist.init_process_group(backend, init_method=f'file://{folder}/meeting', rank=rank, world_size=count)
    steps = build(args.config, args.device, args.size)
    whole, alone = (DistributedDataParallel(model) for model in (steps.distiller, steps.student_model))
    variants = dict(student=lambda: steps._train(lambda *batch: alone(*batch, mode='loss')), teacher=steps.teacher,
                    sfkd=lambda: steps._train(lambda *batch: whole(*batch, mode='loss')))

    def on_the_clock(work: Callable) -> float:
        dist.barrier()
        start = time.perf_counter()
        work()
        if args.device != 'cpu':
            torch.cuda.synchronize()
        return time.perf_counter() - start
    rounds = [{name: on_the_clock(work) for name, work in variants.items()} for _ in range(args.repeats + 2)][2:]
    if rank == 0:
        torch.save({name: [r[name] for r in rounds] for name in variants}, f'{folder}/seconds.pth')
    dist.destroy_process_group()


def by_processes(count: int, args: argparse.Namespace) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(one_process, (count, args, folder), nprocs=count)
        return torch.load(f'{folder}/seconds.pth', weights_only=True)


def main() -> None:
    args = parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', str(args.threads))
    start(args)
    rows = []
    for series in args.series:
        if series == 'processes':
            rows += [row(series, str(count), by_processes(count, args)) for count in args.processes]
            continue
        for value, options in SERIES[series]:
            steps = build(args.config, args.device, **dict(dict(size=args.size), **options))
            variants = dict(student=steps.student, teacher=steps.teacher, sfkd=steps.sfkd)
            rows.append(row(series, value, interleaved(variants, args.repeats, args.device)))
    show(rows)
    finish(args, rows)


if __name__ == '__main__':
    main()
