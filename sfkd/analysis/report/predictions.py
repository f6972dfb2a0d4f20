"""What networks predict on the same pictures, and how right each is, class by class."""
from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import nn

from ...checkpoint import load_weights
from ...errors import ConfigError
from ...openmmlab.distiller import Distiller
from ...openmmlab.hooks import cannot_be_scored
from ...openmmlab.masks import IGNORED
from ...openmmlab.running import trained_student
from .pictures import LeftOut, Pictures

#: Of a prediction: what it holds -> the metric that it is judged by.
KINDS = {'pred_label': 'accuracy (%)', 'pred_instances': 'box AP (%)', 'pred_sem_seg': 'IoU (%)'}


def teacher_of(distiller: Distiller, checkpoint: str | None) -> nn.Module:
    """A distillation's teacher as a model that predicts.

    Args:
        distiller: whose.
        checkpoint: ``teacher_ckpt``.

    Raises:
        LeftOut: if the checkpoint lacks a weight (a teacher teaches without its head, but does not predict), or if the
            teacher is shown other pictures than the student.
    """
    if why := cannot_be_scored(distiller.distillation.teacher):
        raise LeftOut(why)
    network = distiller.distillation.teacher.network
    if checkpoint not in (None, 'init'):
        keys = load_weights(network, checkpoint, 'model.teacher_ckpt').not_loaded
        if keys:
            raise LeftOut(f"'{checkpoint}' lacks {len(keys)} of the teacher's weights, such as {keys[0]}, without "
                          'which it teaches but does not predict')
    return network


def predict(network: nn.Module, pictures: Pictures, who: str) -> list:
    """The data sample of each picture, with a network's prediction in it, on the CPU.

    Args:
        network: one of mmpretrain, mmdet or mmseg, in eval mode.
        pictures: which.
        who: the network, for messages.

    Raises:
        LeftOut: if it predicts nothing, or other classes than the pictures have.
    """
    found = []
    for i in pictures.indices:
        try:
            with torch.no_grad():
                sample, = network.test_step(pseudo_collate([pictures.dataset[i]]))
        except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
            raise LeftOut(f'{who} gives no prediction: {type(error).__name__}: {error}') from error
        found.append(sample.cpu())
    if not any(kind in found[0] for kind in KINDS):
        raise LeftOut(f'{who} gives none of {", ".join(KINDS)}')
    classes = len(pictures.classes)
    if classes and (own := classes_of(found)) != classes and own is not None:
        raise LeftOut(f'{who} knows {own} classes, the pictures have {classes}')
    return found


def classes_of(samples: Sequence) -> int | None:
    """How many classes a network knows, by its predictions; of a detector None, unless it finds more than there are."""
    first = samples[0]
    if 'pred_score' in first:
        return len(first.pred_score)
    return len(first.seg_logits.data) if 'seg_logits' in first and len(first.seg_logits.data) > 1 else None


def kind_of(samples: Sequence) -> str:
    """Which of :data:`KINDS` data samples hold."""
    return next(kind for kind in KINDS if kind in samples[0])


def per_class(samples: Sequence, pictures: Pictures) -> tuple[np.ndarray, float, np.ndarray]:
    """How right predictions are.

    Args:
        samples: as :func:`predict` gives them.
        pictures: the same.

    Returns:
        tuple: of each class its accuracy, box AP or IoU in %, nan where no picture has it; the accuracy of all
        pictures, or the mean over classes; and how many pictures, objects or pixels each class has.

    Raises:
        LeftOut: if pictures have several labels, or none.
    """
    return dict(pred_label=_accuracies, pred_instances=_box_precisions, pred_sem_seg=_ious)[kind_of(samples)](
        samples, pictures)


def _accuracies(samples: Sequence, pictures: Pictures) -> tuple[np.ndarray, float, np.ndarray]:
    if any('gt_label' not in sample or sample.gt_label.numel() != 1 for sample in samples):
        raise LeftOut('the pictures have several labels, or none')
    truth = np.array([int(sample.gt_label) for sample in samples])
    right = np.array([int(sample.pred_label) for sample in samples]) == truth
    count = np.bincount(truth, minlength=max(len(pictures.classes), truth.max() + 1))
    return _divided(100 * np.bincount(truth, right, len(count)), count), 100 * right.mean(), count


def _divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(len(b), np.nan), where=b > 0)


