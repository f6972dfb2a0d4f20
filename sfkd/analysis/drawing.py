"""The pictures of a data set as a model gets them, with boxes or label maps drawn in."""
from __future__ import annotations

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..datasets.digits_wild import overlay
from ..errors import ConfigError
from ..openmmlab.running import check_data


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
    """A model's input, (3, H, W) or (1, H, W), as (H, W, 3) uint8 RGB. Floats are stretched from their smallest to
    their largest.
    """
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
