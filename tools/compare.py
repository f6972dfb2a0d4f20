"""Methods x pairs x seeds under one budget: train, score, and print mean, spread and paired differences.

Every run of a pair and seed has the same data order and the same initial student. Results go to a file of JSON lines; runs that are in
it are not repeated, so an interrupted comparison goes on where it stopped. Training sees neither the validation nor the test split;
the last epoch is scored, on the test split unless --split val is given (for choosing weights).
"""
import argparse
import json
import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev

ROOT = Path(__file__).resolve().parent.parent
METRIC = 'accuracy/top1'
#: Pair -> (distillation config, the student's own config).
PAIRS = {
    'resnet_to_mixer': ('configs/mini/cls_resnet_to_mixer.py', 'configs/mini/cls_mixer.py'),
    'resnet_to_swin': ('configs/mini/cls_resnet_to_swin.py', 'configs/mini/cls_swin.py'),
    'swin_to_resnet8': ('configs/mini/cls_swin_to_resnet8.py', 'configs/mini/cls_resnet8.py'),
}
#: Method -> options on the pair's distillation config; None trains the student's own config.
METHODS = {
    'alone': None,
    'kd': ['model.spatial_weight=0', 'model.frequency_weight=0', 'model.logit_weight=1.0', 'model.temperature=4.0'],  # T: of 1 and 4 on val
    'sfkd': [],
}


def full_name(method: str, options: list[str]) -> str:
    """A distilling method with its options: 'sfkd+sigma=1.0'."""
    return method if METHODS[method] is None else '+'.join([method, *(option.removeprefix('model.') for option in options)])


def run(pair: str, method: str, seed: int, args: argparse.Namespace) -> dict:
    """Train and score one cell.

    Returns:
        dict: one row of the results file; ``value`` is None if a process failed (its log is beside the checkpoint).
    """
    config, alone = PAIRS[pair]
    config, options = (alone, []) if METHODS[method] is None else (config, METHODS[method] + args.options)
    name = full_name(method, args.options)
    folder = ROOT / 'work_dirs/compare' / pair / name.replace('/', '_') / f'seed{seed}'
    folder.mkdir(parents=True, exist_ok=True)
    environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONPATH': str(ROOT)}
    started = time.time()
    row = dict(task='cls', pair=pair, method=name, seed=seed, split=args.split, metric=METRIC, value=None, config=config)
    with open(folder / 'log.txt', 'w') as log:
        def call(*arguments) -> bool:
            return not subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, stdout=log, stderr=log).returncode
        # The last epoch is what is scored: looking at the validation split on the way would only cost time
        if call('tools/train.py', config, '--work-dir', folder, '--no-validate', '--cfg-options', f'randomness.seed={seed}',
                'default_hooks.checkpoint.save_best=None', *options):
            row['seconds'] = round(time.time() - started)
            last = folder / Path((folder / 'last_checkpoint').read_text()).name
            split = [] if args.split == 'test' else [f'test_dataloader.dataset.data_prefix={args.split}']
            if call('tools/test.py', config, last, '--work-dir', folder / 'test', '--out', folder / 'score.json', '--cfg-options',
                    f'randomness.seed={seed}', *split):
                row['value'] = json.loads((folder / 'score.json').read_text())[METRIC]
    return row


def interval(values: list[float]) -> str:
    """Mean and 95% confidence interval of a mean (Student's t)."""
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(len(values), 1.96)
    return f'{mean(values):+6.2f} ± {t * stdev(values) / math.sqrt(len(values)):.2f}' if len(values) > 1 else f'{mean(values):+6.2f}'


def table(rows: list[dict], baselines=('alone', 'kd')) -> str:
    """Markdown: mean ± standard deviation over seeds, and the paired difference to each baseline with its 95% interval."""
    lines = ['| pair | method | seeds | top-1 (%), mean ± sd | ' + ' | '.join(f'minus {b}' for b in baselines) + ' | s a run |',
             '|' + '---|' * (5 + len(baselines))]
    cells: dict[tuple[str, str], dict[int, dict]] = {}
    for row in rows:
        cells.setdefault((row['pair'], row['method']), {})[row['seed']] = row
    for (pair, method), by_seed in cells.items():
        values = [row['value'] for row in by_seed.values()]
        differences = []
        for baseline in baselines:
            other = cells.get((pair, baseline), {})
            common = [seed for seed in by_seed if seed in other]
            paired = [by_seed[seed]['value'] - other[seed]['value'] for seed in common]
            differences.append(interval(paired) if paired and method != baseline else '')
        spread = f' ± {stdev(values):.2f}' if len(values) > 1 else ''
        seconds = round(mean(row['seconds'] for row in by_seed.values()))
        lines.append(f'| {pair} | {method} | {len(values)} | {mean(values):.2f}{spread} | {" | ".join(differences)} | {seconds} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', nargs='+', choices=PAIRS, default=list(PAIRS))
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--split', choices=['val', 'test'], default='test')
    parser.add_argument('--options', nargs='+', default=[], metavar='KEY=VALUE', help='config options of the distilling methods; they become '
                        "part of the method's name")
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side')
    parser.add_argument('--results', type=Path, default=ROOT / 'docs/results/results_cls.jsonl')
    args = parser.parse_args()
    if args.split == 'val' and args.results == parser.get_default('results'):
        args.results = ROOT / 'work_dirs/compare/tuning_cls.jsonl'
    args.results.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    done = {(row['pair'], row['method'], row['seed'], row['split']) for row in rows}
    wanted = [(pair, method, seed) for seed, pair, method in product(args.seeds, args.pairs, args.methods)
              if (pair, full_name(method, args.options), seed, args.split) not in done]
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    failed = 0
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda cell: run(*cell, args), wanted):
            if row['value'] is None:
                failed += 1
                print(f"FAILED: {row['pair']} {row['method']} seed {row['seed']}, see work_dirs/compare/{row['pair']}", flush=True)
                continue
            row['commit'] = commit
            rows.append(row)
            with open(args.results, 'a') as file:
                file.write(json.dumps(row) + '\n')
            print(f"{row['pair']} {row['method']} seed {row['seed']}: {row['value']:.2f} ({row['seconds']} s)", flush=True)
    print(table([row for row in rows if row['split'] == args.split]))
    sys.exit(failed and f'{failed} runs failed')


if __name__ == '__main__':
    main()
