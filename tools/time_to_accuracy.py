"""How much training time a student needs, alone and taught in cheaper and cheaper ways, to be as good as it ends alone.

  python tools/time_to_accuracy.py configs/mini/cls_resnet_to_mixer.py --seeds 0 1 2

By other methods too, named as in tools/train_together.py; what the teacher showed is kept where ', cached' follows:

  python tools/time_to_accuracy.py CONFIG --seeds 0 --variants alone 'sfkd, cached' 'rsd+losses.0.weight=0.1, cached'

Each variant is a run of its own with its seed's data order and initial student, scored on the validation split after
every epoch. Seconds are those of training alone, without scoring: on a CPU those that the process computed, so that
other programs count little (those of the data loader's workers are not among them), on a GPU those of the clock. Rows
go to --results; a run of as many epochs that is in it is not repeated.
"""
import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope
from mmengine.runner import Runner

from sfkd.analysis.intervals import spread
from sfkd.openmmlab.building import read_config
from sfkd.openmmlab.configs import check_data, load_config, student_config
from sfkd.openmmlab.methods import METHODS, budget, check_name, folder_of, model_of
from sfkd.openmmlab.process import errors_for_people, prepare_process
from sfkd.openmmlab.running import build_runner

ALONE = 'alone'
CACHED = ', cached'  # what may follow a variant
#: Variant of the pair's own method -> options of the config; a quarter of the steps is counted from the data.
VARIANTS = {'teacher in float32': {'model.teacher_precision': 'fp32'}, 'taught': {},
            'every second step': {'model.every': 2}, 'half of each batch': {'model.share': 0.5},
            'in the first quarter': {}}
DEFAULT = [ALONE, *VARIANTS, f'taught{CACHED}']
#: Augmentations of each picture that a cache holds, where the config does not say.
CACHED_VARIANTS = 4


@HOOKS.register_module()
class TrainingClock(Hook):
    """Seconds of training so far, and the score, after each epoch."""

    def __init__(self):
        self.seconds, self.scores, self.passed, self.began = [], [], 0.0, 0.0

    @staticmethod
    def now() -> float:
        if not torch.cuda.is_available():
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def before_train_epoch(self, runner) -> None:
        self.began = self.now()

    def after_train_epoch(self, runner) -> None:
        self.passed += self.now() - self.began
        self.seconds.append(self.passed)

    def after_val_epoch(self, runner, metrics: dict) -> None:
        self.scores.append(next(iter(metrics.values())))


def configured(args: argparse.Namespace, variant: str, seed: int, folder: Path) -> Config:
    options = {'randomness.seed': seed, **budget(args.epochs), 'default_hooks.checkpoint.save_best': None,
               'default_hooks.checkpoint.interval': args.epochs}  # saving takes time
    name = variant.removesuffix(CACHED)
    config = load_config(args.config, str(folder), options | VARIANTS.get(name, {}))
    if name == ALONE:
        config = student_config(config)
    elif name not in VARIANTS:
        config.model = model_of(args.config, name)
    config.custom_hooks = [*(config.get('custom_hooks') or []), dict(type='TrainingClock')]
    if variant.endswith(CACHED):
        loader = config.train_dataloader
        if loader.dataset.type != 'sfkd.ReplayedDataset':
            loader.dataset = dict(type='sfkd.ReplayedDataset', dataset=loader.dataset, variants=CACHED_VARIANTS)
        config.custom_hooks.append(dict(type='sfkd.TeacherCacheHook', folder=str(folder / 'cache')))
    if name == 'in the first quarter':
        init_default_scope(config.default_scope)
        config.model.until = args.epochs * len(Runner.build_dataloader(config.train_dataloader)) // 4
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    return config


def train(args: argparse.Namespace, variant: str, seed: int, folder: Path) -> None:
    """One run, in this process; its row goes to <folder>/row.json."""
    prepare_process()
    with errors_for_people():
        config = configured(args, variant, seed, folder)
        check_data(config, ('train', 'val'))
        runner = build_runner(config)
        runner.train()
    clock = next(hook for hook in runner.hooks if isinstance(hook, TrainingClock))
    row = dict(variant=variant, seed=seed, config=args.config, seconds=clock.seconds, scores=clock.scores)
    (folder / 'row.json').write_text(json.dumps(row) + '\n')


