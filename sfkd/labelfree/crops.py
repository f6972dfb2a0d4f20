"""Pictures for a training: crops that depend on the seed and the place in the training alone."""
from __future__ import annotations

import functools
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..datasets import PictureFolder
from ..errors import ConfigError

AREA, RATIO = (0.25, 1.0), 4 / 3  # of a picture that a crop takes, and its longest side to its shorter one
LOOKED_AT = 100  # pictures whose sizes are asked for before a training


class Crops(Dataset):
    """An endless row of random crops, mirrored at random, in which each picture comes once an epoch.

    A crop's random numbers are its own: neither the number of data workers nor an interruption changes what comes at a
    place, and no random state of the training is touched.

    Args:
        folder: whose items are RGB pictures of Pillow.
        size: H and W of a crop.
        seed: of all.
    """

    def __init__(self, folder: PictureFolder, size: int, seed: int):
        self.folder, self.size, self.seed = folder, size, seed

    def __getitem__(self, place: int) -> Tensor:
        """(3, H, W), uint8."""
        epoch, i = divmod(place, len(self.folder))
        picture = self.folder[int(order(self.seed, epoch, len(self.folder))[i])]
        return as_tensor(random_crop(picture, self.size, np.random.default_rng([self.seed, epoch, i, 1])))


@functools.lru_cache(maxsize=2)  # a batch may reach into the next epoch
def order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Of so many pictures in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(count)


def random_crop(picture: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """A part of random area, shape and place (Szegedy et al., 2015), mirrored at random, as a square of ``size``."""
    width, height = picture.size
    area, ratio = rng.uniform(*AREA) * width * height, RATIO ** rng.uniform(-1, 1)
    w, h = min(math.sqrt(area * ratio), width), min(math.sqrt(area / ratio), height)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    crop = picture.resize((size, size), Image.Resampling.BICUBIC, (x, y, x + w, y + h), reducing_gap=2.0)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def centre_crop(picture: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle, as one of ``size``."""
    width, height = picture.size
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    return picture.resize((size, size), Image.Resampling.BICUBIC, (x, y, x + side, y + side), reducing_gap=2.0)


def as_tensor(picture: Image.Image) -> Tensor:
    """(3, H, W), uint8."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def spread(folder: PictureFolder, count: int) -> list[int]:
    """Indices of so many pictures, or all, over the whole folder."""
    count = min(count, len(folder))
    return [i * len(folder) // count for i in range(count)]


def check_sizes(folder: PictureFolder, size: int) -> None:
    """Refuse pictures most of which would have to be made more than twice as large.

    Raises:
        ConfigError: with the size that they have.
    """
    sides = sorted(min(folder[i].size) for i in spread(folder, LOOKED_AT))
    middle = sides[len(sides) // 2]
    if 2 * middle < size:
        raise ConfigError(f"--pictures: those in '{folder.data_root}' are too small: half of {len(sides)} that were "
                          f'looked at have no more than {middle} px on their shorter side, and --input-size is {size}; '
                          f'give larger ones, or --input-size {middle}')
