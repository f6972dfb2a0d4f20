"""Methods x pairs x seeds under one budget: train, score, and print mean, spread and paired differences.

Every run of a pair and seed has the same data order and the same initial student; its methods train side by side in one
process (tools/train_together.py). Results go to a file of JSON lines; runs that are in it are not repeated, so an
interrupted comparison goes on where it stopped, and one method's crash ends only its own run. Training sees neither the
validation nor the test split; the last epoch is scored once, on the test split unless --split val is given. Runs that
were under way go on from their last epoch, if the commit is the same.

Every pair, method and seed that the results file lacks, then the tables:
  python tools/compare.py
One cell again:
  python tools/compare.py --pairs resnet_to_mixer --methods cwd --seeds 3 --results /tmp/again.jsonl
Variants, by options of the model:
  python tools/compare.py --pairs resnet_to_mixer --methods sfkd sfkd+levels=1 sfkd+refine=within
Weights, on the validation split:
  python tools/compare.py --tune --pairs resnet_to_mixer swin_to_resnet8 --seeds 0
The tables and the picture of what is there:
  python tools/compare.py --tables-only --plot docs/results/cls.png
A method and a pair of your own, whose scores lie in a file of your own:
  python tools/compare.py --pairs my_pair.py --methods alone sfkd mine.py --seeds 0 1 2 --results mine.jsonl
Another task:
  python tools/compare.py --task det --methods alone sfkd --seeds 0 1 2
Public data, methods with the weights that its validation split chose; what the teachers show is kept:
  python tools/compare.py --task fashion --teacher-cache DIR
"""
import argparse
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from queue import Queue
from statistics import mean
from threading import Lock
from typing import IO

import sfkd
from sfkd.analysis.comparison import draw_gains, parts, percent, ranks, read_rows, table
from sfkd.analysis.tasks import (
    BASELINES,
    CHOSEN,
    METRICS,
    PAIRS,
    PARTS,
    TASK_OF,
    baselines,
    classifies,
    default_methods,
)
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import read_config
from sfkd.openmmlab.methods import METHODS, budget, check_name, is_file, switch_of, weights_of
from sfkd.openmmlab.process import errors_for_people, prepare_file

TOOLS = Path(__file__).resolve().parent
#: In a training's folder: its scores are in a file of rows.
TAKEN = 'taken'
#: What --tune tries first: every weight of the method times these.
FACTORS = (0.25, 1.0, 4.0)


def commit() -> str:
    """Of the checkout; of an installed package its version."""
    if not (TOOLS.parent / '.git').exists():
        return sfkd.__version__

    def git(*arguments):
        return subprocess.run(['git', *arguments], cwd=TOOLS.parent, capture_output=True, text=True).stdout.strip()
    changed = git('status', '--porcelain', 'sfkd', 'configs')
    return git('rev-parse', '--short', 'HEAD') + ('-dirty' if changed else '')


