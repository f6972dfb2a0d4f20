"""The stand-ins for real data sets are read by the libraries' own classes, and hold what is odd about the real ones."""
import json

import numpy as np
import pytest
from mmcv import imread
from mmengine.registry import DefaultScope
from mmpretrain.datasets import CIFAR100, ImageNet

from sfkd.datasets import miniature


def rows(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_imagenet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the configs look
    miniature.make_imagenet('data/imagenet', train=7, val=3)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        train, val = (ImageNet(data_root='data/imagenet', split=split) for split in ('train', 'val'))
    assert [row['gt_label'] for row in rows(train)] == [0, 166, 333, 499, 666, 832, 999]
    assert [row['gt_label'] for row in rows(val)] == [999, 499, 0]
    assert rows(val)[0]['img_path'] == 'data/imagenet/val/ILSVRC2012_val_00000001.JPEG'
    # Grey, CMYK and PNG too come as three channels, and there is something to see
    for row in rows(train):
        picture = imread(row['img_path'])
        assert picture.shape == (375, 500, 3) and picture.std() > 5
    grey = imread(rows(train)[1]['img_path'])
    assert (grey[..., 0] == grey[..., 2]).all()


def test_cifar100(tmp_path):
    miniature.make_cifar100(tmp_path, train=5, val=2)
    train, val = (miniature.CIFAR100WithoutSums(str(tmp_path), split) for split in ('train', 'test'))
    assert [row['gt_label'] for row in rows(train)] == [0, 24, 49, 74, 99] and len(rows(val)) == 2
    assert all(row['img'].shape == (32, 32, 3) and row['img'].dtype == np.uint8 for row in rows(train))
    assert len(train.CLASSES) == 100
    # what stands on disk is what the real class reads, but for its sums
    with pytest.raises(RuntimeError, match='Cannot find CIFAR100'):
        CIFAR100(str(tmp_path), 'train', download=False)


def test_coco(tmp_path):
    CocoDataset = pytest.importorskip('mmdet.datasets').CocoDataset
    miniature.make_coco(tmp_path, train=5, val=4)

    def read(split, **kwargs):
        return rows(CocoDataset(data_root=str(tmp_path), ann_file=f'annotations/instances_{split}2017.json',
                                data_prefix=dict(img=f'{split}2017/'), pipeline=[], **kwargs))
    train = read('train', filter_cfg=dict(filter_empty_gt=True, min_size=32))
    val = read('val', test_mode=True)
    on_disk = json.loads((tmp_path / 'annotations/instances_train2017.json').read_text())
    assert len(on_disk['images']) == 7 and len(train) == 5  # without the empty one and the small one
    for split in (train, val):
        labels = {instance['bbox_label'] for row in split for instance in row['instances']}
        assert labels == set(range(80))
        crowds = [[instance['ignore_flag'] for instance in row['instances']] for row in split]
        assert sum(crowds[0]) == 1 < len(crowds[0]) and crowds[-1] == [1]
        assert all(0 <= x1 < x2 <= row['width'] and 0 <= y1 < y2 <= row['height']
                   for row in split for x1, y1, x2, y2 in (instance['bbox'] for instance in row['instances']))
        assert all(imread(row['img_path']).shape[:2] == (row['height'], row['width']) for row in split)
    assert [len(row['instances']) for row in val] == [41, 40, 0, 1]
    assert {(row['height'], row['width']) for row in train} == {(480, 640), (427, 641), (640, 427)}


def test_ade20k(tmp_path):
    ADE20KDataset = pytest.importorskip('mmseg.datasets').ADE20KDataset
    miniature.make_ade20k(tmp_path, train=3, val=2)
    loaded = {}
    for split in ('training', 'validation'):
        with DefaultScope.overwrite_default_scope('mmseg'):
            dataset = ADE20KDataset(data_root=str(tmp_path), pipeline=[dict(type='LoadImageFromFile'),
                                                                      dict(type='LoadAnnotations')],
                                    data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'annotations/{split}'))
        loaded[split] = [dataset[i] for i in range(len(dataset))]
    for split in loaded.values():
        assert all(row['img'].shape[:2] == row['gt_seg_map'].shape for row in split)
        assert set(np.unique(split[0]['gt_seg_map'])) == {*range(150), 255}  # zero, reduced, is no class
    assert set(np.unique(loaded['training'][1]['gt_seg_map'])) == {255}
    assert len({row['img'].shape for row in loaded['training']}) == 3
