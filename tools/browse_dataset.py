"""Write a contact sheet of a config's pictures as its pipeline hands them to the model. No model is built, no display is needed."""
import argparse
from pathlib import Path

import cv2
import mmengine
import numpy as np
import torch
from mmengine.config import Config, DictAction
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import set_random_seed

from sfkd.datasets import contact_sheet, overlay
from sfkd.errors import ConfigError
from sfkd.openmmlab.running import check_data, errors_for_people, load_config, prepare_process


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


def build_dataset(config: Config, split: str):
    """The data set of one split, built in the config's default scope.

    Raises:
        ConfigError: if the config has none, or its files are missing.
    """
    dataset = (config.get(f'{split}_dataloader') or {}).get('dataset')
    if dataset is None:
        raise ConfigError(f'{split}_dataloader.dataset: the config has none')
    check_data(config, (split, ))
    init_default_scope(config.get('default_scope') or 'mmengine')
    return DATASETS.build(dataset)


def picture(inputs: torch.Tensor, rgb: bool = False) -> np.ndarray:
    """A model's input, (3, H, W) or (1, H, W), as (H, W, 3) uint8 RGB. Floats are stretched from their smallest to their largest."""
    if inputs.is_floating_point():
        low, high = inputs.aminmax()
        inputs = (inputs - low) / (high - low).clamp(min=1e-6) * 255
    image = inputs.byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
    return np.ascontiguousarray(image if rgb else image[..., ::-1])


def annotate(image: np.ndarray, sample, classes: list[str]) -> tuple[np.ndarray, str]:
    """The picture with its boxes or label map drawn in, and the names of its classes."""
    labels = []
    if 'gt_label' in sample:
        labels = sample.gt_label.tolist()
    elif 'gt_instances' in sample:
        labels = sample.gt_instances.labels.tolist()
        boxes = sample.gt_instances.bboxes
        for x1, y1, x2, y2 in getattr(boxes, 'tensor', boxes).round().int().tolist():
            cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (255, 0, 0))
    elif 'gt_sem_seg' in sample:
        label_map = sample.gt_sem_seg.data[0].numpy()
        # 255 is ignored in training; colour over all that is not a thing would hide the things
        plain = {255, *(label for label, name in enumerate(classes) if name == 'background')}
        labels = [label for label in np.unique(label_map).tolist() if label not in plain]
        image = overlay(image, label_map, skip=plain)
    return image, ' '.join(classes[label] if label < len(classes) else str(label) for label in labels)


def main() -> None:
    args = parse_args()
    prepare_process()
    with errors_for_people():
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
