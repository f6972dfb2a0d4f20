"""Kill a training again and again, at random moments and in the middle of checkpoint writes; its end must be that of
the uninterrupted one.

Epochs, one process, 30 kills (about 5 minutes on two cores):
  python tools/stress/kill.py
Iterations, two processes:
  python tools/stress/kill.py --loop iterations --processes 2
As Slurm ends a job, with a checkpoint in the middle of an epoch:
  python tools/stress/kill.py --signal TERM

Every run after the first is the same command with --resume. Exit status 0 only if every one of them went on and the
last weights, of student and connectors, are bitwise those of the uninterrupted run.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from sfkd.datasets.digits_wild import generate_cls

ROOT = Path(__file__).resolve().parents[2]
#: Dropout and augmentation draw random numbers in the training process and in its data workers.
CONFIG = """
_base_ = '{root}/configs/mini/cls_resnet_to_mixer.py'
model = dict(teacher_ckpt='init', student_options=dict(backbone=dict(drop_rate=0.1)))
train_dataloader = dict(
    batch_size=10, num_workers={workers}, sampler=dict(type='{sampler}', shuffle=True),
    dataset=dict(data_root='{data}'))
val_dataloader = dict(batch_size=10, num_workers=0, dataset=dict(data_root='{data}'))
train_cfg = dict(_delete_=True, {train_cfg})
param_scheduler = [dict(type='CosineAnnealingLR', T_max={iterations}, by_epoch=False)]
default_hooks = dict(checkpoint=dict({checkpoint}, max_keep_ckpts=1, save_best='auto'), logger=dict(interval=1))
"""
EPOCHS, PER_EPOCH = 40, 6


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--loop', choices=['epochs', 'iterations'], default='epochs')
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--workers', type=int, default=2, help='data workers of each process')
    parser.add_argument('--kills', type=int, default=30)
    parser.add_argument('--signal', choices=['KILL', 'TERM', 'INT'], default='KILL')
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/stress/kill'))
    return parser.parse_args()


class Run:
    """One start of the training, in a process group of its own."""

    def __init__(self, args: argparse.Namespace, config: Path, folder: Path, *more: str):
        arguments = ['--work-dir', str(folder), *more]
        if args.processes == 1:
            command = [sys.executable, 'tools/train.py', str(config), *arguments]
        else:
            command = ['bash', 'tools/dist_train.sh', str(config), str(args.processes), *arguments]
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', PYTHON=sys.executable,
                           PORT=str(random.randint(20000, 60000)))
        self.folder, self.log = folder, folder.with_name(f'{folder.name}.log')
        self.start = self.log.stat().st_size if self.log.exists() else 0
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True,
                                        stdout=self.log.open('a'), stderr=subprocess.STDOUT)

    def text(self) -> str:
        with self.log.open() as file:
            file.seek(self.start)
            return file.read()

    def wait_until(self, event, seconds: float) -> bool:
        """Whether an event came before the run ended or time was over."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if event():
                return True
            time.sleep(0.001)
        return False

    def end(self, number: int) -> None:
        os.killpg(self.process.pid, number)
        self.process.wait(timeout=60)


def writing(folder: Path) -> bool:
    return any(name.startswith('.') and '.pth.' in name for name in os.listdir(folder)) if folder.is_dir() else False


def saved(folder: Path) -> list[str]:
    """The full checkpoints that are there."""
    return sorted(file.name for kind in ('epoch', 'iter') for file in folder.glob(f'{kind}_*.pth'))


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(folder / name, weights_only=False)['state_dict']


def main() -> None:
    args = parse_args()
    moments = random.Random(args.seed)
    work = args.work_dir.resolve() / f'{args.loop}_{args.processes}_{args.signal}'
    work.mkdir(parents=True, exist_ok=False)
    generate_cls(work / 'data', counts=dict(train=10 * PER_EPOCH * args.processes, val=20, test=20))
    loops = dict(
        epochs=dict(sampler='DefaultSampler', train_cfg=f'by_epoch=True, max_epochs={EPOCHS}, val_interval=2',
                    checkpoint='interval=1, by_epoch=True', last=f'epoch_{EPOCHS}.pth'),
        iterations=dict(sampler='InfiniteSampler',
                        train_cfg=f'by_epoch=False, max_iters={EPOCHS * PER_EPOCH}, val_interval=12',
                        checkpoint='interval=5, by_epoch=False', last=f'iter_{EPOCHS * PER_EPOCH}.pth'))
    last = loops[args.loop].pop('last')
    config = work / 'config.py'
    config.write_text(CONFIG.format(root=ROOT.as_posix(), data=(work / 'data').as_posix(), workers=args.workers,
                                    iterations=EPOCHS * PER_EPOCH, **loops[args.loop]))
    whole = Run(args, config, work / 'whole')
    if whole.process.wait():
        sys.exit(f'the uninterrupted run failed: {whole.log}')
    print(f'uninterrupted: {last}', flush=True)

    folder, number = work / 'killed', getattr(signal, f'SIG{args.signal}')
    in_writes = 0
    for kill in range(args.kills):
        run = Run(args, config, folder, *(['--resume'] if kill else []))
        if not run.wait_until(lambda run=run: 'Epoch(train)' in run.text() or 'Iter(train)' in run.text(), 120):
            if run.process.returncode:
                sys.exit(f'kill {kill}: the run did not go on; see {run.log}')
            print(f'the training ended after {kill} kills: give it more epochs', flush=True)
            break
        before = saved(folder)
        if moments.random() < 0.7:  # most runs get to write something, so that the training ends some day
            run.wait_until(lambda before=before: saved(folder) != before, 30)
        if kill % 3 == 0 and args.signal == 'KILL':  # in the middle of a write
            in_writes += run.wait_until(lambda: writing(folder), 30)
        else:
            time.sleep(moments.uniform(0, 0.5))
        if run.process.poll() is None:
            run.end(number)
        print(f'{args.signal} {kill + 1}: exit {run.process.returncode}, {", ".join(saved(folder))}', flush=True)
    run = Run(args, config, folder, '--resume')
    if run.process.wait():
        sys.exit(f'the last run did not go on; see {run.log}')
    first, second = weights(work / 'whole', last), weights(folder, last)
    same = first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    setting = f'{args.loop}, {args.processes} process(es), {args.workers} workers'
    print(f'{setting}: {args.kills} times {args.signal}, {in_writes} of them in a write; last weights '
          f'({len(first)} tensors) bitwise {"those" if same else "NOT those"} of the uninterrupted run')
    sys.exit(0 if same else 1)


if __name__ == '__main__':
    main()
