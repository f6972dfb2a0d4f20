"""Bad data through tools/train.py: what is wrong is named (file, index, class), all of it together, and what
mmdetection leaves out is counted.
"""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

from sfkd.datasets.checking import SampleError, check_dataset, classes_of, leaves_of, named
from sfkd.datasets.digits_wild import generate_cls, generate_det, generate_seg
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import check_data
from sfkd.registry import DATASETS

COUNTS = dict(train=6, val=2, test=2)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Whole data of the three tasks."""
    folder = tmp_path_factory.mktemp('data')
    for task, generate in dict(cls=generate_cls, det=generate_det, seg=generate_seg).items():
        generate(folder / task, counts=COUNTS)
    return folder


@pytest.fixture
def data(whole, tmp_path):
    """A copy that a test may spoil."""
    import shutil
    return Path(shutil.copytree(whole, tmp_path / 'data'))


@pytest.fixture(autouse=True)
def scope():
    before = dict(DefaultScope._instance_dict)
    init_default_scope('mmpretrain')
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


LOAD = dict(type='LoadImageFromFile')


def classification(folder):
    return DATASETS.build(dict(type='mmpretrain.CustomDataset', data_root=str(folder / 'cls'), data_prefix='train',
                               with_label=True, pipeline=[LOAD, dict(type='mmpretrain.PackInputs')]))


def detection(folder, **options):
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        return registry.build(dict(dict(
            type='CocoDataset', data_root=str(folder / 'det'), ann_file='annotations/train.json',
            data_prefix=dict(img='train'), metainfo=dict(classes=tuple('0123456789')),
            filter_cfg=dict(filter_empty_gt=True), pipeline=[
                LOAD, dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]), **options))


def panoptic(folder, segments, classes=('thing', 'stuff')):
    """One picture of 64 x 64 and its segments, (category, box); the first class is of things."""
    folder.mkdir()
    for name in ('1.jpg', '1.png'):
        cv2.imwrite(str(folder / name), np.ones((64, 64, 3), np.uint8))
    segments = [dict(id=65793 + i, category_id=category, bbox=box, area=100, iscrowd=0)
                for i, (category, box) in enumerate(segments)]
    (folder / 'a.json').write_text(json.dumps(dict(
        images=[dict(id=1, file_name='1.jpg', width=64, height=64)],
        categories=[dict(id=i, name=name, isthing=int(i == 0)) for i, name in enumerate(classes)],
        annotations=[dict(image_id=1, file_name='1.png', segments_info=segments)])))
    with DATASETS.switch_scope_and_registry('mmdet') as registry:
        return registry.build(dict(
            type='CocoPanopticDataset', data_root=str(folder), ann_file='a.json', data_prefix=dict(img='', seg=''),
            metainfo=dict(classes=classes, thing_classes=classes[:1], stuff_classes=classes[1:]), pipeline=[]))


def segmentation(folder):
    with DATASETS.switch_scope_and_registry('mmseg') as registry:
        return registry.build(dict(
            type='BaseSegDataset', data_root=str(folder / 'seg'), img_suffix='.png',
            data_prefix=dict(img_path=seg_folder(folder, 'images'), seg_map_path=seg_folder(folder, 'annotations')),
            metainfo=dict(classes=tuple('abcdefghijk')), pipeline=[
                LOAD, dict(type='LoadAnnotations'), dict(type='PackSegInputs')]))


def seg_folder(folder, kind):
    return str(next(path for path in (folder / 'seg').rglob('*') if path.is_dir() and kind in path.parts
                    and any(path.glob('*.png')) and 'train' in path.name).relative_to(folder / 'seg'))


def coco(folder):
    path = next((folder / 'det/annotations').glob('*train*.json'))
    return path, json.loads(path.read_text())


# ---- before training ----

def test_whole_data_has_no_problems(whole):
    for dataset, classes in ((classification(whole), 10), (detection(whole), 10), (segmentation(whole), 11)):
        problems, notes = check_dataset(dataset, classes, 'here')
        assert problems == [] and len(dataset) == 6, (type(dataset), problems, notes)


def test_labels_beyond_the_models_classes_are_counted_and_the_first_is_named(whole):
    dataset = classification(whole)
    labels = [dataset.get_data_info(i)['gt_label'] for i in range(len(dataset))]
    problems, _ = check_dataset(dataset, max(labels), 'here')
    first = dataset.get_data_info(labels.index(max(labels)))['img_path']
    assert problems == [
        f"here: label {max(labels)} ({labels.count(max(labels))} times, first in picture {labels.index(max(labels))}, "
        f"'{first}') is none of the model's {max(labels)} classes; set the head's num_classes, or mend the annotations"]
    assert len(check_dataset(detection(whole), 1, 'here')[0]) >= 1


def test_files_that_are_not_there_are_counted_and_the_first_is_named(data):
    dataset, seg = detection(data), segmentation(data)
    gone = [Path(dataset.get_data_info(i)['img_path']) for i in (1, 3)]
    for path in (*gone, Path(seg.get_data_info(2)['seg_map_path'])):
        path.unlink()
    assert check_dataset(dataset, 10, 'here')[0] == [
        f"here: 2 of 6 files (img_path) are not there, first that of picture 1, '{gone[0]}'; get them, or leave them "
        'out of the annotations']
    problems, _ = check_dataset(seg, 11, 'here')
    assert len(problems) == 1 and '1 of 6 files (seg_map_path) are not there, first that of picture 2' in problems[0]


def test_what_mmdetection_leaves_out_is_counted_by_reason(data):
    path, content = coco(data)
    pictures = [image['id'] for image in content['images']]
    boxes = {picture: [box for box in content['annotations'] if box['image_id'] == picture] for picture in pictures}
    content['annotations'] = [box for picture in pictures[1:] for box in boxes[picture]]  # the first has none
    kept = content['annotations']
    kept[0]['category_id'] = 77
    kept[1]['bbox'][2] = 0
    path.write_text(json.dumps(content))
    dataset = detection(data)
    problems, notes = check_dataset(dataset, 10, 'here')
    assert problems == []
    assert 'here: 1 of 6 pictures are left out by filter_cfg' in notes
    assert ('here: 1 boxes are left out: their category_id is none of metainfo.classes (77: 1)') in notes
    assert 'here: 1 boxes are left out: smaller than a pixel, or outside of their picture' in notes
    unfiltered = check_dataset(detection(data, filter_cfg=None), 10, 'here')[1]
    assert 'here: 1 of 6 pictures have no box: they teach the background alone' in unfiltered


def test_a_set_without_a_picture_says_why(data):
    path, content = coco(data)
    path.write_text(json.dumps(dict(content, annotations=[])))
    problems, _ = check_dataset(detection(data, serialize_data=False), 10, 'here')
    assert problems == ['here: no picture is in it (6 of 6 pictures are left out by filter_cfg)']


def test_segments_of_things_and_stuff_are_checked_too(tmp_path):
    whole = panoptic(tmp_path / 'whole', [(0, [0, 0, 60, 60]), (1, [0, 0, 64, 64])])
    assert check_dataset(whole, 1, 'here') == ([], [])
    stuff = panoptic(tmp_path / 'stuff', [(1, [0, 0, 64, 64])])  # teaches more than the background
    assert check_dataset(stuff, 1, 'here') == ([], [])
    assert len(check_dataset(whole, 0, 'here')[0]) == 1
    (tmp_path / 'whole/1.png').unlink()
    assert '1 of 1 files (seg_map_path) are not there' in check_dataset(whole, 1, 'here')[0][0]


def test_heads_say_how_many_classes_there_are(zoo):
    assert classes_of(zoo.build(zoo.resnet(classes=7))) == 7
    assert classes_of(zoo.distil(zoo.mixer(classes=5), zoo.resnet(classes=7))) == 5
    assert classes_of(nn.Linear(1, 1)) is None


def test_sets_within_wrappers_are_found(whole):
    one, two = classification(whole), classification(whole)
    joined = dict(type='ConcatDataset', datasets=[one, two])
    assert leaves_of(DATASETS.build(dict(type='RepeatDataset', times=2, dataset=joined))) == [one, two]


# ---- during training ----

def test_a_picture_that_cannot_be_read_is_named(data):
    dataset = classification(data)
    path = Path(dataset.get_data_info(4)['img_path'])
    path.write_bytes(path.read_bytes()[:20])
    named(dataset, 10, 'here')
    assert isinstance(dataset[3]['data_samples'], DataSample)
    with pytest.raises(SampleError, match=f"here: picture 4, '{path}' cannot be read .*; get it again"):
        dataset[4]


def test_a_label_map_with_another_class_is_named_and_what_is_ignored_is_not(data):
    dataset = segmentation(data)
    path = dataset.get_data_info(1)['seg_map_path']
    labels = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    labels[:2] = 255
    cv2.imwrite(path, labels)
    named(dataset, 11, 'here')
    assert (dataset[1]['data_samples'].gt_sem_seg.data == 255).any()
    labels[3, 3] = 200
    cv2.imwrite(path, labels)
    with pytest.raises(SampleError, match=f"label 200 of picture 1, .*{path}.* is none of the model's 11 classes"):
        dataset[1]
    other = segmentation(data)
    named(other, 11, 'here', ignored=200)
    with pytest.raises(SampleError, match='label 255 of picture 1'):
        other[1]
    labels[:2] = 0
    cv2.imwrite(path, labels)
    assert (other[1]['data_samples'].gt_sem_seg.data == 200).any()


def test_boxes_that_are_ignored_may_have_any_label(whole):
    dataset = detection(whole, serialize_data=False)
    instance = dataset.data_list[2]['instances'][0]
    instance['bbox_label'] = -1
    assert 'label -1 (1 times, first in picture 2' in check_dataset(dataset, 10, 'here')[0][0]
    instance['ignore_flag'] = 1  # as CrowdHuman's
    assert check_dataset(dataset, 10, 'here')[0] == []


@pytest.mark.parametrize('options, there', [
    (dict(backend_args=dict(backend='petrel')), True), (dict(backend_args=dict(backend='local')), False),
    (dict(pipeline=[dict(LOAD, backend_args=dict(backend='petrel')), dict(type='PackDetInputs')]), True)], ids=str)
def test_files_of_another_backend_are_not_looked_for_on_this_machine(data, options, there):
    """Such as a cluster's, whose path_mapping says where a path really is."""
    dataset = detection(data, **dict(options, backend_args=None))
    dataset.backend_args = options.get('backend_args')
    (data / 'det/train').rename(data / 'det/elsewhere')
    assert bool(check_dataset(dataset, 10, 'here')[0]) != there
    config = Config(dict(train_dataloader=dict(dataset=dict(data_root='bucket/coco', ann_file='a.json', **options))))
    if there:
        check_data(config, ('train', ))
    else:
        with pytest.raises(ConfigError, match="there is no 'bucket/coco'"):
            check_data(config, ('train', ))