def _ious(samples: Sequence, pictures: Pictures) -> tuple[np.ndarray, float, np.ndarray]:
    confusion = 0
    for sample in samples:
        if 'gt_sem_seg' not in sample or sample.gt_sem_seg.shape != sample.pred_sem_seg.shape:
            raise LeftOut('the pictures have no label map of the size of the prediction')
        confusion = confusion + confusion_of(sample.gt_sem_seg.data.numpy(), sample.pred_sem_seg.data.numpy(),
                                             max(len(pictures.classes), classes_of(samples) or 0))
    return ious(confusion)


def confusion_of(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of each class were given each, (classes, classes); those without a label count nowhere."""
    counts = (truth != IGNORED) & (truth < classes)  # another label that is ignored may be beyond them
    return np.bincount(truth[counts].astype(int) * classes + found[counts].astype(int),
                       minlength=classes**2).reshape(classes, classes)


def ious(confusion: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Of each class intersection over union in %, nan where neither has it; their mean; and how many pixels it has."""
    both, truth = confusion.diagonal(), confusion.sum(1)
    each = _divided(100.0 * both, truth + confusion.sum(0) - both)
    return each, float(np.nanmean(each)), truth


def _box_precisions(samples: Sequence, pictures: Pictures) -> tuple[np.ndarray, float, np.ndarray]:
    truth = [[(row['bbox'], row['bbox_label'], row.get('ignore_flag', 0)) for row in
              pictures.dataset.get_data_info(i)['instances']] for i in pictures.indices]
    found = [sample.pred_instances for sample in samples]
    return box_precisions(truth, [list(zip(boxes.bboxes.tolist(), boxes.labels.tolist(), boxes.scores.tolist()))
                                  for boxes in found], len(pictures.classes))


def box_precisions(truth: Sequence[Sequence[tuple]], found: Sequence[Sequence[tuple]],
                   classes: int) -> tuple[np.ndarray, float, np.ndarray]:
    """COCO's average precision of boxes, by pycocotools: mean over IoU thresholds 0.5 to 0.95, at most 100 boxes a
    picture.

    Args:
        truth: of each picture (box, label, whether it is to be ignored) a box; boxes are (x1, y1, x2, y2).
        found: of each picture (box, label, score) a box.
        classes: how many.

    Returns:
        tuple: of each class its AP in %, nan where no picture has it; their mean; and how many boxes it has.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def box(x1: float, y1: float, x2: float, y2: float) -> dict:
        return dict(bbox=[x1, y1, x2 - x1, y2 - y1], area=(x2 - x1) * (y2 - y1))
    rows = [dict(box(*corners), image_id=i, category_id=label, iscrowd=int(ignored))
            for i, boxes in enumerate(truth) for corners, label, ignored in boxes]
    detections = [dict(box(*corners), image_id=i, category_id=label, score=score)
                  for i, boxes in enumerate(found) for corners, label, score in boxes]
    count = np.bincount([row['category_id'] for row in rows if not row['iscrowd']], minlength=classes)
    precisions = np.where(count > 0, 0.0, np.nan)
    if rows and detections:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints on the way
            annotated = COCO()
            annotated.dataset = dict(images=[dict(id=i) for i in range(len(truth))],
                                     categories=[dict(id=label) for label in range(classes)],
                                     annotations=[dict(row, id=i) for i, row in enumerate(rows, 1)])
            annotated.createIndex()
            evaluation = COCOeval(annotated, annotated.loadRes(detections), 'bbox')
            evaluation.evaluate()
            evaluation.accumulate()
        table = evaluation.eval['precision'][:, :, :, 0, -1]  # (IoU, recall, class) of boxes of all sizes
        precisions = np.array([100 * values.mean() if (values := table[:, :, i])[0, 0] > -1 else np.nan
                               for i in range(classes)])
    return precisions, float(np.nanmean(precisions)) if count.any() else float('nan'), count


def alone(config: Config, checkpoint: str | None, where: str) -> nn.Module:
    """:func:`~sfkd.openmmlab.running.trained_student`, or why it cannot be.

    Raises:
        LeftOut: if there is no checkpoint, or it does not fit.
    """
    if checkpoint is None:
        raise LeftOut(f"there is no checkpoint in '{where}'")
    try:
        return trained_student(config, checkpoint)
    except ConfigError as error:
        raise LeftOut(' '.join(error.problems)) from error
