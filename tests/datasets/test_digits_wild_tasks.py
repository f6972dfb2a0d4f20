"""The detection and segmentation folders: the same scenes, exact annotations, and read and scored right by the
libraries' own classes.
"""
import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from pycocotools.coco import COCO

from sfkd.datasets import digits_wild
from sfkd.datasets.digits_wild import SEG_CLASSES, generate_det, generate_seg, overlay
from sfkd.datasets.scenes import CLASSES, SPLITS, SceneGenerator

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(train=24, val=20, test=20)
FEW = dict(train=2, val=1, test=1)
FOLDERS = dict(train='training', val='validation', test='test')
TASKS = dict(det=generate_det, seg=generate_seg)


def scene(split: str, index: int, seed: int = 0):
    size = digits_wild.SCENE_SIZES[index // 10 % 2]
    return SceneGenerator(split, seed, size, digits_wild.SCENE_DIGITS, digits_wild.SCENE_DIGIT_SIZE).scene(index)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob('*/**/*') if path.is_file()}


@pytest.fixture(scope='module', params=TASKS)
def task(request):
    return request.param


@pytest.fixture(scope='module')
def made(tmp_path_factory) -> dict[str, Path]:
    roots = {name: tmp_path_factory.mktemp('data') / name for name in TASKS}
    assert all(TASKS[name](root, counts=SMALL) for name, root in roots.items())
    return roots


@pytest.fixture(scope='module')
def coco(made) -> dict[str, COCO]:
    return {split: COCO(str(made['det'] / f'annotations/{split}.json')) for split in SPLITS}


@pytest.fixture
def config(made, task):
    """The base config on the small folder, in its library's scope."""
    config = Config.fromfile(ROOT / f'configs/_base_/datasets/digits_wild_{task}.py')
    for split in SPLITS:
        config[f'{split}_dataloader'].dataset.data_root = str(made[task])
        if task == 'det' and split != 'train':
            config[f'{split}_evaluator'].ann_file = str(made[task] / f'annotations/{split}.json')
    for part in ('datasets', 'evaluation'):
        importlib.import_module(f'{config.default_scope}.{part}')
    with DefaultScope.overwrite_default_scope(config.default_scope):
        yield config


# Annotations


def test_boxes_areas_and_masks_are_those_of_the_scenes(made, coco):
    for split, count in SMALL.items():
        api = coco[split]
        assert api.getImgIds() == list(range(count))
        assert [(cat['id'], cat['name']) for cat in api.loadCats(api.getCatIds())] == list(enumerate(CLASSES, 1))
        for image in api.loadImgs(api.getImgIds()):
            wanted = scene(split, image['id'])
            stored = cv2.imread(str(made['det'] / split / image['file_name']))[..., ::-1]
            assert np.array_equal(stored, wanted.image) and stored.shape == (image['height'], image['width'], 3)
            annotations = api.loadAnns(api.getAnnIds(image['id']))
            assert len(annotations) == len(wanted.digits) > 0
            for ann, digit in zip(annotations, wanted.digits):
                mask = api.annToMask(ann).astype(bool)
                ys, xs = np.nonzero(mask)
                assert np.array_equal(mask, digit.mask) and ann['category_id'] == digit.label + 1
                assert ann['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
                assert ann['area'] == mask.sum() and ann['iscrowd'] == 0
        ids = api.getAnnIds()
        assert len(set(ids)) == len(ids) and min(ids) == 1


def test_label_maps_are_the_masks_of_detection(made, coco):
    for split, count in SMALL.items():
        for index in range(count):
            name = f'{FOLDERS[split]}/{index:06}.png'
            ours, theirs = made['seg'] / 'images' / name, made['det'] / split / f'{index:06}.png'
            assert ours.read_bytes() == theirs.read_bytes()
            label_map = cv2.imread(str(made['seg'] / 'annotations' / name), cv2.IMREAD_UNCHANGED)
            wanted = np.zeros_like(label_map)
            for ann in coco[split].imgToAnns[index]:
                wanted[coco[split].annToMask(ann) == 1] = ann['category_id']
            assert label_map.dtype == np.uint8 and np.array_equal(label_map, wanted) and 0 < (wanted > 0).mean() < 1


def test_digits_have_different_sizes_overlap_and_fill_two_shapes(coco):
    api = coco['train']
    for shape in digits_wild.SCENE_SIZES:
        images = [image['id'] for image in api.dataset['images'] if (image['height'], image['width']) == shape]
        assert len(images) >= 10 and {index % 10 for index in images} == set(range(10))
    heights = np.array([ann['bbox'][3] for ann in api.dataset['annotations']])
    assert heights.min() < 22 and heights.max() > 50
    boxes = [torch.tensor([ann['bbox'] for ann in anns]) for anns in api.imgToAnns.values()]
    gaps = [(a[:2] - b[:2] < b[2:]).all() and (b[:2] - a[:2] < a[2:]).all() for some in boxes for a in some
            for b in some if a is not b]
    assert len(boxes) == SMALL['train'] and any(gaps)


def test_splits_share_no_picture_and_no_scan(made, task):
    kind = {'det': '{split}/*.png', 'seg': 'images/{folder}/*.png'}[task]
    pictures = [{path.read_bytes() for path in made[task].glob(kind.format(split=split, folder=FOLDERS[split]))}
                for split in SPLITS]
    assert [len(some) for some in pictures] == list(SMALL.values()) and len(set.union(*pictures)) == sum(SMALL.values())
    scans = [{digit.source for index in range(SMALL[split]) for digit in scene(split, index).digits}
             for split in SPLITS]
    assert len(set.union(*scans)) == sum(map(len, scans))


# The folder


def test_same_seed_same_bytes(made, task, tmp_path):
    TASKS[task](tmp_path / 'same', counts=SMALL)
    TASKS[task](tmp_path / 'other', seed=1, counts=SMALL)
    ours, other = files(made[task]), files(tmp_path / 'other')
    assert files(tmp_path / 'same') == ours
    assert (tmp_path / 'same/meta.json').read_text() == (made[task] / 'meta.json').read_text()
    assert other.keys() == ours.keys() and not any(other[name] == ours[name] for name in ours)


def test_a_complete_folder_is_left_alone_and_a_damaged_one_is_told(task, tmp_path):
    root = tmp_path / task
    assert TASKS[task](root, counts=FEW) and not TASKS[task](root, counts=FEW)
    with pytest.raises(FileExistsError, match='digit_size'):
        TASKS[task](root, counts=FEW, digit_size=(20, 30))
    path = root / dict(det='annotations/val.json', seg='annotations/validation/000000.png')[task]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileExistsError, match='damaged'):
        TASKS[task](root, counts=FEW)
    assert TASKS[task](root, counts=FEW, overwrite=True) and [path.name for path in tmp_path.iterdir()] == [task]


