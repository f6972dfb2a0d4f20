"""The embedded benchmark: reproducible, without leaks between splits, consistent, and never half made."""
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from sklearn.datasets import load_digits

from sfkd.datasets import scenes
from sfkd.datasets.digits_wild import MAKE_COMMAND, contact_sheet, generate_cls
from sfkd.datasets.scenes import CLASSES, SPLITS, SceneGenerator, split_digits
from sfkd.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(train=20, val=10, test=10)
# The first three one-digit scenes of each split, seed 0
SOURCES = [49, 1040, 1272, 1445, 433, 1547, 1099, 1514, 333]
BOXES = [(2, 10, 41, 59), (42, 27, 61, 59), (17, 18, 49, 62), (6, 32, 22, 62), (36, 12, 59, 56), (22, 14, 52, 45),
         (34, 8, 58, 49), (11, 9, 47, 60), (22, 11, 50, 48)]
MEANS = [72.72, 27.85, 89.38, 58.54, 84.02, 36.67, 34.95, 107.82, 133.6]


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob('*/*/*.png')}


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp('data') / 'cls'
    assert generate_cls(root, counts=SMALL)
    return root


def crowded(split='train', **kwargs) -> SceneGenerator:
    return SceneGenerator(split, **dict(dict(size=(120, 160), digits_per_image=(2, 9), digit_size=(20, 80)), **kwargs))


# Scans and photographs


def test_splits_share_no_scan():
    rows = split_digits()
    assert np.array_equal(np.sort(np.concatenate([rows[split] for split in SPLITS])), np.arange(1797))
    scans = [{scan.tobytes() for scan in load_digits().data[rows[split]]} for split in SPLITS]
    assert len(set.union(*scans)) == sum(map(len, scans)) == 1797  # not even two rows with the same picture


def test_every_class_is_split_60_20_20():
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2)):
        counts = np.bincount(load_digits().target[split_digits()[split]], minlength=10)
        assert np.abs(counts / np.bincount(load_digits().target) - share).max() < 0.01


@pytest.mark.parametrize('split', SPLITS)
def test_scenes_use_only_scans_of_their_split(split):
    generator = crowded(split)
    for digit in (digit for i in range(10) for digit in generator.scene(i).digits):
        assert digit.source in split_digits()[split]
        assert digit.label == load_digits().target[digit.source]


def test_splits_share_no_column_of_a_photograph():
    for photo, strips in zip(scenes.load_sample_images().images, zip(*map(scenes._strips, SPLITS))):
        assert np.array_equal(np.concatenate(strips, axis=1), photo)


# Determinism


def test_a_scene_depends_on_seed_split_and_index_alone():
    forth, back = SceneGenerator('train'), SceneGenerator('train')
    scenes = [forth.scene(i) for i in range(6)]
    for i in reversed(range(6)):
        again = back.scene(i)
        assert np.array_equal(again.image, scenes[i].image)
        assert np.array_equal(again.digits[0].mask, scenes[i].digits[0].mask)


@pytest.mark.parametrize('other', [dict(seed=1), dict(split='val')])
def test_another_seed_or_split_gives_other_pictures(other):
    first, second = SceneGenerator('train', seed=0), SceneGenerator(**dict(dict(split='train', seed=0), **other))
    assert not any(np.array_equal(first.scene(i).image, second.scene(i).image) for i in range(5))


def test_pictures_stay_what_they_were():
    """Results and shipped teachers refer to these. Whoever changes them on purpose raises GENERATOR_VERSION."""
    assert scenes.GENERATOR_VERSION == 1
    first = [SceneGenerator(split).scene(i) for split in SPLITS for i in range(3)]
    assert [scene.digits[0].source for scene in first] == SOURCES
    assert [scene.digits[0].box for scene in first] == BOXES
    # Interpolation may round otherwise on another processor, hence no checksum
    assert np.allclose([scene.image.mean() for scene in first], MEANS, atol=0.1)


# Masks and boxes


@pytest.mark.parametrize('generator', [SceneGenerator('train'), crowded(), crowded(size=32, digit_size=(60, 90))],
                         ids=['one', 'crowded', 'too large to fit'])
def test_masks_and_boxes_agree(generator):
    for i in range(15):
        scene = generator.scene(i)
        assert scene.image.shape == (*generator.size, 3) and scene.image.dtype == np.uint8
        assert 1 <= len(scene.digits) <= generator.digits_per_image[1]
        assert scene.digits[0].label == i % 10
        for digit in scene.digits:
            ys, xs = np.nonzero(digit.mask)
            assert digit.mask.shape == generator.size and digit.mask.dtype == bool
            assert digit.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        # Where digits overlap only the uppermost is seen
        assert np.sum([digit.mask for digit in scene.digits], axis=0).max() == 1


