"""Digits in the Wild on disk: scenes as class folders, COCO JSON and label maps (docs/digits_wild.md)."""
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from .scenes import CLASSES, GENERATOR_VERSION, SPLITS, Scene, SceneGenerator

MAKE_COMMAND = 'python tools/make_digits_wild.py cls'
DEFAULT_COUNTS = dict(
    cls=dict(train=4000, val=1000, test=2000),
    det=dict(train=2000, val=250, test=1000),
    seg=dict(train=2000, val=250, test=1000))
# Pictures of several digits: mixed shapes, so that batches need padding, and digits from barely legible to nearly half
# a picture high
SCENE_SIZES = ((128, 128), (128, 160))
SCENE_DIGITS = (3, 8)
SCENE_DIGIT_SIZE = (16, 56)
# Values of a label map; a COCO category id is the same number, so that 0 is no category
SEG_CLASSES = ('background', *CLASSES)
_SEG_FOLDERS = dict(train='training', val='validation', test='test')

Progress = Callable[[str, int, int], None]


def _silent(split: str, done: int, total: int) -> None:
    pass


def generate_cls(root: str | Path,
                 seed: int = 0,
                 counts: Mapping[str, int] = DEFAULT_COUNTS['cls'],
                 size: int = 64,
                 overwrite: bool = False,
                 progress: Progress = _silent) -> bool:
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
    settings = _settings('cls', seed, counts, size=size)
    scenes = {split: SceneGenerator(split, seed, size).scene for split in SPLITS}
    return _generate(Path(root), settings, scenes, _write_cls, _show_class, dict(columns=10, cell=96), overwrite,
                     progress)


def generate_det(root: str | Path,
                 seed: int = 0,
                 counts: Mapping[str, int] = DEFAULT_COUNTS['det'],
                 sizes: Sequence[tuple[int, int]] = SCENE_SIZES,
                 digits_per_image: tuple[int, int] = SCENE_DIGITS,
                 digit_size: tuple[float, float] = SCENE_DIGIT_SIZE,
                 overwrite: bool = False,
                 progress: Progress = _silent) -> bool:
    """Writes pictures of several digits, ``root/{split}/{index:06}.png``, with COCO's
    ``root/annotations/{split}.json``.

    A digit's ``segmentation`` is what is seen of it, as compressed RLE (polygons have no holes, an 8 has two); ``bbox``
    is tight around that, in whole pixels, and ``area`` counts its pixels. The category of digit d has id d + 1, a
    picture's id is its index.

    Args:
        sizes: (height, width) in pixels; ten pictures have the first, the next ten the second, and so on in turn.
        digits_per_image, digit_size: as for ``SceneGenerator``.
        root, seed, counts, overwrite, progress: as for ``generate_cls``.

    Returns, Raises:
        as ``generate_cls``; a ValueError for wrong ``sizes``, ``digits_per_image`` or ``digit_size`` too.
    """
    return _generate_scenes('det', root, seed, counts, sizes, digits_per_image, digit_size, _write_det, _show_boxes,
                            overwrite, progress)


def generate_seg(root: str | Path,
                 seed: int = 0,
                 counts: Mapping[str, int] = DEFAULT_COUNTS['seg'],
                 sizes: Sequence[tuple[int, int]] = SCENE_SIZES,
                 digits_per_image: tuple[int, int] = SCENE_DIGITS,
                 digit_size: tuple[float, float] = SCENE_DIGIT_SIZE,
                 overwrite: bool = False,
                 progress: Progress = _silent) -> bool:
    """Writes the pictures of ``generate_det`` with label maps, laid out as ADE20K:
    ``root/{images,annotations}/{folder}/{index:06}.png``.

    The folders are ``training``, ``validation`` and ``test``. In a map, (H, W) uint8, background is 0 and digit d is d
    + 1 where it is seen: read as it is, background is a class like any other; under ``reduce_zero_label`` it is ignored
    and digit d becomes class d.

    Args, Returns, Raises:
        as for ``generate_det``.
    """
    return _generate_scenes('seg', root, seed, counts, sizes, digits_per_image, digit_size, _write_seg, _show_map,
                            overwrite, progress)