def in_groups(names: list[str], most: int) -> list[list[str]]:
    """As few as hold ``most`` at most, of nearly one size."""
    count = -(-len(names) // most)
    return [names[i::count] for i in range(count)]


class Comparison:
    """Runs cells and keeps their rows.

    Args:
        results: file of JSON lines; rows in it of the same split and budget count as done.
        split: 'val' or 'test'.
        epochs: budget; None for that of the configs.
        together: the most methods of a pair and seed in one process.
        jobs: processes side by side.
        gpus: indices that the processes share in turn; empty for the CPU, or for whatever a process sees.
        cache: folder for what teachers show; None for none.
    """

    def __init__(self, results: Path, split: str = 'test', epochs: int | None = None, together: int = 16, jobs: int = 1,
                 gpus: list[int] = (), cache: Path | None = None):
        self.results, self.split, self.epochs, self.together, self.jobs = results, split, epochs, together, jobs
        self.cache = cache
        self.rows = read_rows(results, '--results') if results.exists() else []
        self.gpus, self.lock, self.failed = Queue(), Lock(), 0
        self.processes: set[subprocess.Popen] = set()
        self.ended_by = 0  # the signal that told it to end
        for i in range(jobs):
            self.gpus.put(gpus[i % len(gpus)] if gpus else None)

    def run(self, cells: list[tuple[str, str, int]]) -> list[dict]:
        """Run what is not done yet of (pair, method, seed); returns the rows of all that succeeded.

        Raises:
            SystemExit: once all trainings have left, where a signal told them to.
        """
        done = {self._key(row) for row in self.rows}
        missing: dict[tuple[str, int], list[str]] = {}
        for pair, method, seed in cells:
            if self._key_of(pair, method, seed) not in done:
                missing.setdefault((pair, seed), []).append(method)
        groups = [(pair, seed, methods) for (pair, seed), names in missing.items()
                  for methods in in_groups(names, self.together)]
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(lambda group: self._group(*group), groups))
        if self.ended_by:
            print(f'{signal.Signals(self.ended_by).name}: the same command goes on', file=sys.stderr)
            sys.exit(128 + self.ended_by)  # as shells have it
        wanted = {self._key_of(*cell) for cell in cells}
        return [row for row in self.rows if self._key(row) in wanted]

    def end(self, number: int, _=None) -> None:
        """Hand a signal on to the trainings under way, which save before they leave, and begin no other."""
        self.ended_by = number
        for process in list(self.processes):
            process.send_signal(number)

    def budget(self, pair: str) -> int:
        """Epochs of a run."""
        return self.epochs or self._configured(pair)

    @staticmethod
    @cache
    def _configured(pair: str) -> int:
        return read_config(PAIRS[TASK_OF[pair]][pair], 'pair').train_cfg.max_epochs

    def _key_of(self, pair: str, method: str, seed: int) -> tuple:
        return pair, method, seed, self.split, self.budget(pair)

    @staticmethod
    def _key(row: dict) -> tuple:
        return row['pair'], row['method'], row['seed'], row['split'], row['epochs']

    def _group(self, pair: str, seed: int, methods: list[str]) -> None:
        gpu = self.gpus.get()
        try:
            rows = [] if self.ended_by else self._train(pair, seed, methods, gpu)
        finally:
            self.gpus.put(gpu)
        with self.lock:
            self.failed += len(methods) - len(rows)
        for row in rows:
            print(f"{pair} {row['method']} seed {seed}: {percent(row):.2f}"
                  + (f" ({row['seconds']} s)" if 'seconds' in row else ''), flush=True)

    def _train(self, pair: str, seed: int, methods: list[str], gpu: int | None) -> list[dict]:
        """Train and score some methods of a pair and seed; the rows of those that ended, which the file then has."""
        task, epochs, version = TASK_OF[pair], self.budget(pair), commit()
        names = [pair, *methods] if is_file(pair) else methods
        group = hashlib.sha256(' '.join(names).encode()).hexdigest()[:12]
        folder = Path('work_dirs/compare') / Path(pair).stem / f'{self.split}{seed}_{epochs}' / group
        command = self._command(pair, seed, methods, folder)
        with locked(folder) as lock:
            if lock is None:
                print(f'FAILED: {pair} seed {seed}: another process trains in {folder}', flush=True)
                return []
            own = [Path(name).read_text() for name in (pair, *(method.partition('+')[0] for method in methods))
                   if is_file(name) and Path(name).is_file()]  # of which no commit tells
            resumed = self._goes_on(folder, dict(command=command, commit=version, own=own))
            spent = {}
            if not (folder / 'scores.json').exists():  # or a training that outlived its comparison has written them
                command[3:3] = ['--resume'] if resumed else []
                took = self._run(command, folder, gpu, lock, f'{pair} seed {seed}', methods)
                # The time is each method's share of the process's; of a resumed run it is not known
                spent = {} if resumed else {key: round(value / len(methods)) for key, value in took.items()}
            scores = json.loads((folder / 'scores.json').read_text()) if (folder / 'scores.json').exists() else {}
            if others := {name for values in scores.values() for name in values if METRICS[task] not in values}:
                print(f"FAILED: {pair}: it is scored by {', '.join(sorted(others))}, those of --task {task} by "
                      f'{METRICS[task]}', flush=True)
                scores = {}
            failed = [method for method in methods if method not in scores]
            if failed and not self.ended_by:
                print(f"FAILED: {pair} seed {seed}, {' '.join(failed)}: see {folder}/log.txt", flush=True)
            rows = [dict(task=task, pair=pair, method=method, seed=seed, split=self.split, metric=METRICS[task],
                         value=values[METRICS[task]], epochs=epochs, **spent, config=PAIRS[task][pair], commit=version)
                    for method, values in scores.items()]
            self._keep(rows)
            if rows:
                (folder / TAKEN).touch()
        return rows

    def _keep(self, rows: list[dict]) -> None:
        with self.lock:
            self.rows += rows
            self.results.parent.mkdir(parents=True, exist_ok=True)
            with open(self.results, 'a') as file:
                file.writelines(json.dumps(row) + '\n' for row in rows)

    def _command(self, pair: str, seed: int, methods: list[str], folder: Path) -> list[str]:
        """Of tools/train_together.py; what resumes it belongs behind the config."""
        epochs = self.budget(pair)
        options = {'randomness.seed': seed, **budget(epochs)}
        if epochs == self._configured(pair):  # which may have other schedules
            options = {key: value for key, value in options.items() if not key.startswith('param_scheduler')}
        cached = ['--teacher-cache', str(self.cache)] if self.cache else []
        return [sys.executable, str(TOOLS / 'train_together.py'), PAIRS[TASK_OF[pair]][pair], '--methods', *methods,
                '--split', self.split, '--work-dir', str(folder), *cached,
                '--cfg-options', *(f'{key}={value}' for key, value in options.items())]

    def _run(self, command: list[str], folder: Path, gpu: int | None, lock: IO, name: str,
             methods: list[str]) -> dict[str, float]:
        """One training in a process of its own; what it took. Methods that drop out are named at once."""
        started, environment = time.time(), {'OMP_NUM_THREADS': '1', **os.environ}
        if gpu is not None:
            environment['CUDA_VISIBLE_DEVICES'] = str(gpu)
        drops_out = re.compile(f" - ((?:{'|'.join(map(re.escape, methods))}) drops out: .*)")
        with open(folder / 'log.txt', 'a') as log, open(folder / 'log.txt', errors='replace') as said:
            said.seek(0, os.SEEK_END)  # a resumed run has said something before
            # It holds the lock too, as it may outlive this process
            process, ended = subprocess.Popen(command, env=environment, stdout=log, stderr=log,
                                              pass_fds=[lock.fileno()]), 0
            self.processes.add(process)
            if self.ended_by:
                process.send_signal(self.ended_by)
            while not ended:
                time.sleep(1)
                ended, _, usage = os.wait4(process.pid, os.WNOHANG)
                for found in filter(None, map(drops_out.search, said)):
                    print(f'{name}: {found[1]}', flush=True)
            self.processes.discard(process)
        return dict(seconds=time.time() - started, cpu_seconds=usage.ru_utime + usage.ru_stime)

    @staticmethod
    def _goes_on(folder: Path, run: dict) -> bool:
        """Whether a folder holds a run of this command, commit and files that was interrupted, or whose scores nobody
        took; else it is emptied for it.
        """
        file = folder / 'run.json'
        if (file.exists() and json.loads(file.read_text()) == run and not run['commit'].endswith('-dirty')
                and not (folder / TAKEN).exists()):
            return True
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file.write_text(json.dumps(run))
        return False


