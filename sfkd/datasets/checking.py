"""What is wrong with a data set before it is trained on, and with a sample when it is: which file, index, class."""
from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

from ..errors import ConfigError

IGNORED = 255  # mmseg's label of what reduce_zero_label, crops beyond the border and annotators leave out
HEADS = ('head', 'bbox_head', 'mask_head', 'decode_head', 'auxiliary_head')


class SampleError(ConfigError):
    """A sample cannot be trained on. From a data worker it comes as a text with a traceback, of which it keeps what it
    said there.
    """

    def __init__(self, problems: list[str] | str):
        if isinstance(problems, str):
            problems = problems.rpartition(f'{SampleError.__name__}: - ')[2].strip()
        super().__init__(problems)


def classes_of(network: nn.Module) -> int | None:
    """How many classes the heads of a classifier, detector or segmentor tell apart; None where they do not say or
    differ.
    """
    found = {module.num_classes for path, module in network.named_modules()
             if _is_head(path) and isinstance(getattr(module, 'num_classes', None), int)}
    return found.pop() if len(found) == 1 else None


def _is_head(path: str) -> bool:
    names = [name for name in path.split('.') if not name.isdigit()]
    return bool(names) and names[-1] in HEADS and 'rpn_head' not in names and 'distillation' not in names


def leaves_of(dataset: Dataset) -> list[Dataset]:
    """The data sets inside of wrappers: repeated, joined, replayed."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    return [dataset] if inner == [None] else [leaf for part in inner for leaf in leaves_of(part)]


def check_dataset(dataset: Dataset, classes: int | None, where: str) -> tuple[list[str], list[str]]:
    """Go through what a data set lists, without opening a picture.

    Args:
        dataset: one of mmengine's kind, without wrappers.
        classes: how many the model tells apart; None checks no labels.
        where: the config key, for messages.

    Returns:
        tuple: what cannot be trained on, and what can but should be known (what mmdetection leaves out, counted).
    """
    problems, notes = [], []
    labels, wrong, empty, files = Counter(), {}, 0, {}
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for key in ('img_path', 'seg_map_path'):
            if info.get(key):
                files.setdefault(key, []).append((index, info[key]))
        own = list(_labels(info))
        labels.update(own)
        empty += 'instances' in info and not own and not info.get('segments_info')  # stuff teaches too
        for label in own:
            if classes is not None and not 0 <= label < classes:
                wrong.setdefault(label, (index, info.get('img_path')))
    if not len(dataset):
        problems.append(f'{where}: no picture is in it' + _counted(_left_out(dataset)))
    for label, (index, path) in sorted(wrong.items()):
        problems.append(f"{where}: label {label} ({labels[label]} times, first in picture {index}, '{path}') is none "
                        f"of the model's {classes} classes; set the head's num_classes, or mend the annotations")
    parts = dataset, *getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    for key, named in () if elsewhere(getattr(part, 'backend_args', None) for part in parts) else files.items():
        if missing := list(_missing(named)):
            index, path = missing[0]
            problems.append(f"{where}: {len(missing)} of {len(named)} files ({key}) are not there, first that of "
                            f"picture {index}, '{path}'; get them, or leave them out of the annotations")
    if empty:
        notes.append(f'{where}: {empty} of {len(dataset)} pictures have no box: they teach the background alone')
    if len(dataset):
        notes += [f'{where}: {text}' for text in _left_out(dataset)]
    return problems, notes


def named(dataset: Dataset, classes: int | None, where: str, ignored: int = IGNORED) -> None:
    """Let a data set say which sample it cannot give, and refuse one whose labels are neither the model's classes nor
    the one that counts nowhere.

    Raises, later:
        SampleError: from the data set's items, with index, file and label.
    """
    dataset.prepare_data = functools.partial(_prepared, dataset.prepare_data, dataset, classes, where, ignored)


def _prepared(prepare: Callable[[int], dict], dataset: Dataset, classes: int | None, where: str, ignored: int,
              index: int) -> dict:
    try:
        item = prepare(index)
    except Exception as error:
        raise SampleError([f"{where}: {_of(dataset, index)} cannot be read ({type(error).__name__}: "
                           f"{str(error).partition(chr(10))[0]}); get it again, or leave it out"]) from error
    sample = (item or {}).get('data_samples')
    for values in _packed_labels(sample):
        outside = values[(values < 0) | (values >= classes)] if classes is not None else values[:0]
        outside = outside[outside != ignored]
        if len(outside):
            raise SampleError([f"{where}: label {int(outside[0])} of {_of(dataset, index)} is none of the model's "
                               f"{classes} classes; set the head's num_classes, or mend the annotations"])
    return item


def _of(dataset: Dataset, index: int) -> str:
    info = dataset.get_data_info(index)
    paths = [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]
    return f'picture {index}, ' + ' with '.join(f"'{path}'" for path in paths)


def _labels(info: dict) -> Iterator[int]:
    if 'gt_label' in info:
        label = info['gt_label']
        yield from (int(part) for part in (label if isinstance(label, (list, tuple)) else [label]))
    for instance in info.get('instances') or ():
        if 'bbox_label' in instance and not instance.get('ignore_flag'):  # of what is ignored it may be any
            yield int(instance['bbox_label'])


def _packed_labels(sample) -> Iterator[torch.Tensor]:
    for holder, name in (('gt_label', None), ('gt_instances', 'labels'), ('gt_sem_seg', 'data')):
        found = getattr(sample, holder, None)
        found = getattr(found, name, None) if name and found is not None else found
        if torch.is_tensor(found):
            yield found.flatten().long()


def elsewhere(backends: Iterable[dict | None]) -> bool:
    """Whether files are found by another of mmengine's file backends than that of this machine's disks.

    Args:
        backends: ``backend_args`` of a data set and of the steps of its pipeline.
    """
    return any((backend or {}).get('backend', 'local') != 'local' for backend in backends)


def _missing(files: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Those that are not there: a folder is listed once, not asked for each of its files."""
    folders: dict[str, set[str]] = {}
    for index, path in files:
        if '://' in str(path):
            continue
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder]:
            yield index, path


