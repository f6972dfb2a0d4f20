"""Peak memory of an SFKD step over its floor, (the student's own training step) + (the teacher's inference).

On a CPU every allocation and release of PyTorch's allocator during one step is replayed from the profiler, on top of
the weights, gradients and optimizer states that are there before it; on a GPU it is torch.cuda.max_memory_allocated.
Neither depends on what else runs. The floor adds the two peaks, each with its own weights, as if both ran side by side;
'in turn' is the stricter one, in which teacher and student never hold activations at the same time.
"""
import argparse
import os
from collections.abc import Callable, Iterable

import torch
from common import PAIRS, Steps, finish, parser, show, start
from torch import Tensor

MIB = 2**20


def parse_args() -> argparse.Namespace:
    found = parser(__doc__, repeats=1)
    found.add_argument('--pairs', nargs='+', choices=PAIRS, default=list(PAIRS))
    found.add_argument('--image', nargs=2, type=int, metavar=('H', 'W'), help='default: that of bench_step.py')
    found.add_argument('--batch', type=int, help='default: that of bench_step.py')
    found.add_argument('--config', help="another SFKD config in place of the pair's own; give one of --pairs")
    found.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    return found.parse_args()


def peak(step: Callable, device: str) -> int:
    """Bytes by which a step's memory rises above what was there before; the second run counts, with gradients and
    states in place.
    """
    step()
    if device != 'cpu':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    changes = [(event.start_ns(), event.nbytes())
               for event in profile.profiler.kineto_results.events() if event.name() == '[memory]']
    now = highest = 0
    for _, change in sorted(changes):
        now += change
        highest = max(highest, now)
    return highest


def held(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def trained(module: torch.nn.Module) -> int:
    """What is there before a step: weights, and of those that train the gradient and the optimizer's momentum."""
    return held([*module.buffers(), *module.parameters()]) + 2 * held(p for p in module.parameters() if p.requires_grad)


def measure(name: str, args: argparse.Namespace) -> tuple[dict, dict]:
    config, size, batch = PAIRS[name]
    steps = Steps(args.config or config, tuple(args.image or size), args.batch or batch, args.device, args.amp)
    steps.sfkd()  # what is cached at the first step
    rises = {key: peak(getattr(steps, key), args.device) for key in ('student', 'teacher', 'sfkd')}
    network = held([*steps.network.parameters(), *steps.network.buffers()])
    student = trained(steps.student_model) + rises['student']
    whole = trained(steps.distiller) + network + rises['sfkd']
    in_turn = trained(steps.student_model) + network + max(rises['student'], rises['teacher'])
    row = dict(pair=name, peak_over_floor=whole / (student + network + rises['teacher']))
    return row, {'pair': name, 'student, MiB': student / MIB, 'teacher, MiB': (network + rises['teacher']) / MIB,
                 'sfkd, MiB': whole / MIB, 'sfkd / floor': row['peak_over_floor'],
                 'sfkd / floor in turn': whole / in_turn}


def main() -> None:
    args = parse_args()
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')  # the profiler's own messages
    start(args)
    measured = [measure(name, args) for name in args.pairs]
    show([seen for _, seen in measured])
    finish(args, [row for row, _ in measured])


if __name__ == '__main__':
    main()