def test_covered_digits_stay_mostly_visible(monkeypatch):
    """Painting the same scene while noting whole masks: overlap happens, and never takes more than it may."""
    whole = []
    find_place = SceneGenerator._find_place

    def note(self, rng, mask, others, areas):
        spot = find_place(self, rng, mask, others, areas)
        if spot is not None:
            whole.append(int(mask.sum()))
        return spot

    monkeypatch.setattr(SceneGenerator, '_find_place', note)
    visible = [int(digit.mask.sum()) for i in range(15) for digit in crowded().scene(i).digits]
    shares = np.array(visible) / whole
    assert shares.min() >= scenes._MIN_VISIBLE and shares.max() == 1
    assert (shares < 1).any()


def test_a_digit_is_where_its_mask_says():
    """The colour under the mask differs from that around it."""
    for i in range(20):
        scene = SceneGenerator('test').scene(i)
        mask = scene.digits[0].mask
        around = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~cv2.dilate(
            mask.astype(np.uint8), np.ones((5, 5))).astype(bool)
        inside, outside = (np.median(scene.image[where].astype(float), 0) for where in (mask, around))
        assert abs(inside - outside).max() > 20


@pytest.mark.parametrize('wrong, word', [
    (dict(split='training'), 'split'), (dict(seed=-1), 'seed'), (dict(size=8), 'pixels'),
    (dict(digits_per_image=0), 'digits_per_image'), (dict(digits_per_image=(3, 2)), 'digits_per_image'),
    (dict(digit_size=(0, 20)), 'digit_size')])
def test_wrong_settings_are_named(wrong, word):
    with pytest.raises(ValueError, match=word):
        SceneGenerator(**dict(dict(split='train'), **wrong))


# The folder


