"""What several detectors or segmentors see in the same pictures, side by side with the truth.

  python tools/draw_predictions.py OUT.png teacher CONFIG CHECKPOINT alone CONFIG CHECKPOINT SFKD CONFIG CHECKPOINT

A row a picture of the first config's test split, a column a model. Detectors' boxes are drawn where their score is 0.3
or more, with class and score.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from sfkd.analysis.drawing import annotate, as_truth, build_dataset, picture
from sfkd.datasets.digits_wild import contact_sheet
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.process import errors_for_people, prepare_process
from sfkd.openmmlab.running import trained_student


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('out', type=Path, metavar='OUT.png')
    parser.add_argument('models', nargs='+', metavar='NAME CONFIG CHECKPOINT')
    parser.add_argument('--number', type=int, default=6, help='pictures, evenly spread over the split')
    parser.add_argument('--score', type=float, default=0.3, help='of the boxes that are drawn')
    parser.add_argument('--cell', type=int, default=256, help='side in pixels at which a picture is shown')
    args = parser.parse_args()
    if len(args.models) % 3:
        parser.error('give NAME CONFIG CHECKPOINT for each model')
    return args


def main() -> None:
    args = parse_args()
    prepare_process()
    models = list(zip(args.models[::3], args.models[1::3], args.models[2::3]))
    with errors_for_people():
        first = load_config(models[0][1])
        dataset = build_dataset(first, 'test')
        classes, palette = list(dataset.metainfo.get('classes') or []), dataset.metainfo.get('palette')
        chosen = np.linspace(0, len(dataset) - 1, args.number).astype(int).tolist()
        items = [dataset[i] for i in chosen]
        columns = [('truth', [annotate(picture(item['inputs']), item['data_samples'], classes, args.cell, palette)
                              for item in items])]
        for name, path, checkpoint in models:
            network = trained_student(load_config(path), checkpoint)
            shown = []
            for index, item in zip(chosen, items):
                with torch.no_grad():
                    sample, = network.test_step(pseudo_collate([dataset[index]]))
                if 'pred_instances' not in sample and 'pred_sem_seg' not in sample:
                    raise ConfigError(f"'{path}' predicts neither boxes nor a label map")
                shown.append(annotate(picture(item['inputs']), as_truth(sample, args.score), classes, args.cell,
                                      palette))
            columns.append((name, shown))
    cells = [(image, f'{name}: {caption}') for row in zip(*(shown for _, shown in columns))
             for (name, _), (image, caption) in zip(columns, row)]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(*zip(*cells), columns=len(columns), cell=args.cell)
    if not cv2.imwrite(str(args.out), sheet[..., ::-1]):
        raise SystemExit(f'error: could not write {args.out}')
    print(f'{args.out}: {len(items)} pictures of the test split, {", ".join(name for name, _ in columns)}')


if __name__ == '__main__':
    main()