def _generate_scenes(task: str, root: str | Path, seed: int, counts: Mapping[str, int],
                     sizes: Sequence[tuple[int, int]], digits_per_image: tuple[int, int],
                     digit_size: tuple[float, float], write: Callable, show: Callable,
                     overwrite: bool, progress: Progress) -> bool:
    if not sizes:
        raise ValueError('sizes must name at least one (height, width)')
    sizes, ranges = [list(size) for size in sizes], dict(digits_per_image=list(digits_per_image),
                                                         digit_size=list(digit_size))
    settings = _settings(task, seed, counts, sizes=sizes, **ranges)
    scenes = {split: _in_turn([SceneGenerator(split, seed, size, **ranges) for size in map(tuple, sizes)])
              for split in SPLITS}
    return _generate(Path(root), settings, scenes, write, show, dict(columns=8, cell=160), overwrite, progress)


def _in_turn(generators: Sequence[SceneGenerator]) -> Callable[[int], Scene]:
    # By tens, because the first digit's class is the last figure of the index: it would go with a shape otherwise
    return lambda index: generators[index // 10 % len(generators)].scene(index)


def _settings(task: str, seed: int, counts: Mapping[str, int], **pictures) -> dict:
    """What decides every file's content, as meta.json holds it."""
    if set(counts) != set(SPLITS):
        raise ValueError(f'counts must name {SPLITS}, not {tuple(counts)}')
    if min(counts.values()) < 0:
        raise ValueError(f'counts must not be negative, but are {dict(counts)}')
    return dict(dataset='digits_wild', task=task, version=GENERATOR_VERSION, seed=seed, **pictures,
                counts={split: counts[split] for split in SPLITS})


def _generate(root: Path, wanted: dict, scenes: Mapping[str, Callable[[int], Scene]], write: Callable, show: Callable,
              sheet: dict, overwrite: bool, progress: Progress) -> bool:
    """What the tasks share: checks what is there, writes to ``<root>.partial``, and renames that.

    Args:
        wanted: from ``_settings``.
        scenes: per split, the scene of an index.
        write: called with the folder, the split and an iterator of (index, scene).
        show: from a scene to its picture and caption for the contact sheet, whose layout is ``sheet``.
        root, overwrite, progress: as for ``generate_cls``.
    """
    counts = wanted['counts']
    if not overwrite and root.exists() and any(root.iterdir()):
        found = _read_meta(root)
        checksum = found.pop('sha256', None)
        if found != wanted:
            raise FileExistsError(f'{root} holds something else.\n  found:  {found or "no meta.json"}\n'
                                  f'  wanted: {wanted}\nChoose another folder with --out, or replace '
                                  'this one with --overwrite.')
        if checksum != _checksum(root):
            raise FileExistsError(f'{root} is damaged: its files do not have the checksum in '
                                  'meta.json. Make it anew with --overwrite.')
        return False

    def numbered(split: str) -> Iterator[tuple[int, Scene]]:
        for index in range(counts[split]):
            yield index, scenes[split](index)
            progress(split, index + 1, counts[split])  # the writer is done with it when it asks for the next

    partial = root.with_name(f'{root.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for split in SPLITS:
        write(partial, split, numbered(split))
    shown = [show(scenes['train'](index)) for index in range(min(10 * sheet['columns'], counts['train']))]
    if shown:
        _write_png(partial / 'contact_sheet.png', contact_sheet(*zip(*shown), **sheet))
    meta = wanted | dict(sha256=_checksum(partial))
    (partial / 'meta.json').write_text(json.dumps(meta, indent=2) + '\n')
    if root.exists():
        shutil.rmtree(root)
    partial.rename(root)
    return True


# The three formats


def _write_cls(root: Path, split: str, scenes: Iterator[tuple[int, Scene]]) -> None:
    for name in CLASSES:
        (root / split / name).mkdir(parents=True)
    for index, scene in scenes:
        _write_png(root / split / CLASSES[scene.digits[0].label] / f'{index:06}.png', scene.image)


def _write_det(root: Path, split: str, scenes: Iterator[tuple[int, Scene]]) -> None:
    from pycocotools import mask as rle  # the other tasks do without it
    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images, annotations = [], []
    for index, scene in scenes:
        name = f'{index:06}.png'
        _write_png(root / split / name, scene.image)
        height, width = scene.image.shape[:2]
        images.append(dict(id=index, file_name=name, height=height, width=width))
        for digit in scene.digits:
            x1, y1, x2, y2 = digit.box
            code = rle.encode(np.asfortranarray(digit.mask, np.uint8))
            annotations.append(dict(
                id=len(annotations) + 1,  # pycocotools takes id 0 for a box without a match
                image_id=index, category_id=digit.label + 1, bbox=[x1, y1, x2 - x1, y2 - y1],
                area=int(digit.mask.sum()), iscrowd=0,
                segmentation=dict(size=code['size'], counts=code['counts'].decode())))
    categories = [dict(id=label + 1, name=name, supercategory='digit') for label, name in enumerate(CLASSES)]
    info = dict(description=f'Digits in the Wild, {split}', version=str(GENERATOR_VERSION))
    content = dict(info=info, images=images, annotations=annotations, categories=categories)
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(content))


def _write_seg(root: Path, split: str, scenes: Iterator[tuple[int, Scene]]) -> None:
    images, maps = (root / kind / _SEG_FOLDERS[split] for kind in ('images', 'annotations'))
    for folder in (images, maps):
        folder.mkdir(parents=True)
    for index, scene in scenes:
        _write_png(images / f'{index:06}.png', scene.image)
        _write_png(maps / f'{index:06}.png', _label_map(scene))


def _label_map(scene: Scene) -> np.ndarray:
    """(H, W) uint8: 0 is background, d + 1 is digit d."""
    label_map = np.zeros(scene.image.shape[:2], np.uint8)
    for digit in scene.digits:
        label_map[digit.mask] = digit.label + 1
    return label_map


# Files


def _read_meta(root: Path) -> dict:
    """What ``meta.json`` says, or {} if it is missing or not to be read."""
    try:
        meta = json.loads((root / 'meta.json').read_text())
    except (OSError, ValueError):
        return {}
    return meta if isinstance(meta, dict) else {}


def _checksum(root: Path) -> str:
    """SHA-256 over the names and bytes of all pictures and annotations, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(path.relative_to(root).as_posix()
                       for path in root.glob('*/**/*') if path.suffix in ('.png', '.json')):
        total.update(name.encode())
        total.update((root / name).read_bytes())
    return total.hexdigest()


def _write_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image):
        raise OSError(f'could not write {path}')


# Pictures for people


def _show_class(scene: Scene) -> tuple[np.ndarray, str]:
    return scene.image, ' '.join(CLASSES[digit.label] for digit in scene.digits)


def _show_boxes(scene: Scene) -> tuple[np.ndarray, str]:
    image = scene.image.copy()
    for x1, y1, x2, y2 in (digit.box for digit in scene.digits):
        cv2.rectangle(image, (x1, y1), (x2 - 1, y2 - 1), (255, 0, 0))
    return image, _show_class(scene)[1]


def _show_map(scene: Scene) -> tuple[np.ndarray, str]:
    return overlay(scene.image, _label_map(scene), skip=(0, )), _show_class(scene)[1]


def overlay(image: np.ndarray, label_map: np.ndarray, skip: Collection[int] = (),
            palette: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """The picture with half of each labelled pixel's colour replaced by its label's.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_map: (H, W) integers, 0 or more.
        skip: labels whose pixels stay as they are.
        palette: see :func:`label_colours`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    mixed = image // 2 + label_colours(label_map, palette) // 2
    return np.where(np.isin(label_map, list(skip))[..., None], image, mixed)


def label_colours(label_map: np.ndarray, palette: Sequence[Sequence[int]] | None = None) -> np.ndarray:
    """The colour of each label, (H, W, 3) uint8 RGB.

    Args:
        label_map: (H, W) integers, 0 or more.
        palette: (r, g, b) of each label; None for hues, of which neighbouring labels have distant ones.
    """
    if palette is not None:
        return np.array(palette, np.uint8)[np.minimum(label_map, len(palette) - 1)]
    hues = (label_map.astype(int) * 67 % 180).astype(np.uint8)
    full = np.full_like(hues, 255)
    return cv2.cvtColor(np.dstack([hues, full, full]), cv2.COLOR_HSV2RGB)


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