def seconds_to(row: dict, target: float) -> float | None:
    """Seconds to the first epoch that ends with a score of the target at least."""
    return next((seconds for seconds, score in zip(row['seconds'], row['scores']) if score >= target), None)


def table(rows: list[dict]) -> str:
    """Markdown. Ratios are taken within a seed."""
    by_seed = {(row['variant'], row['seed']): row for row in rows}
    alone = {seed: row for (variant, seed), row in by_seed.items() if variant == ALONE}
    lines = ['| variant | seeds | final score, mean ± sd | training, s | seconds to the score that the student alone '
             'ends with | as a share of those alone |', '|' + '---|' * 6]
    for variant in dict.fromkeys(row['variant'] for row in rows):
        of = {seed: row for (name, seed), row in by_seed.items() if name == variant and seed in alone}
        if not of:
            continue
        final = [row['scores'][-1] for row in of.values()]
        taken = {seed: seconds_to(row, alone[seed]['scores'][-1]) for seed, row in of.items()}
        there = {seed: seconds for seed, seconds in taken.items() if seconds is not None}
        reached = f'{mean(there.values()):.0f}' if there else 'never'
        reached += f' ({len(there)} of {len(of)})' if 0 < len(there) < len(of) else ''
        shares = [seconds / alone[seed]['seconds'][-1] for seed, seconds in there.items()]
        lines.append(f"| {variant} | {len(of)} | {spread(final)} | "
                     f"{mean(row['seconds'][-1] for row in of.values()):.0f} | {reached} | "
                     f"{f'{mean(shares):.2f}' if shares else ''} |")
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='of a pair of classifiers')
    parser.add_argument('--variants', nargs='+', default=DEFAULT, metavar='VARIANT',
                        help=f'{", ".join(map(repr, DEFAULT))}, and methods')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, help="default: the config's")
    parser.add_argument('--results', type=Path, help='default: docs/results/time_to_accuracy.jsonl')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/time_to_accuracy'))
    parser.add_argument('--one', nargs=2, metavar=('VARIANT', 'SEED'), help='one run, in this process')
    args = parser.parse_args()
    with errors_for_people():
        for variant in args.variants:
            name = variant.removesuffix(CACHED)
            check_name(name, '--variants', [*VARIANTS])
            if name.partition('+')[0] not in (*METHODS, *VARIANTS) and not args.results:
                parser.error(f"--results: '{name}' is your own, and the default file is this project's; give another")
        args.results = args.results or Path('docs/results/time_to_accuracy.jsonl')
        args.epochs = args.epochs or read_config(args.config, 'config').train_cfg.max_epochs
    if args.one:
        train(args, args.one[0], int(args.one[1]), args.work_dir)
        return
    rows = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    rows = [row for row in rows if row['config'] == args.config and len(row['scores']) == args.epochs]
    for seed in args.seeds:
        for variant in args.variants:
            if any((row['variant'], row['seed']) == (variant, seed) for row in rows):
                continue
            name = folder_of(variant.removesuffix(CACHED)).replace(' ', '_')
            folder = args.work_dir / f'{name}{"_cached" if variant.endswith(CACHED) else ""}_{seed}'
            shutil.rmtree(folder, ignore_errors=True)  # an interrupted run has left a part of its cache
            folder.mkdir(parents=True)
            command = [sys.executable, __file__, args.config, '--one', variant, str(seed), '--work-dir', str(folder),
                       '--epochs', str(args.epochs)]
            with open(folder / 'log.txt', 'w') as log:
                status = subprocess.run(command, stdout=log, stderr=log).returncode
            if status:
                sys.exit(f'{variant}, seed {seed}: exit status {status}, see {folder}/log.txt')
            rows.append(json.loads((folder / 'row.json').read_text()))
            args.results.parent.mkdir(parents=True, exist_ok=True)
            with open(args.results, 'a') as file:
                file.write(json.dumps(rows[-1]) + '\n')
            print(f"{variant}, seed {seed}: {rows[-1]['scores'][-1]:.2f}, {rows[-1]['seconds'][-1]:.0f} s", flush=True)
    print(table(rows))


if __name__ == '__main__':
    main()
