"""Report of a run or a comparison: one page of HTML with curves, gradients, CKA, bands, spectra, maps and predictions.

  python tools/report.py work_dirs/cls_resnet_to_mixer --alone work_dirs/cls_mixer
  python tools/report.py work_dirs/quickstart/cls
  python tools/report.py docs/results/results_cls.jsonl

RUN is a work directory of tools/train.py, the folder of tools/quickstart.py, or a rows file of tools/compare.py. The
page needs neither server nor network; docs/report.md says how to read it.
"""
import argparse
import json
import time
from pathlib import Path

from sfkd.analysis.report.comparison import comparison
from sfkd.analysis.report.run import run_report
from sfkd.analysis.report.subject import Subject
from sfkd.analysis.runs import read_run, scaled
from sfkd.errors import ConfigError
from sfkd.openmmlab.process import errors_for_people, prepare_file, prepare_process


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, metavar='RUN')
    parser.add_argument('--alone', type=Path, metavar='WORK_DIR',
                        help='of the same student trained alone, to be shown beside; a quickstart has its own')
    parser.add_argument('--pictures', type=int, default=64, help='at most so many go through the networks')
    parser.add_argument('--out', type=Path, metavar='FILE.html',
                        help='default: report.html in RUN, or beside the rows file, by its name')
    args = parser.parse_args()
    if args.pictures < 4:
        parser.error(f'--pictures {args.pictures}: CKA needs 4 at least')
    return args


def made(args: argparse.Namespace) -> tuple[str, Path]:
    """The page, and where it goes by default."""
    path = args.run
    if path.is_file():
        if args.alone:
            raise ConfigError(f"--alone: '{path}' is a file of scores, whose students alone are in it; leave it out")
        return comparison(path, f'python tools/report.py {path}'), path.with_suffix('.html')
    alone, teacher, tested, folder = args.alone, {}, {}, path
    if (path / 'summary.json').is_file() and (path / 'sfkd').is_dir():  # of a quickstart
        summary = json.loads((path / 'summary.json').read_text())
        folder, alone = path / 'sfkd', alone or path / 'student'
        if (file := path / 'teacher/score_val.json').is_file():
            teacher = json.loads(file.read_text())
        tested = {who: scaled(summary['metric'], summary[key]) for who, key in (
            ('teacher', 'teacher'), ('student alone', 'student'), ('student with SFKD', 'sfkd'))}
    command = f'python tools/report.py {path}' + (f' --alone {args.alone}' if args.alone else '')
    subject = Subject(read_run(folder), None if alone is None else read_run(alone, '--alone'), args.pictures, teacher)
    return run_report(subject, tested, command), path / 'report.html'


def main() -> None:
    args = parse_args()
    prepare_process()
    started = time.time()
    with errors_for_people():
        prepare_file(args.out, '--out')
        text, out = made(args)
        out = args.out or out
        prepare_file(out, '--out')
        out.write_text(text, encoding='utf-8')
    print(f'{out}: {len(text) / 2**20:.1f} MiB, {time.time() - started:.0f} s')


if __name__ == '__main__':
    main()
