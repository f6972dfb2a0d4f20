"""PictureFolder: any folder tree, in OpenMMLab's pipelines and in plain PyTorch, whatever lies in it."""
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from PIL import ExifTags, Image
from torch.utils.data import DataLoader

from sfkd import PictureFolder
from sfkd.datasets.checking import check_dataset, named
from sfkd.errors import ConfigError
from sfkd.registry import DATASETS

FILES = ['b.JPG', 'a/2.png', 'a/10.png', 'a/deep/er/x.webp', 'c.bmp']


def value(name: str) -> int:
    return 20 * FILES.index(name) + 10


@pytest.fixture
def tree(tmp_path):
    """Pictures of one grey value each, which says which it is, and what is none."""
    for name in FILES:
        file = tmp_path / 'tree' / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 16, 3), value(name), np.uint8)).save(file)
    (tmp_path / 'tree/notes.txt').write_text('no picture')
    (tmp_path / 'tree/._b.jpg').write_text('what a Mac leaves')
    (tmp_path / 'tree/a/loop').symlink_to(tmp_path / 'tree')
    return tmp_path / 'tree'


def grey(picture: Image.Image) -> int:
    return int(np.asarray(picture)[6, 8, 0])


def test_every_picture_once_in_the_order_of_names(tree):
    data = PictureFolder(tree, transform=grey)
    assert [data.get_data_info(i)['img_path'] for i in range(len(data))] == [
        str(tree / name) for name in ('b.JPG', 'c.bmp', 'a/10.png', 'a/2.png', 'a/deep/er/x.webp')]
    assert list(data) == pytest.approx([value(name) for name in (
        'b.JPG', 'c.bmp', 'a/10.png', 'a/2.png', 'a/deep/er/x.webp')], abs=2)
    with pytest.raises(IndexError):
        data[5]


def test_a_picture_is_rgb_whatever_its_file_is(tmp_path):
    Image.new('L', (4, 4), 7).save(tmp_path / '1.png')
    Image.new('RGBA', (4, 4), (1, 2, 3, 100)).save(tmp_path / '2.png')
    Image.new('CMYK', (4, 4)).save(tmp_path / '3.jpg')
    assert [picture.mode for picture in PictureFolder(tmp_path)] == ['RGB'] * 3
    assert PictureFolder(tmp_path)[0].getpixel((1, 1)) == (7, 7, 7)


def test_of_sixteen_bits_the_high_ones_are_taken(tmp_path):
    values = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)  # 0x0000, 0x0101, ...
    values[0, 1] = 0x01ff
    Image.fromarray(values).save(tmp_path / '1.png')
    Image.fromarray(values).save(tmp_path / '2.tif')
    Image.fromarray(values.astype('>u2')).save(tmp_path / '3.tif')
    (tmp_path / '4.pgm').write_bytes(b'P5\n16 16\n65535\n' + values.astype('>u2').tobytes())
    for picture in PictureFolder(tmp_path):
        assert picture.mode == 'RGB'
        assert np.array_equal(np.asarray(picture), np.arange(256).reshape(16, 16, 1).repeat(3, 2))


def test_values_without_a_known_range_are_named_and_replaced(tmp_path, logged):
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    Image.fromarray(values).save(tmp_path / '1.tif')
    Image.fromarray(values.astype(np.int32)).save(tmp_path / '2.tif')
    Image.new('L', (4, 4), 7).save(tmp_path / '3.png')
    assert list(PictureFolder(tmp_path, transform=lambda picture: picture.getpixel((1, 1))[0])) == [7, 7, 7]
    assert '1.tif' in logged()[0] and 'cannot be read (floats, whose black and white are unknown' in logged()[0]
    assert '2.tif' in logged()[1] and 'cannot be read (whole numbers of 32 bits, whose' in logged()[1]


@pytest.mark.parametrize('orientation', range(9))
@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_a_picture_stands_as_its_exif_data_says(tmp_path, orientation, suffix):
    values = np.zeros((16, 32), np.uint8)
    values[:8, :16], values[:8, 16:] = 200, 100  # above: light, then grey; below: black
    turned = {0: values, 1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: values.T,
              6: np.rot90(values), 7: values[::-1, ::-1].T, 8: np.rot90(values, -1)}[orientation]
    exif = Image.Exif()
    if orientation:  # 0: without such a tag
        exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f'a{suffix}', exif=exif)
    found = np.asarray(PictureFolder(tmp_path)[0])[..., 0]
    assert found.shape == (16, 32) and np.abs(found.astype(int) - values).max() <= 8


def test_damaged_exif_data_spoils_no_picture(tmp_path):
    Image.new('L', (4, 4), 7).save(tmp_path / 'a.png', exif=b'Exif\0\0no TIFF header at all')
    assert PictureFolder(tmp_path)[0].getpixel((1, 1)) == (7, 7, 7)


def spoil(tree):
    whole = (tree / 'c.bmp').read_bytes()
    (tree / 'a/2.png').write_bytes(b'')
    (tree / 'a/10.png').write_text('text')
    (tree / 'c.bmp').write_bytes(whole[:80])


