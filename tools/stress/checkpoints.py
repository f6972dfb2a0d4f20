"""Hostile and broken checkpoints at every door: none of their code may run, each must end in one clear error or in a
plain load, within seconds and in bounded memory.

  python tools/stress/checkpoints.py                       the whole corpus, about half an hour on one core
  python tools/stress/checkpoints.py --every 127 --offset 9 a few of it, as the test suite runs it
  python tools/stress/checkpoints.py --only bomb --doors teacher resume

The doors are the tools themselves, run in one process: the teacher's checkpoint, load_from, init_cfg, --resume,
tools/export_student.py, tools/test.py; and the teacher cache's folder. A case is wrong if its code has run, if it ended
in anything but a ConfigError where the file is to be refused, if it failed to load where the file is whole, if it took
longer than --seconds or more memory than three times the file and 512 MiB, or if the process died. Exit status 0 only
if no case is wrong.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from corpus import corpus
from doors import DOORS, ROOT, CacheDoor, Doors
from formats import MIB


class Late(BaseException):
    """No Exception, so that nothing takes it for a damaged file."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def late(*_):
        raise Late(f'more than {seconds} s')
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def memory(key: str) -> int:
    return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024


def observed(work: Callable[[], None], seconds: int) -> dict:
    """What a piece of work ended in: 'loads', 'refused' or an exception's type; its time and growth of memory."""
    import logging

    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer

    from sfkd.errors import ConfigError
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before, start = memory('VmRSS'), time.process_time()  # of this process: the machine may have others
    said = io.StringIO()
    try:
        with limited(seconds), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            work()
        outcome, message = 'loads', ''
    except ConfigError as error:
        outcome, message = 'refused', str(error)
    except SystemExit as error:
        outcome, message = ('refused' if error.code == 2 else f'exit {error.code}'), said.getvalue()
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        outcome, message = type(error).__name__, f'{error} ({frame.filename}:{frame.lineno})'
    if outcome == 'refused':
        message = message[message.rindex('\n- ' if '\n- ' in message else '- ') + 1:].strip()
    for name in list(logging.Logger.manager.loggerDict):  # each run opens a log file
        for handler in list(getattr(logging.getLogger(name), 'handlers', ())):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                logging.getLogger(name).removeHandler(handler)
    for kind in (MessageHub, MMLogger, Visualizer):  # runs of one second have one name
        kind._instance_dict.clear()
    return dict(outcome=outcome, message=message[-400:], seconds=round(time.process_time() - start, 2),
                mib=round((memory('VmHWM') - before) / MIB))


def child(args: argparse.Namespace) -> None:
    """Run the cases that are left, and write a line before and after each."""
    import torch
    torch.set_num_threads(1)
    from mmengine.logging import MMLogger

    from sfkd.openmmlab.process import prepare_process
    prepare_process()
    MMLogger.get_current_instance().setLevel('ERROR')
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        report = stack.enter_context(open(args.child, 'a', buffering=1))
        folder = Path(folder)
        doors = Doors(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            checkpoint, wide = doors.checkpoint(), doors.weights('wide')
        cache = CacheDoor(folder)
        cases = corpus(folder, copy.deepcopy(checkpoint), wide, rng)
        listed = [(kind, door, cases[kind].expected(door), None) for kind in cases for door in DOORS]
        listed += [(kind, 'cache', expected, change) for kind, (expected, change) in cache.cases(rng).items()]
        listed = [case for case in listed if re.search(args.only, case[0]) and case[1] in args.doors]
        done = {(row['kind'], row['door']) for row in rows_of(Path(args.child))}
        path, made = None, None
        for kind, door, expected, change in listed[args.offset::args.every]:
            if (kind, door) in done:
                continue
            report.write(json.dumps(dict(kind=kind, door=door, expected=expected)) + '\n')
            if change is None:
                if made != kind:
                    shutil.rmtree(folder / 'files', ignore_errors=True)
                    (folder / 'files').mkdir()
                    path, made = folder / f'files/case{cases[kind].suffix}', kind
                    cases[kind].make(path)
                result = observed(lambda: doors.open(door, path), 3 * args.seconds)
                size = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
            else:
                result, size = observed(lambda: cache.run(change), 3 * args.seconds), 0
            result['ran'] = (folder / 'ran').exists()
            (folder / 'ran').unlink(missing_ok=True)
            report.write(json.dumps(dict(kind=kind, door=door, expected=expected, size=size, **result)) + '\n')


def rows_of(report: Path) -> list[dict]:
    """The last line of each case."""
    lines = map(json.loads, report.read_text().splitlines()) if report.is_file() else ()
    return list({(row['kind'], row['door']): row for row in lines}.values())


def wrong(row: dict, seconds: float) -> str | None:
    if 'outcome' not in row:
        return 'the process died'
    if row['ran']:
        return 'its code has run'
    if row['outcome'] not in ('loads', 'refused'):
        return f"ended in {row['outcome']}"
    if row['expected'] not in ('either', row['outcome']):
        return f"{row['outcome']}, where it should be {row['expected']}"
    if row['seconds'] > seconds:
        return f"took {row['seconds']} s"
    if row['mib'] > 3 * row['size'] / MIB + 512:
        return f"took {row['mib']} MiB"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0, help='of the places of truncation and damage')
    parser.add_argument('--only', default='', metavar='PATTERN', help='kinds in which this is found')
    parser.add_argument('--doors', nargs='+', choices=[*DOORS, 'cache'], default=[*DOORS, 'cache'])
    parser.add_argument('--every', type=int, default=1, help='take one case of so many')
    parser.add_argument('--offset', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=20, help='the most that a case may take')
    parser.add_argument('--json', type=Path, help='also write a row for each case there')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.seconds = int(args.seconds)
    if args.child:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, 'report.jsonl')
        environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONPATH': str(ROOT)}
        for _ in range(20):  # of processes that die
            before = len(rows_of(report))
            status = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--child', str(report)], cwd=ROOT,
                                    env=environment, stderr=subprocess.PIPE, text=True)
            if not status.returncode:
                break
            if len(rows_of(report)) == before:
                sys.exit(status.stderr[-3000:])
        rows = rows_of(report)
    if args.json:
        args.json.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    show(rows, args.seconds)


def show(rows: list[dict], seconds: float) -> None:
    by_kind = collections.defaultdict(list)
    for row in rows:
        by_kind[re.sub(r' \d+$', '', row['kind'])].append(row)
    print(f"{'kind':<52}{'cases':>6}{'refused':>9}{'loads':>7}{'other':>7}{'most s':>8}{'MiB':>6}")
    for kind, found in by_kind.items():
        outcomes = collections.Counter(row.get('outcome', 'died') for row in found)
        other = len(found) - outcomes['refused'] - outcomes['loads']
        slowest, largest = (max(row.get(key, 0) for row in found) for key in ('seconds', 'mib'))
        print(f"{kind:<52}{len(found):>6}{outcomes['refused']:>9}{outcomes['loads']:>7}{other:>7}{slowest:>8.2f}{largest:>6}")
    print()
    bad = [(row, problem) for row in rows if (problem := wrong(row, seconds))]
    for row, problem in bad:
        print(f"WRONG {row['kind']} at {row['door']}: {problem}: {row.get('message', '')}")
    ran = sum(row.get('ran', False) for row in rows)
    slowest, largest = (max((row.get(key, 0) for row in rows), default=0) for key in ('seconds', 'mib'))
    print(f'{len(rows)} cases, {len(by_kind)} kinds: code ran in {ran}, {len(bad)} wrong; the slowest took '
          f'{slowest:.1f} s, the largest {largest} MiB')
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
