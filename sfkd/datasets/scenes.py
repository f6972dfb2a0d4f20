"""The pictures of Digits in the Wild, from scikit-learn's handwritten digits and photographs.

``SceneGenerator`` is the only picture source. A scene knows its digits with class, visible mask and
box, whatever format it is written in (``digits_wild.py``).
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from sklearn.datasets import load_digits, load_sample_images

CLASSES = tuple('0123456789')
SPLITS = ('train', 'val', 'test')
# Raise it whenever the same seed gives other pictures.
GENERATOR_VERSION = 1

# Fifths of each class's scans and of each photograph's width that a split owns.
_FIFTHS = dict(train=range(0, 3), val=range(3, 4), test=range(4, 5))
_LUMA = np.float32([0.299, 0.587, 0.114])
_ZOOM = 6  # pixels per scanned pixel in a prepared glyph
_MIN_VISIBLE = 0.6  # of a digit's own area, whatever is laid over it
_TRIES = 20


@dataclass(frozen=True)
class PlacedDigit:
    """One digit of a scene.

    Attributes:
        label: class, 0..9.
        mask: (H, W) bool, the pixels where this digit is seen: what later digits cover is left out.
        box: (x1, y1, x2, y2), tight around ``mask``; x2 and y2 are exclusive, so the width is
            ``x2 - x1``.
        source: row of the scan in ``sklearn.datasets.load_digits()``.
    """
    label: int
    mask: np.ndarray
    box: tuple[int, int, int, int]
    source: int


@dataclass(frozen=True)
class Scene:
    """A picture, (H, W, 3) uint8 RGB, and its digits from the lowest to the uppermost."""
    image: np.ndarray
    digits: list[PlacedDigit]


@cache
def _labels() -> np.ndarray:
    """Class of every scan, (1797,) int64."""
    return load_digits().target


@cache
def split_digits() -> dict[str, np.ndarray]:
    """Rows of ``load_digits()`` that each split may use.

    The split is fixed (no seed), disjoint and 60/20/20 within every class.

    Returns:
        Per split, an ascending int64 array; together they hold each of the 1797 rows once.
    """
    labels = _labels()
    rank = np.empty(len(labels), int)  # how many earlier scans show the same class
    for label in range(10):
        rows = np.flatnonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    return {split: np.flatnonzero(np.isin(rank % 5, fifths)) for split, fifths in _FIFTHS.items()}


@cache
def _glyphs() -> np.ndarray:
    """All scans as (1797, 12 * _ZOOM, 12 * _ZOOM) float32 ink, 0..1, with two pixels of margin."""
    scans = np.pad(load_digits().images.astype(np.float32) / 16, ((0, 0), (2, 2), (2, 2)))
    side = scans.shape[1] * _ZOOM
    return np.stack([cv2.resize(scan, (side, side), interpolation=cv2.INTER_CUBIC) for scan in scans])


@cache
def _strips(split: str) -> list[np.ndarray]:
    """The vertical strip of each photograph that belongs to ``split``, (427, w, 3) uint8 RGB."""
    fifths = _FIFTHS[split]
    photos = load_sample_images().images
    cuts = [(photo.shape[1] * fifths.start // 5, photo.shape[1] * fifths.stop // 5) for photo in photos]
    return [np.ascontiguousarray(photo[:, left:right]) for photo, (left, right) in zip(photos, cuts)]


class SceneGenerator:
    """Scenes of one split, each a function of (seed, split, index) and the settings alone.

    Scenes may therefore be made in any order and by any number of processes, and the first n are
    the same however many follow.

    Args:
        split: 'train', 'val' or 'test'; decides which scans and which parts of the photographs are
            used.
        seed: a non-negative integer.
        size: side of the square picture, or (height, width), in pixels.
        digits_per_image: how many digits, or (fewest, most). With several, one that finds no place
            where every digit stays readable is left out; there is always at least one.
        digit_size: (smallest, largest) height of an upright digit in pixels; a digit that would not
            fit into the picture is made smaller.

    Raises:
        ValueError: for an unknown split, a negative seed, or a range that is empty or not positive.

    Example:
        >>> scene = SceneGenerator('train', seed=0, size=(96, 128), digits_per_image=(2, 5)).scene(7)
        >>> scene.image.shape, scene.digits[0].label
        ((96, 128, 3), 7)
    """

    def __init__(self,
                 split: str,
                 seed: int = 0,
                 size: int | tuple[int, int] = 64,
                 digits_per_image: int | tuple[int, int] = 1,
                 digit_size: tuple[float, float] = (30, 56)):
        if split not in SPLITS:
            raise ValueError(f'split must be one of {SPLITS}, not {split!r}')
        if seed < 0:
            raise ValueError(f'seed must not be negative, but is {seed}')
        self.split, self.seed = split, seed
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.digits_per_image = ((digits_per_image, ) * 2
                                 if isinstance(digits_per_image, int) else tuple(digits_per_image))
        self.digit_size = tuple(digit_size)
        if min(self.size) < 16:
            raise ValueError(f'a picture needs at least 16 pixels a side, not {self.size}')
        for name in ('digits_per_image', 'digit_size'):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f'{name} must be 0 < smallest <= largest, not {(low, high)}')

        rows = split_digits()[split]
        labels = _labels()[rows]
        self._rows = [rows[labels == label] for label in range(10)]

    def scene(self, index: int) -> Scene:
        """Scene number ``index`` (0 or more).

        Its first digit has class ``index % 10``, so that one-digit pictures are balanced; the
        others are drawn at random.
        """
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        canvas = self._background(rng)
        fewest, most = self.digits_per_image
        count = rng.integers(fewest, most + 1)
        labels = [index % 10, *rng.integers(10, size=count - 1).tolist()]
        placed: list[tuple[int, int]] = []  # label, source
        masks: list[np.ndarray] = []  # visible parts
        areas: list[int] = []  # of the whole digits
        for label in labels:
            source = int(rng.choice(self._rows[label]))
            ink = self._ink(rng, source)
            spot = self._find_place(rng, ink > 0.5, masks, areas)
            if spot is None:
                continue
            mask = np.zeros(self.size, bool)
            mask[spot] = ink > 0.5
            _paint(rng, canvas[spot], ink)
            masks = [other & ~mask for other in masks] + [mask]
            areas.append(int(mask.sum()))
            placed.append((label, source))

        image = self._develop(rng, canvas)
        digits = [
            PlacedDigit(label, mask, _tight_box(mask), source)
            for (label, source), mask in zip(placed, masks)
        ]
        return Scene(image, digits)

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """A zoomed, flipped and relit part of a photograph, (H, W, 3) float32."""
        height, width = self.size
        strips = _strips(self.split)
        strip = strips[rng.integers(len(strips))]
        zoom = np.exp(rng.uniform(np.log(0.55), np.log(1.6)))
        flip = rng.choice([-1, 1], size=2)
        # Picture larger than what is left of the strip: mirrored at its edges, never read beyond.
        room = np.maximum(np.array(strip.shape[1::-1]) - np.array([width, height]) / zoom, 0)
        centre = rng.uniform(size=2) * room + np.array([width, height]) / zoom / 2
        step = flip / zoom
        to_strip = np.float32([[step[0], 0, centre[0] - step[0] * width / 2],
                               [0, step[1], centre[1] - step[1] * height / 2]])
        picture = cv2.warpAffine(
            strip,
            to_strip, (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
        gain, shift = rng.uniform(0.6, 1.2), rng.uniform(-25, 40)
        return np.clip(picture * gain + shift, 0, 255)

    def _ink(self, rng: np.random.Generator, source: int) -> np.ndarray:
        """A scaled, turned and sheared digit, cropped to its ink: (h, w) float32, 0..1."""
        size = rng.uniform(*self.digit_size)
        angle, shear = np.deg2rad(rng.uniform(-25, 25)), rng.uniform(-0.15, 0.15)
        aspect = rng.uniform(0.85, 1.15)
        cos, sin = np.cos(angle), np.sin(angle)
        shape = np.array([[cos, -sin], [sin, cos]]) @ np.array([[aspect, shear], [0, 1]])
        glyph = _glyphs()[source]
        while True:
            side = int(np.ceil(size * 2))
            linear = shape * size / (8 * _ZOOM)
            shift = side / 2 - linear @ np.full(2, (len(glyph) - 1) / 2)
            warped = cv2.warpAffine(glyph, np.column_stack([linear, shift]), (side, side))
            # Harder edges than the smooth upsampling leaves, at any size.
            ink = np.clip((warped - 0.25) / 0.45, 0, 1)
            x1, y1, x2, y2 = _tight_box(ink > 0)
            ink = ink[y1:y2, x1:x2]
            excess = max(np.array(ink.shape) / np.array(self.size))
            if excess <= 1:
                return ink
            size *= 0.97 / excess

    def _find_place(self, rng: np.random.Generator, mask: np.ndarray, others: Sequence[np.ndarray],
                    areas: Sequence[int]) -> tuple[slice, slice] | None:
        """A window of the picture for ``mask`` that leaves enough of each earlier digit to be seen."""
        height, width = mask.shape
        for _ in range(_TRIES):
            y = int(rng.integers(self.size[0] - height + 1))
            x = int(rng.integers(self.size[1] - width + 1))
            spot = slice(y, y + height), slice(x, x + width)
            if all(other.sum() - (other[spot] & mask).sum() >= _MIN_VISIBLE * area
                   for other, area in zip(others, areas)):
                return spot
        return None

    @staticmethod
    def _develop(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
        """Slight blur and noise, as a camera would add; uint8."""
        canvas = cv2.GaussianBlur(canvas, (3, 3), rng.uniform(0.2, 0.8))
        canvas += rng.uniform(0, 8) * rng.standard_normal(canvas.shape, dtype=np.float32)
        return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _paint(rng: np.random.Generator, window: np.ndarray, ink: np.ndarray) -> None:
    """Blends ``ink`` into ``window`` (h, w, 3) in a colour that stands out from what is there."""
    behind = float(np.average(window @ _LUMA, weights=ink))
    contrast = rng.uniform(100, 180)
    # The side with room for the contrast; in between, either.
    bright = behind < 90 or (behind < 165 and rng.random() < 0.5)
    luma = np.clip(behind + (contrast if bright else -contrast), 0, 255)
    tint = rng.uniform(-1, 1, 3).astype(np.float32)
    tint -= tint @ _LUMA  # colour without brightness
    colour = np.clip(luma + rng.uniform(0, 130) * tint, 0, 255)
    alpha = (rng.uniform(0.75, 1) * ink)[..., None]
    window += alpha * (colour - window)


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
