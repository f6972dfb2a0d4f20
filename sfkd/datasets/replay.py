"""A data set whose random augmentations come again."""
from __future__ import annotations

import numpy as np
import torch
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import Dataset

from .. import randomness
from ..registry import DATASETS


@DATASETS.register_module()
class ReplayedDataset(Dataset):
    """Draws one of a fixed number of augmentations of each picture, so that what a teacher says of it can be kept.

    Every augmentation has its own seed, from which all random numbers of the pipeline come (torch's, NumPy's and
    Python's). Each data sample says in ``teacher_row`` which it is: picture x variants + variant.

    Args:
        dataset: config or data set of mmengine's kind. Its own random numbers outside of this one's items stay as they
            were.
        variants: augmentations a picture, at least 1; each access draws one, from torch's random numbers.
        seed: of the augmentations.
    """

    def __init__(self, dataset: dict | Dataset, variants: int = 1, seed: int = 0):
        if variants < 1:
            raise ValueError(f'variants must be at least 1, got {variants}')
        self.dataset = ROOT_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.variants, self.seed = variants, seed
        self.metainfo = self.dataset.metainfo

    def full_init(self) -> None:
        self.dataset.full_init()

    def get_data_info(self, index: int) -> dict:
        return self.dataset.get_data_info(index)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict]:
        """A batch, as torch's loader asks for it. The random states are put back once, not for each item."""
        draws = [int(torch.randint(self.variants, ())) if self.variants > 1 else 0 for _ in indices]
        with randomness.preserved():
            return [self._item(index, variant) for index, variant in zip(indices, draws)]

    def _item(self, index: int, variant: int) -> dict:
        seeds = np.random.SeedSequence([self.seed, index, variant]).generate_state(3)
        randomness.seed(*map(int, seeds))
        item = self.dataset[index]
        item['data_samples'].set_metainfo(dict(teacher_row=index * self.variants + variant))
        return item
