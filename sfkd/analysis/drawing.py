"""The pictures of a data set as a model gets them, with boxes or label maps drawn in."""
from __future__ import annotations

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from ..datasets.digits_wild import overlay
from ..errors import ConfigError
from ..openmmlab.configs import check_data


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


def as_truth(sample, score: float):
    """A prediction in the place of the annotation, so that it is drawn as one.

    Args:
        sample: a detector's or segmentor's; of the first, boxes whose score is lower than ``score`` are left out.
    """
    if 'pred_instances' in sample:
        found = sample.pred_instances[sample.pred_instances.scores >= score]
        scale = torch.tensor(sample.img_shape[::-1] * 2) / torch.tensor(sample.ori_shape[::-1] * 2)
        found.bboxes = found.bboxes * scale  # from the original picture's pixels to those that are shown
        sample.gt_instances = found
    elif 'pred_sem_seg' in sample:
        sample.gt_sem_seg = sample.pred_sem_seg
    return sample


def annotate(image: np.ndarray, sample, classes: list[str], side: int | None = None,
             palette: list[list[int]] | None = None) -> tuple[np.ndarray, str]:
    """The picture with its boxes or label map drawn in, and the names of its classes. Boxes that have scores, and with
    ``side`` all, get their class and score written on.

    Args:
        image: (H, W, 3) uint8 RGB.
        sample: with ``gt_label``, ``gt_instances`` or ``gt_sem_seg``.
        classes: their names.
        side: pixels to which the longer side is scaled first, so that what is written stays sharp; None for as it is.
        palette: colours of label maps, see :func:`~sfkd.datasets.digits_wild.label_colours`.
    """
    scale, labels = 1.0, []
    if side is not None:
        scale = side / max(image.shape[:2])
        size = tuple(max(1, round(scale * n)) for n in image.shape[1::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if 'gt_sem_seg' in sample:
        label_map, labels = sample.gt_sem_seg.data[0].cpu().numpy(), coloured(sample, classes)
        if side is not None:
            label_map = cv2.resize(label_map.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
        return overlay(image, label_map, _plain(classes), palette), _names(labels, classes)
    if 'gt_label' in sample:
        labels = sample.gt_label.tolist()
    elif 'gt_instances' in sample:
        found = sample.gt_instances
        labels = found.labels.tolist()
        boxes = (getattr(found.bboxes, 'tensor', found.bboxes) * scale).round().int().tolist()
        written = None
        scores = getattr(found, 'scores', None)
        if scores is not None:
            written = [f'{_names([label], classes)} {score:.2f}' for label, score in zip(labels, scores.tolist())]
        elif side is not None:
            written = [_names([label], classes) for label in labels]
        draw_boxes(image, boxes, written)
    return image, _names(labels, classes)


def coloured(sample, classes: list[str]) -> list[int]:
    """The labels in a sample's ``gt_sem_seg`` that :func:`annotate` shows in colour."""
    plain = _plain(classes)
    return [label for label in np.unique(sample.gt_sem_seg.data[0].cpu().numpy()).tolist() if label not in plain]


def _plain(classes: list[str]) -> set[int]:
    # 255 is ignored in training; colour over all that is not a thing would hide the things
    return {255, *(label for label, name in enumerate(classes) if name == 'background')}


def _names(labels: list[int], classes: list[str]) -> str:
    return ' '.join(classes[label] if label < len(classes) else str(label) for label in labels)


def draw_boxes(image: np.ndarray, boxes: list[list[int]], written: list[str] | None = None) -> None:
    """Draw boxes into a picture, each with a text where it hides least: of the places around the box, two rows of them
    above and below, the one that overlaps the fewest pixels of boxes and of other texts.

    Args:
        image: (H, W, 3) uint8 RGB, changed.
        boxes: (x1, y1, x2, y2) in pixels.
        written: a text a box, ASCII; None for none. Drawn in the order given, the first has the choice.
    """
    colour, font = (220, 20, 20), (cv2.FONT_HERSHEY_SIMPLEX, 0.36)
    height, width = image.shape[:2]
    for x1, y1, x2, y2 in boxes:
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), colour)
    taken = np.zeros((height, width), np.float32)
    for x1, y1, x2, y2 in boxes:
        taken[max(y1, 0):max(y2, 0), max(x1, 0):max(x2, 0)] += 1
    for text, (x1, y1, x2, y2) in zip(written or (), boxes):
        (w, h), below = cv2.getTextSize(text, *font, 1)
        w, h = w + 3, h + below
        places = [(x, y) for y in (y1 - h, y2, y1 - 2 * h, y2 + h) for x in (x1, x2 - w)]
        places += [(x, y) for y in range(y1, y2 - h, h) for x in (x2, x1 - w)]
        places = [(min(max(x, 0), max(width - w, 0)), min(max(y, 0), max(height - h, 0))) for x, y in places]
        x, y = min(places, key=lambda place: taken[place[1]:place[1] + h, place[0]:place[0] + w].sum())
        taken[y:y + h, x:x + w] += 10  # a text over another is worse than one over a box
        cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), colour, cv2.FILLED)
        cv2.putText(image, text, (x + 1, y + h - below), *font, (255, 255, 255), 1, cv2.LINE_AA)
