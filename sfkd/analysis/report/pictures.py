"""The pictures that a report looks at."""
from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ...errors import ConfigError
from ..drawing import build_dataset

PIXELS = 2**21  # of all pictures of one pass: 64 of 181x181, 2 of COCO's


class LeftOut(Exception):
    """Why a part of a report cannot be made; its text is for the reader of the report."""


def evenly(total: int, count: int) -> list[int]:
    """So many of a number of positions, evenly spread."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


class Pictures:
    """Pictures of a run's validation split, or of its test split where it has none of the first, evenly spread.

    Args:
        config: of the run.
        number: how many, at most.

    Attributes:
        split: 'validation' or 'test'.
        dataset: the whole split.
        indices: of the pictures in it.
        items: what the pipeline gives of each.
        classes: their names.

    Raises:
        LeftOut: if there is neither split, if its files are missing, or if the pipeline gives several views of a
            picture.
    """

    def __init__(self, config: Config, number: int):
        split = next((split for split in ('val', 'test') if (config.get(f'{split}_dataloader') or {}).get('dataset')),
                     None)
        if split is None:
            raise LeftOut('the run had neither a validation nor a test split (--no-validate)')
        try:
            self.dataset = build_dataset(config, split)
        except ConfigError as error:
            raise LeftOut(' '.join(error.problems)) from error
        self.split = dict(val='validation', test='test')[split]
        self.indices = evenly(len(self.dataset), number)
        self.items = [self.dataset[i] for i in self.indices]
        if not all(torch.is_tensor(item['inputs']) for item in self.items):
            raise LeftOut('the pipeline of the split gives several views of each picture')
        self.classes = [str(name) for name in self.dataset.metainfo.get('classes') or ()]

    def __len__(self) -> int:
        return len(self.items)

    def batches(self, preprocessor: nn.Module) -> Iterator[tuple[list[int], Tensor, list]]:
        """All pictures, in batches of one shape, which nothing is padded in but to a network's own divisor, of at most
        ``PIXELS``; the commonest shape first.

        Args:
            preprocessor: the student's.

        Yields:
            tuple: positions in ``items``, inputs (n, 3, H, W), data samples.
        """
        shapes = [tuple(item['inputs'].shape) for item in self.items]
        for shape, _ in Counter(shapes).most_common():
            members = [i for i, other in enumerate(shapes) if other == shape]
            size = max(2, PIXELS // (shape[1] * shape[2]))
            for start in range(0, len(members), size):
                chosen = members[start:start + size]
                batch = pseudo_collate([self.item(i) for i in chosen])
                data = preprocessor(batch, False)
                yield chosen, data['inputs'], data['data_samples']

    def item(self, position: int) -> dict:
        """A copy, with its boxes in the pixels of the picture that a network gets: a test pipeline loads them after it
        has resized the picture.
        """
        item = copy.deepcopy(self.items[position])
        sample = item['data_samples']
        if 'gt_instances' in sample and 'scale_factor' in sample:
            scale = sample.gt_instances.bboxes.new_tensor(list(sample.scale_factor) * 2)
            original = [row['bbox'] for row in self.dataset.get_data_info(self.indices[position])['instances']
                        if not row.get('ignore_flag')]
            boxes = getattr(sample.gt_instances.bboxes, 'tensor', sample.gt_instances.bboxes)
            if len(original) == len(boxes) and torch.allclose(boxes, boxes.new_tensor(original).view(-1, 4)):
                boxes.mul_(scale)
        return item
