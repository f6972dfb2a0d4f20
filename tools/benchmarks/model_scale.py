"""A model of an SFKD step's time on 8 to 512 GPUs: nothing is measured here, every assumption is an argument.

A step is compute (student and teacher, the same on every GPU), the gradients' all-reduce (DDP's buckets; all but the
last hide behind the backward pass as long as that lasts), the connectors' messages (an all-gather a pair in the forward
pass and an all-reduce a pair in the backward pass), and waiting for the slowest: compute times are independent normal
variables, whose largest of N lies sqrt(2 ln N) deviations above the mean, and each place where all wait adds one such
wait. A step of DDP has one such place; the connectors' statistics make it two, as the forward pass then ends together.
Statistics kept within a node have neither the messages between nodes nor, beyond a node, the second wait.
"""
import argparse
import json
import math
from pathlib import Path

from common import show


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--gpus', nargs='+', type=int, default=[8, 16, 32, 64, 128, 256, 512])
    parser.add_argument('--compute', type=float, default=150.0, help='ms of a step on one GPU (default %(default)s)')
    parser.add_argument('--forward', type=float, default=0.5, help="the forward passes' share of it, the teacher's "
                        'included (default %(default)s)')
    parser.add_argument('--jitter', type=float, default=0.01,
                        help='standard deviation of a step from GPU to GPU, relative (default %(default)s)')
    parser.add_argument('--gradients', type=float, default=49.0, help='MB (default %(default)s: ResNet-18)')
    parser.add_argument('--bucket', type=float, default=25.0, help="MB of DDP's buckets (default %(default)s)")
    parser.add_argument('--pairs', type=int, default=4)
    parser.add_argument('--statistics', type=float, default=12.0, help='KB a pair and process (default %(default)s)')
    parser.add_argument('--within', type=float, default=300.0, help='GB/s a GPU within a node (default %(default)s)')
    parser.add_argument('--between', type=float, default=40.0, help='GB/s a GPU between nodes (default %(default)s)')
    parser.add_argument('--launch', type=float, default=20.0, help='us that a message takes to begin (default '
                        '%(default)s)')
    parser.add_argument('--hop', type=float, default=8.0, help='us a hop between nodes (default %(default)s)')
    parser.add_argument('--node', type=int, default=8, help='GPUs a node (default %(default)s)')
    parser.add_argument('--json', metavar='FILE')
    return parser.parse_args()


def latency(gpus: int, args: argparse.Namespace) -> float:
    """ms of a small message among so many GPUs: up a tree and down again."""
    nodes = math.ceil(gpus / args.node)
    return 1e-3 * (args.launch + 2 * math.ceil(math.log2(nodes)) * args.hop)


def transfer(megabytes: float, gpus: int, args: argparse.Namespace) -> float:
    """ms of a ring's pass with so many bytes, at the speed of its slowest link."""
    speed = args.within if gpus <= args.node else args.between
    return megabytes / speed * (gpus - 1) / gpus


def messages(gpus: int, args: argparse.Namespace) -> float:
    """ms of the connectors' messages: what all gather is as large as there are processes."""
    gathered = latency(gpus, args) + transfer(1e-3 * args.statistics * gpus, gpus, args)
    reduced = latency(gpus, args) + 2 * transfer(0.5e-3 * args.statistics, gpus, args)
    return args.pairs * (gathered + reduced)


def wait(gpus: int, share: float, args: argparse.Namespace) -> float:
    """ms until the slowest is there, in a part of the step."""
    deviation = args.jitter * args.compute * math.sqrt(share)  # a sum of independent parts
    return deviation * math.sqrt(2 * math.log(gpus))


def row(gpus: int, args: argparse.Namespace) -> dict:
    last = min(args.bucket, args.gradients)
    hidden = max(0.0, 2 * transfer(args.gradients - last, gpus, args) - (1 - args.forward) * args.compute)
    reduced = latency(gpus, args) + 2 * transfer(last, gpus, args) + hidden
    student = args.compute + reduced + wait(gpus, 1.0, args)  # the same compute without the connectors' messages
    two_waits = wait(gpus, args.forward, args) + wait(gpus, 1 - args.forward, args)
    joined = args.compute + reduced + messages(gpus, args) + two_waits
    inside = min(gpus, args.node)
    within = wait(inside, args.forward, args) + wait(inside, 1 - args.forward, args)
    node = args.compute + reduced + messages(inside, args) + max(wait(gpus, 1.0, args), within)
    return {'gpus': gpus, 'all-reduce, ms': reduced, 'messages, ms': messages(gpus, args),
            'waiting, ms': two_waits, 'step, ms': joined, 'efficiency': args.compute / joined,
            'over no statistics': joined / student, 'within a node, over no statistics': node / student}


def main() -> None:
    args = parse_args()
    rows = [row(gpus, args) for gpus in args.gpus]
    show(rows)
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + '\n')


if __name__ == '__main__':
    main()
