"""Write a contact sheet of a config's pictures as its pipeline hands them to the model. No model is built, no display
is needed.
"""
import argparse
from pathlib import Path

import cv2
import mmengine
import numpy as np
from mmengine.config import DictAction
from mmengine.runner import set_random_seed

from sfkd.analysis.drawing import annotate, build_dataset, picture
from sfkd.datasets.digits_wild import contact_sheet
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.process import errors_for_people, prepare_file, prepare_process


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--number', type=int, default=40, help='pictures, drawn at random')
    parser.add_argument('--seed', type=int, default=0, help='of the choice and of the augmentation')
    parser.add_argument('--cell', type=int, default=128, help='side in pixels at which a picture is shown')
    parser.add_argument('--rgb', action='store_true', help='the pipeline ends in RGB, not in BGR as is usual')
    parser.add_argument('--out', type=Path, metavar='FILE.png', help='default: work_dirs/<config name>/<split>.png')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare_process()
    with errors_for_people():
        prepare_file(args.out, '--out', ['.png', '.jpg', '.jpeg'])
        config = load_config(args.config, options=args.cfg_options)
        dataset = build_dataset(config, args.split)
    set_random_seed(args.seed)
    chosen = np.random.default_rng(args.seed).permutation(len(dataset))[:max(1, args.number)].tolist()
    classes = list(dataset.metainfo.get('classes') or [])
    shown = []
    for index in chosen:
        item = dataset[index]
        inputs = item['inputs'][0] if isinstance(item['inputs'], list) else item['inputs']  # several views: the first
        shown.append(annotate(picture(inputs, args.rgb), item['data_samples'], classes))

    sheet = contact_sheet(*zip(*shown), cell=args.cell)
    out = args.out or Path(config.work_dir, f'{args.split}.png')
    mmengine.mkdir_or_exist(out.parent)
    if not cv2.imwrite(str(out), sheet[..., ::-1]):
        raise SystemExit(f'error: could not write {out}')
    print(f'{out}: {len(shown)} of {len(dataset)} pictures of the {args.split} split')


if __name__ == '__main__':
    main()