@contextmanager
def locked(folder: Path) -> Iterator[IO | None]:
    """A lock on a folder, beside it; None where another process holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix('.lock'), 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def tune(comparison: Comparison, methods: list[str], pairs: list[str], seeds: list[int]) -> None:
    """The same number of trials for every method: its weights times each of FACTORS, of detectors and segmentors those
    that go on from the best of these, outwards by a factor of 4 or from the middle up by 2, then the best of all with
    its switch turned: the distillation of logits beside feature losses, and the other temperature (1 or 4) for losses
    of logits or class maps.
    """
    dense = not all(classifies(TASK_OF[pair]) for pair in pairs)

    def score(trials: list[str]) -> dict[str, float]:
        rows = comparison.run([(pair, trial, seed) for pair in pairs for seed in seeds for trial in trials])
        found = {trial: {(row['pair'], row['seed']): percent(row) for row in rows if row['method'] == trial}
                 for trial in trials}
        return {trial: mean(values.values()) if len(values) == len(pairs) * len(seeds) else -math.inf
                for trial, values in found.items()}

    def trial(method: str, factor: float) -> str:
        return '+'.join([method, *(f'{key}={weight * factor:g}' for key, weight in weights_of(method).items())])

    def best(method: str) -> str:
        return max(trials[method], key=scores.get)

    def outward(method: str) -> str:
        factor = FACTORS[trials[method].index(best(method))]
        return trial(method, factor * {min(FACTORS): 0.25, max(FACTORS): 4}.get(factor, 2))

    def switched(method: str) -> str:
        return f'{best(method)}+{switch_of(method, dense)}'
    trials = {method: [trial(method, factor) for factor in FACTORS] for method in methods}
    scores = score([one for of_method in trials.values() for one in of_method])
    for further in [outward, switched] if dense else [switched]:
        for method in methods:
            trials[method].append(further(method))
        scores |= score([of_method[-1] for of_method in trials.values()])
    for method, of_method in trials.items():
        print(f'TUNED {method}: ' + ', '.join(f'{one.removeprefix(method + "+")}: {scores[one]:.2f}'
                                              for one in of_method), flush=True)


def a_pair(text: str) -> str:
    """
    Raises:
        ArgumentTypeError: if it is neither a pair's name nor a config file.
    """
    if text not in TASK_OF and not is_file(text):
        raise argparse.ArgumentTypeError(f"there is no '{text}'; give a config file, or of {', '.join(TASK_OF)}")
    return text


def check_own(pair: str, epochs: int | None) -> None:
    """
    Raises:
        ConfigError: if a pair that is a file is counted in iterations, or has schedules that ``--epochs`` cannot set.
    """
    config = read_config(pair, '--pairs')
    if 'max_epochs' not in (config.get('train_cfg') or {}):
        raise ConfigError(f"--pairs: '{pair}' has no train_cfg.max_epochs; what is compared here is counted in epochs: "
                          'train_cfg=dict(by_epoch=True, max_epochs=..., val_interval=...), with schedules by epoch')
    schedules = config.get('param_scheduler') or []
    if epochs and not (isinstance(schedules, list) and len(schedules) > 1 and {'end', 'T_max'} <= schedules[1].keys()):
        raise ConfigError(f"--epochs: '{pair}' has other schedules than a warm-up and a cosine, whose length could be "
                          'set; leave it out, and set the epochs in the config')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--task', choices=PAIRS, default='cls')
    parser.add_argument('--pairs', nargs='+', type=a_pair, metavar='PAIR',
                        help=f"of the task, of {', '.join(TASK_OF)}, or config files; default: all of the task but "
                        "classification's resnet_to_swin")
    parser.add_argument('--methods', nargs='+', metavar='METHOD[+KEY=VALUE...]',
                        help='see tools/train_together.py; default: alone, sfkd, sfkd_lean and all of configs/peers '
                        '(of dense tasks those on maps, and of configs/peers/dense); '
                        f'of {", ".join(CHOSEN)} those of its table')
    parser.add_argument('--seeds', nargs='+', type=int, help='of runs and tables; default: 0 to 4, and tables of all')
    parser.add_argument('--split', choices=['val', 'test'], default='test')
    parser.add_argument('--epochs', type=int, help='budget of every run, 2 at least; default: that of the configs')
    parser.add_argument('--tune', action='store_true',
                        help=f'{len(FACTORS) + 1} trials for every method, {len(FACTORS) + 2} of dense tasks, on the '
                        'validation split')
    parser.add_argument('--together', type=int, default=16, help='the most methods of a pair and seed in one process')
    parser.add_argument('--jobs', type=int, default=1, help='processes side by side')
    parser.add_argument('--teacher-cache', type=Path, metavar='FOLDER', help='see tools/train_together.py')
    parser.add_argument('--gpus', nargs='+', type=int, default=[], help='indices that the processes take turns on')
    parser.add_argument('--results', type=Path, help='default: docs/results/results_<task>.jsonl, or '
                        'tuning_<task>.jsonl for --tune and --split val')
    parser.add_argument('--tables-only', action='store_true',
                        help='run nothing; the ranks are among the --methods, or all that the file holds')
    parser.add_argument('--versus', nargs='+', metavar='METHOD', help='whose difference to each method the table '
                        f'gives; default: the first variant of {", ".join(BASELINES)} that the task has')
    parser.add_argument('--plot', type=Path, metavar='FILE.png')
    args = parser.parse_args()
    seeds = args.seeds or range(5)
    # a single cell run again is ranked among all that the file holds
    every = args.methods is None or not args.tables_only
    args.methods = args.methods or default_methods(args.task, args.tune)
    own = [pair for pair in args.pairs or () if is_file(pair)]
    with errors_for_people():
        for method in args.methods:
            check_name(method)
        for pair in own:
            check_own(pair, args.epochs)
            PAIRS[args.task][pair], TASK_OF[pair] = pair, args.task
        of_own = [method for method in args.methods if method.partition('+')[0] not in METHODS]
        for name in (method.partition('+')[0] for method in of_own):
            if not weights_of(name) and args.tune:
                raise ConfigError(f"--tune: '{name}' has no weight of a loss that could be tried")
    own += of_own
    if own and not args.results:
        parser.error(f"--results: '{own[0]}' is your own, and the default file is this project's; give another")
    if args.epochs is not None and args.epochs < 2:
        parser.error(f'--epochs {args.epochs}: the first of at least 2 epochs warms the learning rate up')
    split = 'val' if args.tune else args.split
    pairs = args.pairs or [pair for pair in PAIRS[args.task] if pair != 'resnet_to_swin']
    results = args.results or Path(f"docs/results/{'results' if split == 'test' else 'tuning'}_{args.task}.jsonl")
    with errors_for_people():
        prepare_file(args.plot, '--plot', ['.png', '.pdf', '.svg'])
        comparison = Comparison(results, split, args.epochs, args.together, args.jobs, args.gpus, args.teacher_cache)
    for ending in signal.SIGTERM, signal.SIGHUP:
        if signal.getsignal(ending) is not signal.SIG_IGN:  # as under nohup
            signal.signal(ending, comparison.end)
    if args.tune:
        tune(comparison, [method for method in args.methods if method != 'alone'], pairs, seeds)
    elif not args.tables_only:
        comparison.run([(pair, method, seed) for seed, pair, method in product(seeds, pairs, args.methods)])
    rows = [row for row in comparison.rows if row['pair'] in pairs and row['split'] == split
            and row['epochs'] == comparison.budget(row['pair'])
            and (not args.seeds or row['seed'] in args.seeds)]
    if args.tables_only and not rows:
        held: dict[tuple, set[int]] = {}
        for row in comparison.rows:
            held.setdefault((row['pair'], row['split'], row['epochs']), set()).add(row['seed'])
        rest = '; '.join(f'{pair}, {split}, {epochs} epochs, seeds {" ".join(map(str, sorted(of_it)))}'
                         for (pair, split, epochs), of_it in sorted(held.items())) or 'none at all'
        sys.exit(f'{results}: no row of {", ".join(pairs)}, split {split}, with the seeds and epochs asked for '
                 f"(--seeds, else all; --epochs, else the configs' own). The file holds {rest}.")
    there = {row['method'] for row in rows}
    absent = [name for name in args.versus or () if name not in there]
    if absent and args.tables_only:
        sys.exit(f"--versus: {results} has no row of '{absent[0]}' there; it has {', '.join(sorted(there))}")
    ranked = [row for row in rows if every or row['method'] in args.methods]
    found = table(rows, args.versus or baselines(args.task)), ranks(ranked), parts(rows, PARTS[args.task])
    print('\n\n'.join(filter(None, found)))
    if args.plot:
        with errors_for_people():
            draw_gains([row for row in rows if row['method'] in args.methods], args.plot)
    sys.exit(f'{comparison.failed} runs failed' if comparison.failed else 0)


if __name__ == '__main__':
    main()