@pytest.mark.parametrize('workers', [0, 2])
def test_the_name_comes_through_data_workers(data, workers):
    dataset = classification(data)
    Path(dataset.get_data_info(2)['img_path']).write_bytes(b'')
    named(dataset, 10, 'here')
    loader = torch.utils.data.DataLoader(dataset, 2, num_workers=workers, collate_fn=list)
    with pytest.raises(ConfigError) as error:
        list(loader)
    assert len(error.value.problems) == 1 and error.value.problems[0].startswith('here: picture 2, ')
    assert 'Traceback' not in str(error.value)


# ---- the tool ----

def train(tool, config, folder, *options):
    return tool('tools/train.py', f'configs/mini/{config}.py', '--work-dir', folder, '--cfg-options',
                'train_cfg.max_epochs=1', 'train_dataloader.batch_size=3', *options, status=2)


def test_the_tool_names_missing_files_and_labels_together_before_the_first_batch(tool, data, tmp_path):
    path, content = coco(data)
    gone = data / 'det/train' / content['images'][0]['file_name']
    gone.unlink()
    content['annotations'][0]['category_id'] = 77
    path.write_text(json.dumps(content))
    text = train(tool, 'det_gfl_resnet8', tmp_path, *(f'{split}_dataloader.dataset.data_root={data}/det' for split in
                                                      ('train', 'val', 'test')), 'model.bbox_head.num_classes=2',
                 f'val_evaluator.ann_file={data}/det/annotations/val.json')
    assert 'problems in the input' in text and f"'{gone}'" in text
    assert "is none of the model's 2 classes" in text and '(77: 1)' in text
    assert 'Traceback' not in text and 'Epoch(train)' not in text


def test_the_tool_names_a_corrupt_picture(tool, data, tmp_path):
    path = next((data / 'cls/train').rglob('*.png'))
    path.write_bytes(b'\x89PNG' + np.random.default_rng(0).bytes(300))
    text = train(tool, 'cls_mixer', tmp_path, *(f'{split}_dataloader.dataset.data_root={data}/cls' for split in
                                                ('train', 'val', 'test')))
    assert f"'{path}' cannot be read" in text and 'train_dataloader.dataset: picture ' in text
    assert 'Traceback' not in text.rpartition('train.py: ')[2]


def test_the_tool_names_an_empty_set(tool, data, tmp_path):
    path, content = coco(data)
    path.write_text(json.dumps(dict(content, images=[], annotations=[])))
    text = train(tool, 'det_gfl_resnet8', tmp_path, *(f'{split}_dataloader.dataset.data_root={data}/det' for split in
                                                      ('train', 'val', 'test')),
                 f'val_evaluator.ann_file={data}/det/annotations/val.json')
    assert f'dataset: the CocoDataset of {data}/det, annotations/train.json' in text and 'lists no picture' in text
    assert 'Traceback' not in text
