"""Make the benchmark "Digits in the Wild" (docs/digits_wild.md)."""
import argparse
import sys
import time
from pathlib import Path

# A checkout works without being installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sfkd.datasets.digits_wild import DEFAULT_COUNTS, SPLITS, generate_cls  # noqa: E402


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('task', nargs='?', default='cls', choices=['cls'], help='what to write')
    parser.add_argument('--out', type=Path, default=Path('data/digits_wild'), help='parent folder')
    parser.add_argument('--seed', type=int, default=0)
    for split in SPLITS:
        parser.add_argument(
            f'--{split}', type=int, default=DEFAULT_COUNTS[split], metavar='N', help='pictures')
    parser.add_argument('--overwrite', action='store_true', help='replace what the folder holds')
    return parser.parse_args()


def show_progress(split: str, done: int, total: int) -> None:
    if done == total or (sys.stdout.isatty() and done % 50 == 0):
        print(f'\r{split}: {done}/{total}', end='\n' if done == total else '', flush=True)


def main() -> None:
    args = parse_args()
    root = args.out / args.task
    counts = {split: getattr(args, split) for split in SPLITS}
    start = time.perf_counter()
    try:
        made = generate_cls(
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