@pytest.fixture
def logged(tmp_path):
    """What this process and its data workers log: a file, which they share."""
    handler, logger = logging.FileHandler(tmp_path / 'log'), MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('INFO')  # a runner of an earlier test may have made a quieter one
    logger.addHandler(handler)
    yield lambda: [line for line in (tmp_path / 'log').read_text().splitlines() if line.startswith('PictureFolder')]
    logger.removeHandler(handler)
    logger.setLevel(level)
    handler.close()


def test_what_cannot_be_read_is_named_once_and_replaced(tree, logged):
    spoil(tree)
    data = PictureFolder(tree, transform=grey)
    assert len(data) == 5
    expected = [value('b.JPG'), *[value('a/deep/er/x.webp')] * 4]  # the next one that can be read
    assert list(data) == pytest.approx(expected, abs=2) and list(data) == list(data)
    assert len(logged()) == 3
    reasons = {'c.bmp': 'truncated', 'a/10.png': 'cannot identify', 'a/2.png': 'an empty file'}
    for line, (name, why) in zip(logged(), reasons.items()):
        assert str(tree / name) in line and why in line and 'another picture takes its place' in line


def test_a_file_that_is_gone_is_named_and_replaced(tree, logged):
    (tree / 'a/1.png').symlink_to(tree / 'nowhere.png')
    data = PictureFolder(tree, transform=grey)
    (tree / 'c.bmp').unlink()
    ten = value('a/10.png')
    assert list(data)[:4] == pytest.approx([value('b.JPG'), ten, ten, ten], abs=2)
    assert len(logged()) == 2 and all('cannot be read (No such file or directory)' in line for line in logged())
    assert str(tree / 'c.bmp') in logged()[0] and str(tree / 'a/1.png') in logged()[1]


def test_the_first_takes_the_place_of_the_last(tree):
    (tree / 'a/deep/er/x.webp').write_bytes(b'')
    assert PictureFolder(tree, transform=grey)[4] == pytest.approx(value('b.JPG'), abs=2)


def test_workers_of_a_later_epoch_do_not_name_it_again(tree, logged):
    spoil(tree)
    loader = DataLoader(PictureFolder(tree, transform=grey), 2, num_workers=1)
    seen = [torch.cat(list(loader)).tolist() for _ in range(3)]
    assert seen[0] == seen[1] == seen[2] and len(seen[0]) == 5
    assert sum('an empty file' in line for line in logged()) == 1


def test_a_mistake_of_the_transform_is_no_broken_picture(tree):
    with pytest.raises(ZeroDivisionError):
        PictureFolder(tree, transform=lambda picture: 1 / 0)[0]


def test_nothing_to_read(tree, tmp_path):
    with pytest.raises(ConfigError, match="data_root: there is no folder '.*nowhere'"):
        PictureFolder(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ConfigError, match="data_root: there is no picture in '.*empty' and below"):
        PictureFolder(tmp_path / 'empty')
    with pytest.raises(ConfigError, match='leave out one of the two'):
        PictureFolder(tree, [dict(type='LoadImageFromFile')], transform=grey)
    for name in FILES:
        (tree / name).write_bytes(b'')
    with pytest.raises(ConfigError, match='none of the 5 pictures .* can be read'):
        PictureFolder(tree)[0]


RESIZE = dict(type='RandomResize', scale=(32, 24), ratio_range=(0.8, 1.2), keep_ratio=True)
PIPELINES = dict(
    mmpretrain=[dict(type='RandomResizedCrop', scale=8), dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')],
    mmdet=[RESIZE, dict(type='RandomFlip', prob=0.5),
           dict(type='PhotoMetricDistortion'), dict(type='PackDetInputs')],
    mmseg=[RESIZE, dict(type='RandomCrop', crop_size=(8, 8)),
           dict(type='RandomFlip', prob=0.5), dict(type='PackSegInputs')])


@pytest.mark.parametrize('scope', PIPELINES)
def test_in_the_pipelines_of_the_three_libraries(tree, scope, logged):
    __import__(f'{scope}.datasets')
    spoil(tree)
    with DefaultScope.overwrite_default_scope(scope):
        data = DATASETS.build(dict(type='sfkd.PictureFolder', data_root=str(tree),
                                   pipeline=[dict(type='LoadImageFromFile'), *PIPELINES[scope]]))
    named(data, 10, 'train_dataloader.dataset')  # as DataCheckHook does
    items = [data[i] for i in range(len(data))]
    assert {item['inputs'].shape[0] for item in items} == {3} and all(item['inputs'].any() for item in items)
    assert [item['data_samples'].img_path for item in items[1:]] == [str(tree / 'a/deep/er/x.webp')] * 4
    assert len(logged()) == 3
    assert 'gt_label' not in items[0]['data_samples'] and 'gt_sem_seg' not in items[0]['data_samples']
    assert check_dataset(data, 10, 'here') == ([], [])
    (tree / 'b.JPG').unlink()
    assert '1 of 5 files (img_path) are not there' in check_dataset(data, 10, 'here')[0][0]


def test_neither_mmcv_nor_torchvision_is_imported(tree):
    code = (f"import sys, sfkd; data = sfkd.PictureFolder({str(tree)!r}, transform=lambda x: x.size); "
            "assert data[0] == (16, 12); sys.exit(bool({'mmcv', 'torchvision'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
