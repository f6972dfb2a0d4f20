"""Digits in the Wild: a benchmark made from scikit-learn's handwritten digits and photographs.

``SceneGenerator`` is the only picture source. A scene knows its digits with class, visible mask and
box, so class folders, COCO JSON and label maps are three ways of writing the same scenes.
"""
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits, load_sample_images

MAKE_COMMAND = 'python tools/make_digits_wild.py cls'
CLASSES = tuple('0123456789')
SPLITS = ('train', 'val', 'test')
DEFAULT_COUNTS = dict(train=4000, val=1000, test=2000)
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


def generate_cls(root: str | Path,
                 seed: int = 0,
                 counts: Mapping[str, int] = DEFAULT_COUNTS,
                 size: int = 64,
                 overwrite: bool = False,
                 progress: Callable[[str, int, int], None] = lambda split, done, total: None) -> bool:
    """Writes one-digit pictures as class folders, ``root/{split}/{label}/{index:06}.png``.

    Beside the splits lie ``contact_sheet.png`` and ``meta.json`` (settings and the SHA-256 over all
    pictures). Everything is written to ``<root>.partial``, which takes its name only when complete.

    Args:
        root: the folder to make.
        seed: a non-negative integer.
        counts: pictures of each of the three splits.
        size: side of a picture in pixels.
        overwrite: replace whatever ``root`` holds.
        progress: called with split, pictures done, and pictures wanted.

    Returns:
        False if ``root`` held exactly these pictures already and nothing was done, else True.

    Raises:
        FileExistsError: ``root`` holds something else, or damaged pictures, and not ``overwrite``.
        OSError: a file could not be written, or ``root`` is no folder.
        ValueError: ``counts`` does not name the three splits or has a negative number, or ``seed``
            is negative.
    """
    root = Path(root)
    if set(counts) != set(SPLITS):
        raise ValueError(f'counts must name {SPLITS}, not {tuple(counts)}')
    if min(counts.values()) < 0:
        raise ValueError(f'counts must not be negative, but are {dict(counts)}')
    wanted = dict(
        dataset='digits_wild',
        task='cls',
        version=GENERATOR_VERSION,
        seed=seed,
        size=size,
        counts={split: counts[split]
                for split in SPLITS})
    if not overwrite and root.exists() and any(root.iterdir()):
        found = _read_meta(root)
        checksum = found.pop('sha256', None)
        if found != wanted:
            raise FileExistsError(f'{root} holds something else.\n  found:  {found or "no meta.json"}\n'
                                  f'  wanted: {wanted}\nChoose another folder with --out, or replace '
                                  'this one with --overwrite.')
        if checksum != _checksum(root):
            raise FileExistsError(f'{root} is damaged: its pictures do not have the checksum in '
                                  'meta.json. Make it anew with --overwrite.')
        return False

    partial = root.with_name(f'{root.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for split in SPLITS:
        for name in CLASSES:
            (partial / split / name).mkdir(parents=True)
        generator = SceneGenerator(split, seed, size)
        for index in range(counts[split]):
            scene = generator.scene(index)
            path = partial / split / CLASSES[scene.digits[0].label] / f'{index:06}.png'
            _write_png(path, scene.image)
            progress(split, index + 1, counts[split])

    generator = SceneGenerator('train', seed, size)
    scenes = [generator.scene(index) for index in range(min(100, counts['train']))]
    if scenes:
        _write_png(
            partial / 'contact_sheet.png',
            contact_sheet([scene.image for scene in scenes],
                          [CLASSES[scene.digits[0].label] for scene in scenes]))
    meta = wanted | dict(sha256=_checksum(partial))
    (partial / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
    if root.exists():
        shutil.rmtree(root)
    partial.rename(root)
    return True


def _read_meta(root: Path) -> dict:
    """What ``meta.json`` says, or {} if it is missing or not to be read."""
    try:
        meta = json.loads((root / 'meta.json').read_text())
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _checksum(root: Path) -> str:
    """SHA-256 over the names and bytes of all pictures, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(path.relative_to(root).as_posix() for path in root.glob('*/*/*.png')):
        total.update(name.encode())
        total.update((root / name).read_bytes())
    return total.hexdigest()


def _write_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image[..., ::-1]):
        raise OSError(f'could not write {path}')


def contact_sheet(images: Sequence[np.ndarray],
                  captions: Sequence[str],
                  columns: int = 10,
                  cell: int = 96) -> np.ndarray:
    """Pictures in rows, each with its caption underneath.

    Args:
        images: (H, W, 3) uint8 RGB each, of any size; scaled to fit a square of ``cell`` pixels.
        captions: one a picture, in ASCII; cut off at the width of the cell.

    Returns:
        (rows * (cell + 22), columns * (cell + 6), 3) uint8 RGB, white where there is no picture.
    """
    rows = -(-len(images) // columns)
    height, width = cell + 22, cell + 6
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        y, x = i // columns * height, i % columns * width
        scale = cell / max(image.shape[:2])
        h, w = (max(1, round(side * scale)) for side in image.shape[:2])
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        sheet[y:y + h, x:x + w] = cv2.resize(image, (w, h), interpolation=method)
        label = np.full((22, width, 3), 255, np.uint8)
        cv2.putText(label, caption, (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
        sheet[y + cell:y + height, x:x + width] = label
    return sheet
