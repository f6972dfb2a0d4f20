"""Make the benchmark "Digits in the Wild" (docs/digits_wild.md)."""
import argparse
import sys
import time
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sfkd.datasets.digits_wild import DEFAULT_COUNTS, generate_cls, generate_det, generate_seg  # noqa: E402
from sfkd.datasets.scenes import SPLITS  # noqa: E402

GENERATE = dict(cls=generate_cls, det=generate_det, seg=generate_seg)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'task', nargs='?', default='cls', choices=GENERATE,
        help='class folders (the default), boxes and masks as COCO JSON, or label maps in the layout of ADE20K')
    parser.add_argument('--out', type=Path, default=Path('data/digits_wild'), help='parent folder')
    parser.add_argument('--seed', type=int, default=0)
    for split in SPLITS:
        defaults = ', '.join(f'{task} {counts[split]}' for task, counts in DEFAULT_COUNTS.items())
        parser.add_argument(f'--{split}', type=int, metavar='N', help=f'pictures; default: {defaults}')
    parser.add_argument('--overwrite', action='store_true', help='replace what the folder holds')
    return parser.parse_args()


def show_progress(split: str, done: int, total: int) -> None:
    if done == total or (sys.stdout.isatty() and done % 50 == 0):
        print(f'\r{split}: {done}/{total}', end='\n' if done == total else '', flush=True)


def main() -> None:
    args = parse_args()
    root = args.out / args.task
    given = {split: getattr(args, split) for split in SPLITS if getattr(args, split) is not None}
    counts = DEFAULT_COUNTS[args.task] | given
    start = time.perf_counter()
    try:
        made = GENERATE[args.task](
            root, args.seed, counts, overwrite=args.overwrite, progress=show_progress)
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')
    if made:
        print(f'{root}: {sum(counts.values())} pictures in {time.perf_counter() - start:.1f} s; '
              f'look at {root / "contact_sheet.png"}')
    else:
        print(f'{root}: already complete, nothing to do')


if __name__ == '__main__':
    main()
