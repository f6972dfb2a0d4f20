"""Pictures without labels."""
from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from PIL import Image, ImageOps

from ..errors import ConfigError
from ..registry import DATASETS

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.ppm', '.pgm')


def pictures_below(root: str | Path) -> Iterator[str]:
    """The paths of all pictures in a folder and in what is below it, in the order of their names; links are followed,
    hidden files and folders left out.
    """
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = [] if real in seen else sorted(name for name in below if not name.startswith('.'))
        if real not in seen:
            yield from (os.path.join(folder, name) for name in sorted(files)
                        if name.lower().endswith(SUFFIXES) and not name.startswith('.'))
        seen.add(real)


def open_picture(path: str) -> Image.Image:
    """A picture file as RGB, upright as its EXIF data says, of 16 bits the 8 high ones.

    Raises:
        Exception: of any type, from Pillow, for one that is empty or damaged, or whose values have no known range.
    """
    with Image.open(path) as picture:
        sixteen = picture.mode.startswith('I;16') or picture.mode == 'I' and picture.format in ('PNG', 'PPM')
        if picture.mode in ('I', 'F') and not sixteen:
            values = 'whole numbers of 32 bits' if picture.mode == 'I' else 'floats'
            raise ValueError(f'{values}, whose black and white are unknown; save it with 8 or 16 bits')
        picture.load()
        with contextlib.suppress(Exception):  # of EXIF data that is damaged
            ImageOps.exif_transpose(picture, in_place=True)
        if sixteen:  # where Pillow's own conversion would make white of all above 255
            return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert('RGB')
        return picture.convert('RGB')


@DATASETS.register_module()
class PictureFolder(BaseDataset):
    """All pictures of a folder tree, without labels. In OpenMMLab::

        dataset=dict(type='sfkd.PictureFolder', data_root='pictures', pipeline=[dict(type='LoadImageFromFile'), ...])

    and in plain PyTorch, ``PictureFolder('pictures', transform=...)``, whose items are what ``transform`` makes of an
    RGB picture of Pillow.

    A file that cannot be read is named in the log, once a run, and the next one takes its place: the number of items
    stays. A JPEG that ends early counts as read with OpenCV, which fills it up.

    Args:
        data_root: the folder.
        pipeline: of OpenMMLab's transforms, the first of which loads ``img_path``.
        transform: in the pipeline's place, any callable; None gives the pictures themselves where there is no pipeline.

    Raises:
        ConfigError: if there is no such folder or no picture in it; later, from an item, if none can be read.
    """

    def __init__(self, data_root: str | Path, pipeline: Sequence[dict | Callable] = (),
                 transform: Callable[[Image.Image], Any] | None = None):
        if transform is not None and pipeline:
            raise ConfigError('PictureFolder: a pipeline and a transform are given; leave out one of the two')
        if not Path(data_root).is_dir():
            raise ConfigError(f"data_root: there is no folder '{data_root}'")
        super().__init__(data_root=str(data_root), pipeline=list(pipeline))
        if not pipeline:
            self.pipeline = _Opened(transform)
        # Shared with the data workers, which begin anew each epoch and would name a file again
        self.unreadable = torch.zeros(len(self), dtype=torch.bool).share_memory_()

    def load_data_list(self) -> list[dict]:
        """``{'img_path', 'img_id', 'seg_fields'}`` of each picture; mmdetection packs the second, mmsegmentation goes
        through the third.
        """
        paths = list(pictures_below(self.data_root))
        if not paths:
            raise ConfigError(f"data_root: there is no picture in '{self.data_root}' and below ({', '.join(SUFFIXES)})")
        return [dict(img_path=path, img_id=i, seg_fields=[]) for i, path in enumerate(paths)]

    def prepare_data(self, idx: int) -> Any:
        """What the pipeline or the transform makes of a picture, or of the next one that can be read."""
        if idx >= len(self):
            raise IndexError(f'{idx} of {len(self)} pictures')  # by which a for loop ends
        for index in (*range(idx, len(self)), *range(idx)):
            if self.unreadable[index]:
                continue
            info = self.get_data_info(index)
            try:
                return self.pipeline(info)
            except Exception:
                if (why := _problem(info['img_path'])) is None:
                    raise  # it is the pipeline's
            self.unreadable[index] = True
            print_log(f"PictureFolder: '{info['img_path']}' cannot be read ({why}); another picture takes its place",
                      'current', level=logging.WARNING)
        raise ConfigError(f"data_root: none of the {len(self)} pictures in '{self.data_root}' can be read")


class _Opened:
    """A pipeline that gives the picture itself, or what a transform makes of it."""

    def __init__(self, transform: Callable[[Image.Image], Any] | None):
        self.transform = transform

    def __call__(self, info: dict) -> Any:
        picture = open_picture(info['img_path'])
        return picture if self.transform is None else self.transform(picture)


def _problem(path: str) -> str | None:
    """What keeps a file from being read, if anything does."""
    try:
        open_picture(path)
    except Exception as error:  # Pillow raises many types for damaged files
        if getattr(error, 'errno', None):  # the system's: it is gone, or not to be read
            return error.strerror
        return str(error) if os.path.getsize(path) else 'an empty file'
    return None