def test_an_interrupted_run_leaves_nothing_that_looks_complete(task, tmp_path):
    def stop(split, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TASKS[task](tmp_path / task, counts=FEW, progress=stop)
    assert not (tmp_path / task).exists() and not list(tmp_path.rglob('meta.json'))
    assert TASKS[task](tmp_path / task, counts=FEW)


@pytest.mark.parametrize('wrong', [
    dict(sizes=()), dict(sizes=[(8, 8)]), dict(digits_per_image=(0, 3)), dict(digit_size=(9, 3)), dict(seed=-1),
    dict(counts=dict(train=1))], ids=lambda wrong: ' '.join(wrong))
def test_wrong_settings_make_nothing(task, wrong, tmp_path):
    with pytest.raises(ValueError):
        TASKS[task](tmp_path / task, **dict(dict(counts=FEW), **wrong))
    assert not list(tmp_path.iterdir())


# mmdet and mmseg


def test_the_libraries_read_it(config, task):
    for split, count in SMALL.items():
        dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
        assert len(dataset) == count and tuple(dataset.metainfo['classes']) == dict(det=CLASSES, seg=SEG_CLASSES)[task]
        for index in (3, 13):
            item, wanted = dataset[index], scene(split, index)
            if split != 'train':
                assert np.array_equal(item['inputs'].permute(1, 2, 0).numpy()[..., ::-1], wanted.image)
            labels = [digit.label for digit in wanted.digits]
            if task == 'det':
                truth = item['data_samples'].gt_instances
                assert truth.labels.tolist() == labels
                if split != 'train':
                    assert truth.bboxes.tensor.tolist() == [list(digit.box) for digit in wanted.digits]
            elif split != 'train':
                seen = item['data_samples'].gt_sem_seg.data.unique().tolist()
                assert seen == [0, *sorted({label + 1 for label in labels})]
            else:
                assert item['inputs'].shape[1:] == item['data_samples'].gt_sem_seg.shape


@pytest.mark.parametrize('task', ['seg'], indirect=True)
def test_background_can_be_ignored_instead(config):
    dataset = config.val_dataloader.dataset
    dataset.update(reduce_zero_label=True, metainfo=dict(classes=CLASSES, palette=config.palette[1:]))
    seen = DATASETS.build(dataset)[3]['data_samples'].gt_sem_seg.data.unique().tolist()
    assert seen == [*sorted({digit.label for digit in scene('val', 3).digits}), 255]


def test_a_batch_of_two_shapes_is_padded_and_normalised(config, task):
    """As the runner loads it, through the library's own preprocessor."""
    importlib.import_module(f'{config.default_scope}.models')
    config.train_dataloader.update(num_workers=0)
    batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
    assert len({item.shape for item in batch['inputs']}) > 1
    done = MODELS.build(config.data_preprocessor)(batch, training=True)
    height, width = done['inputs'].shape[2:]
    assert done['inputs'].shape[:2] == (8, 3) and height % 32 == width % 32 == 0
    for picture, raw, sample in zip(done['inputs'], batch['inputs'], done['data_samples']):
        h, w = sample.img_shape if task == 'det' else raw.shape[1:]
        assert torch.equal(picture[:, :h, :w], (raw[[2, 1, 0]] - 127.5) / 64)
        assert not picture[:, h:].any() and not picture[:, :, w:].any()
        if task == 'seg':
            label_map = sample.gt_sem_seg.data[0]
            assert (label_map[h:] == 255).all() and (label_map[:, w:] == 255).all() and (label_map[:h, :w] <= 10).all()


def perfect(config, task: str, split: str):
    """Samples that predict the annotations themselves."""
    if task == 'det':
        config[f'{split}_dataloader'].dataset.pipeline[2].with_mask = True
    samples = [item['data_samples'] for item in DATASETS.build(config[f'{split}_dataloader'].dataset)]
    for sample in samples:
        if task == 'det':
            truth = sample.gt_instances
            sample.pred_instances = InstanceData(
                bboxes=truth.bboxes.tensor, labels=truth.labels, scores=torch.ones(len(truth.labels)),
                masks=torch.from_numpy(truth.masks.masks.astype(bool)))
        else:
            sample.pred_sem_seg = PixelData(data=sample.gt_sem_seg.data.clone())
    return samples


def score(config, task: str, split: str, samples: list) -> dict:
    settings = dict(config[f'{split}_evaluator'])
    evaluator = Evaluator(dict(settings, metric=['bbox', 'segm']) if task == 'det' else settings)
    evaluator.dataset_meta = DATASETS.build(config[f'{split}_dataloader'].dataset).metainfo
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


@pytest.mark.parametrize('split', ['val', 'test'])
def test_perfect_predictions_score_full_marks(config, task, split):
    samples = perfect(config, task, split)
    result = score(config, task, split, samples)
    if task == 'det':
        assert result['coco/bbox_mAP'] == result['coco/segm_mAP'] == result['coco/bbox_mAP_75'] == 1
    else:
        assert result['mIoU'] == result['aAcc'] == 100


def test_wrong_predictions_do_not(config, task):
    samples = perfect(config, task, 'val')
    for sample in samples:
        if task == 'det':
            sample.pred_instances.labels = (sample.pred_instances.labels + 1) % 10
        else:
            sample.pred_sem_seg.data[:] = 0
    result = score(config, task, 'val', samples)
    assert result['coco/bbox_mAP'] < 0.2 if task == 'det' else result['mIoU'] < 100 / 11


# The tools


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'tools')