def test_classes_are_balanced(made):
    for split, count in SMALL.items():
        assert [len(list((made / split / name).iterdir())) for name in CLASSES] == [count // 10] * 10


def test_files_hold_the_scenes_exactly(made):
    stored = cv2.imread(str(made / 'val/7/000007.png'))[..., ::-1]
    assert np.array_equal(stored, SceneGenerator('val').scene(7).image)


def test_same_seed_same_bytes_and_any_prefix(made, tmp_path):
    generate_cls(tmp_path / 'same', counts=SMALL)
    generate_cls(tmp_path / 'fewer', counts=dict(train=7, val=3, test=0))
    generate_cls(tmp_path / 'other', seed=1, counts=SMALL)
    ours, fewer, other = files(made), files(tmp_path / 'fewer'), files(tmp_path / 'other')
    assert files(tmp_path / 'same') == ours
    assert (tmp_path / 'same/meta.json').read_text() == (made / 'meta.json').read_text()
    assert len(fewer) == 10 and fewer.items() <= ours.items()
    assert other.keys() == ours.keys() and not any(other[name] == ours[name] for name in ours)


def test_mmpretrain_reads_it(made):
    from mmpretrain.datasets import CustomDataset
    for split, count in SMALL.items():
        dataset = CustomDataset(data_root=str(made), data_prefix=split, pipeline=[])
        assert len(dataset) == count
        assert tuple(dataset.metainfo['classes']) == CLASSES
        for i in range(count):
            item = dataset.get_data_info(i)
            assert Path(item['img_path']).parent.name == CLASSES[item['gt_label']]


def test_a_complete_folder_is_left_alone(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob('*')}
    assert not generate_cls(made, counts=SMALL)
    assert {path: path.stat().st_mtime_ns for path in made.rglob('*')} == before


def test_an_interrupted_run_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    root = tmp_path / 'cls'

    def stop(split, done, total):
        if (split, done) == ('val', 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate_cls(root, counts=SMALL, progress=stop)
    assert not root.exists() and not list(tmp_path.rglob('meta.json'))
    assert generate_cls(root, counts=SMALL)  # and the next run is not misled by the remains
    assert len(files(root)) == 40 and [path.name for path in tmp_path.iterdir()] == ['cls']


def test_other_content_is_never_replaced_unasked(tmp_path):
    root = tmp_path / 'cls'
    few = dict(train=2, val=1, test=1)
    generate_cls(root, counts=few)
    with pytest.raises(FileExistsError) as error:
        generate_cls(root, seed=5, counts=few)
    assert all(word in str(error.value) for word in (str(root), "'seed': 0", "'seed': 5", '--overwrite'))
    assert not generate_cls(root, counts=few)

    (root / 'meta.json').unlink()
    with pytest.raises(FileExistsError, match='no meta.json'):
        generate_cls(root, counts=few)
    assert generate_cls(root, seed=5, counts=few, overwrite=True)
    assert not generate_cls(root, seed=5, counts=few)


@pytest.mark.parametrize('harm', [Path.unlink, lambda path: path.write_bytes(b'')], ids=['missing', 'truncated'])
def test_a_damaged_folder_is_not_taken_as_complete(tmp_path, harm):
    few = dict(train=2, val=1, test=1)
    generate_cls(tmp_path / 'cls', counts=few)
    harm(tmp_path / 'cls/train/1/000001.png')
    with pytest.raises(FileExistsError, match='damaged'):
        generate_cls(tmp_path / 'cls', counts=few)


@pytest.mark.parametrize('counts', [dict(train=1), dict(train=1, val=-1, test=1)])
def test_wrong_counts_make_nothing(tmp_path, counts):
    with pytest.raises(ValueError, match='counts'):
        generate_cls(tmp_path / 'cls', counts=counts)
    assert not list(tmp_path.iterdir())


# The tools


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')


def test_make_tool(tool, tools, tmp_path, monkeypatch, capsys):
    arguments = [*MAKE_COMMAND.split()[1:], '--out', str(tmp_path), '--train', '12', '--val', '2', '--test', '2']
    assert '16 pictures' in tool(*arguments)
    assert cv2.imread(str(tmp_path / 'cls/contact_sheet.png')) is not None

    import make_digits_wild
    monkeypatch.setattr(sys, 'argv', arguments)
    make_digits_wild.main()
    assert 'nothing to do' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', [*arguments, '--seed', '1'])
    with pytest.raises(SystemExit, match='--overwrite'):
        make_digits_wild.main()


def test_browse_tool_needs_no_model(tool, made, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f'''
_base_ = {str(ROOT / 'configs/_base_/datasets/digits_wild_cls.py')!r}
model = dict(type='SFKD', student='nowhere.py', teacher='nowhere.py')
train_dataloader = dict(dataset=dict(data_root={str(made)!r}))
''')
    assert '12 of 20' in tool('tools/browse_dataset.py', config, '--number', 12, '--cell', 64, '--out',
                              tmp_path / 'new/sheet.png')
    assert cv2.imread(str(tmp_path / 'new/sheet.png')).shape == (2 * 86, 700, 3)


@pytest.fixture
def browse(tools):
    import browse_dataset
    return browse_dataset


def test_browse_names_what_is_missing(browse, made):
    with pytest.raises(ConfigError, match='test_dataloader'):
        browse.build_dataset(Config(dict(train_dataloader=None)), 'test')
    with pytest.raises(ConfigError, match='digits_wild/none'):
        browse.build_dataset(Config(dict(val_dataloader=dict(dataset=dict(data_root='digits_wild/none')))), 'val')


class Sample(SimpleNamespace):
    """Answers ``in`` as mmengine's data elements do."""

    def __contains__(self, name):
        return hasattr(self, name)


def test_browse_draws_boxes_and_label_maps(browse):
    image = np.zeros((32, 32, 3), np.uint8)
    instances = SimpleNamespace(labels=torch.tensor([1, 0]),
                                bboxes=torch.tensor([[2., 3., 12., 13.], [20., 20., 30., 30.]]))
    drawn, names = browse.annotate(image.copy(), Sample(gt_instances=instances), ['cat', 'dog'])
    assert names == 'dog cat' and drawn[3, 2:12, 0].all() and drawn[12, 11, 0] and not drawn[13:20].any()

    label_map = torch.full((1, 32, 32), 255)
    label_map[:, :16] = 1
    drawn, names = browse.annotate(image.copy(), Sample(gt_sem_seg=SimpleNamespace(data=label_map)), ['cat', 'dog'])
    assert names == 'dog' and drawn[:16].any(-1).all() and not drawn[16:].any()


def test_browse_shows_true_colours(browse):
    blue_in_bgr = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 5)
    assert browse.picture(blue_in_bgr)[0, 0].tolist() == [0, 0, 255]
    assert browse.picture(blue_in_bgr, rgb=True)[0, 0].tolist() == [255, 0, 0]
    assert browse.picture(blue_in_bgr / 100. - 1).shape == (4, 5, 3)


def test_contact_sheet_takes_any_size():
    sheet = contact_sheet([np.zeros((10, 20, 3), np.uint8), np.zeros((200, 90, 3), np.uint8)], ['a', 'b'], columns=1,
                          cell=40)
    assert sheet.shape == (2 * 62, 46, 3)
    assert not sheet[:20, :40].any() and not sheet[62:102, :18].any() and (sheet[20:40] == 255).all()