def _left_out(dataset: Dataset) -> list[str]:
    """What mmdetection's CocoDataset reads and leaves out, by reason."""
    if not hasattr(dataset, 'cat2label') or not Path(dataset.ann_file).is_file():
        return []
    content = json.loads(Path(dataset.ann_file).read_text())
    sizes = {image['id']: (image['width'], image['height']) for image in content.get('images', ())}
    unknown, flat, lost = Counter(), 0, 0
    for box in content.get('annotations', ()):
        if 'bbox' not in box:  # of a panoptic set: one entry for all segments of a picture
            continue
        x, y, w, h = box['bbox']
        if box['category_id'] not in dataset.cat2label:
            unknown[box['category_id']] += 1
        elif box['image_id'] not in sizes:
            lost += 1
        else:
            width, height = sizes[box['image_id']]
            outside = min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0)
            flat += outside or w < 1 or h < 1 or box.get('area', 1) <= 0
    found = []
    if skipped := len(sizes) - len(dataset):
        found.append(f'{skipped} of {len(sizes)} pictures are left out by filter_cfg')
    if unknown:
        found.append(f'{sum(unknown.values())} boxes are left out: their category_id is none of metainfo.classes '
                     f'({", ".join(f"{key}: {count}" for key, count in sorted(unknown.items())[:5])})')
    if flat:
        found.append(f'{flat} boxes are left out: smaller than a pixel, or outside of their picture')
    if lost:
        found.append(f'{lost} boxes are of pictures that the file does not list')
    return found


def _counted(reasons: list[str]) -> str:
    return f' ({"; ".join(reasons)})' if reasons else ''