def test_make_tool(tools, task, tmp_path, monkeypatch, capsys):
    import make_digits_wild
    counts = [text for split, count in FEW.items() for text in (f'--{split}', str(count))]
    monkeypatch.setattr(sys, 'argv', ['make_digits_wild.py', task, '--out', str(tmp_path), *counts])
    make_digits_wild.main()
    assert '4 pictures' in capsys.readouterr().out
    make_digits_wild.main()
    assert 'nothing to do' in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / task / 'contact_sheet.png')).shape == (182, 8 * 166, 3)


def test_browse_tool(tools, made, task, tmp_path, monkeypatch, capsys):
    import browse_dataset
    sheet = tmp_path / 'sheet.png'
    monkeypatch.setattr(sys, 'argv', [
        'browse_dataset.py', str(ROOT / f'configs/_base_/datasets/digits_wild_{task}.py'), '--number', '12', '--out',
        str(sheet), '--cfg-options', f'train_dataloader.dataset.data_root={made[task]}'])
    browse_dataset.main()
    assert f'12 of {SMALL["train"]}' in capsys.readouterr().out
    assert cv2.imread(str(sheet)).shape == (2 * 150, 10 * 134, 3)


def test_overlay_colours_labels_and_leaves_the_rest():
    image = np.full((4, 6, 3), 100, np.uint8)
    label_map = np.array([[0, 0, 1, 1, 2, 10]] * 4)
    shown = overlay(image, label_map, skip=(0, ))
    assert np.array_equal(shown[:, :2], image[:, :2])
    assert len({tuple(colour) for colour in shown[0, 2:].tolist()}) == 3 and image.min() == 100
