"""Tiny stand-ins for ImageNet-1K, CIFAR-100, COCO and ADE20K, laid out file by file as the real ones (docs/data.md)."""
from __future__ import annotations

import json
import pickle
from pathlib import Path

import cv2
import numpy as np
from mmpretrain.datasets import CIFAR100, categories
from sklearn.datasets import load_sample_images

#: COCO's category ids: 80 of 1 to 90, with gaps
COCO_IDS = [i for i in range(1, 91) if i not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


class CIFAR100WithoutSums(CIFAR100):
    """mmpretrain's CIFAR100, but for the MD5 sums: no other files than the real ones have those."""
    train_list, test_list = [['train', None]], [['test', None]]
    meta = dict(CIFAR100.meta, md5=None)


def make_imagenet(root: str | Path, train: int, val: int, seed: int = 0) -> None:
    """Writes ``root/{train,val,meta}``: 1,000 class folders, of which ``train`` hold a picture, and ``val`` pictures
    with their labels in ``meta/val.txt``.

    As in ImageNet-1K, some pictures are grey, one is CMYK, and one is a PNG that is called JPEG.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    folders = [root / f'train/n{10_000_000 + 1_000 * i}' for i in range(1000)]
    for folder in folders:
        folder.mkdir(parents=True)
    for number, label in enumerate(np.linspace(0, 999, train).astype(int)):
        folder, kind = folders[label], ('colour', 'grey', 'cmyk', 'png')[number if number < 4 else 0]
        _write(folder / f'{folder.name}_{number}.JPEG', _photo(rng, 375, 500), kind)
    (root / 'val').mkdir()
    (root / 'meta').mkdir()
    lines = []
    for number, label in enumerate(np.linspace(999, 0, val).astype(int), 1):
        name = f'ILSVRC2012_val_{number:08}.JPEG'
        _write(root / 'val' / name, _photo(rng, 500, 375), 'grey' if number == 2 else 'colour')
        lines.append(f'{name} {label}\n')
    (root / 'meta/val.txt').write_text(''.join(lines))


def make_cifar100(root: str | Path, train: int, val: int, seed: int = 0) -> None:
    """Writes ``root/cifar-100-python/{train,test,meta}``, the pickled batches of the Python version."""
    folder, rng = Path(root, 'cifar-100-python'), np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for split, count in (('train', train), ('test', val)):
        pictures = [cv2.resize(_photo(rng, 128, 128), (32, 32)) for _ in range(count)]
        labels = np.linspace(0, 99, count).astype(int).tolist()
        batch = dict(filenames=[f'{split}_{i:06}.png' for i in range(count)], batch_label=f'{split} batch 1 of 1',
                     fine_labels=labels, coarse_labels=[label % 20 for label in labels],
                     data=np.stack(pictures).transpose(0, 3, 1, 2).reshape(count, 3 * 32 * 32))
        (folder / split).write_bytes(pickle.dumps(batch, protocol=2))
    names = dict(fine_label_names=list(categories.CIFAR100_CATEGORIES), coarse_label_names=[str(i) for i in range(20)])
    (folder / 'meta').write_bytes(pickle.dumps(names, protocol=2))


def make_coco(root: str | Path, train: int, val: int, seed: int = 0) -> None:
    """Writes ``root/{train2017,val2017,annotations}`` with 80 categories; at least 3 pictures a split.

    The first picture has a crowd beside its objects, the second an odd size, the third is upright and grey, the last
    has only a crowd. Beside them are one without objects and, in training, one too small to be used: ``train`` counts
    neither, ``val`` the former.
    """
    from mmdet.datasets import CocoDataset
    root, rng = Path(root), np.random.default_rng(seed)
    names = CocoDataset.METAINFO['classes']
    for split, count in (('train', train), ('val', val)):
        (root / f'{split}2017').mkdir(parents=True)
        images, objects = [], []
        sizes = ([(480, 640), (427, 641), (640, 427)] + [(480, 640)] * count)[:count]
        filled = list(range(count - 1 if split == 'train' else count - 2))  # with objects; the last has a crowd alone
        sizes += [(480, 640), (30, 640)] if split == 'train' else []
        for number, (height, width) in enumerate(sizes):
            image = dict(license=1, file_name=f'{9 + 16 * number:012}.jpg', height=height, width=width,
                         id=9 + 16 * number, date_captured='2013-11-14 17:02:52')
            _write(root / f'{split}2017' / image['file_name'], _photo(rng, height, width),
                   'grey' if number == 2 else 'colour')
            images.append(image)
            if number in filled:  # all 80 categories over the split
                for category in COCO_IDS[filled.index(number)::len(filled)]:
                    objects.append(dict(_box(rng, height, width), category_id=category, image_id=image['id']))
            if number in (0, count - 1):
                objects.append(dict(_crowd(height, width), category_id=COCO_IDS[0], image_id=image['id']))
        for number, instance in enumerate(objects):
            instance['id'] = 900_100_000_000 + number
        (root / 'annotations').mkdir(exist_ok=True)
        (root / f'annotations/instances_{split}2017.json').write_text(json.dumps(dict(
            info=dict(description='miniature'), licenses=[dict(id=1, name='none', url='')], images=images,
            annotations=objects, categories=[dict(id=i, name=name, supercategory='thing')
                                             for i, name in zip(COCO_IDS, names)])))


def make_ade20k(root: str | Path, train: int, val: int, seed: int = 0) -> None:
    """Writes ``root/{images,annotations}/{training,validation}``: label maps of 0 (no class) and 1 to 150.

    All classes are in both splits. The second training picture has no class anywhere; sizes differ, some are odd.
    """
    root, rng = Path(root), np.random.default_rng(seed)
    for split, short, count in (('training', 'train', train), ('validation', 'val', val)):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = ((512, 683), (683, 512), (301, 447))[number % 3]
            rows, columns = np.mgrid[:15, :12]
            labels = (rows * 12 + columns).astype(np.uint8) % 151  # 0 to 150, and 29 of them twice
            labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
            name = f'ADE_{short}_{number + 1:08}'
            _write(root / f'images/{split}/{name}.jpg', _photo(rng, height, width), 'colour')
            cv2.imwrite(str(root / f'annotations/{split}/{name}.png'), labels * (split == 'validation' or number != 1))


def _photo(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A part of one of scikit-learn's two photographs, (height, width, 3) uint8 RGB."""
    photo = load_sample_images().images[rng.integers(2)]
    top, left = rng.integers(photo.shape[0] - 200), rng.integers(photo.shape[1] - 200)
    return cv2.resize(photo[top:top + 200, left:left + 200], (width, height))


def _write(path: Path, picture: np.ndarray, kind: str) -> None:
    if kind == 'cmyk':
        from PIL import Image
        Image.fromarray(picture).convert('CMYK').save(path, 'JPEG')
        return
    picture = picture[..., ::-1] if kind != 'grey' else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    path.write_bytes(cv2.imencode('.png' if kind == 'png' else '.jpg', picture)[1].tobytes())


def _box(rng: np.random.Generator, height: int, width: int) -> dict:
    w, h = rng.uniform(20, width / 2), rng.uniform(20, height / 2)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    box = [round(float(value), 2) for value in (x, y, w, h)]
    return dict(bbox=box, area=round(box[2] * box[3], 2), iscrowd=0,
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]])


def _crowd(height: int, width: int) -> dict:
    half = height * (width // 2)  # the right half, run-length encoded by columns
    return dict(bbox=[width // 2, 0, width - width // 2, height], area=height * width - half, iscrowd=1,
                segmentation=dict(counts=[half, height * width - half], size=[height, width]))
