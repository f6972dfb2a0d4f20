"""The configs of the guides build as they stand, read data laid out as the guides say, and their pairs take a step."""
import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope

from sfkd.analysis.trial import training_step, without_downloads, works
from sfkd.openmmlab.configs import check_data, load_config
from sfkd.openmmlab.methods import model_of
from sfkd.registry import MODELS

GUIDES = Path(__file__).resolve().parents[2] / 'docs/guides'
SPLITS = ('train', 'val', 'test')


def write_files(page: str, folder: Path) -> list[str]:
    """The files that a guide shows, each in a block that begins with its name; the names."""
    shown = re.findall(r'```python\n# (\w+\.py)\n(.*?)```', (GUIDES / f'{page}.md').read_text(), re.DOTALL)
    for name, text in shown:
        (folder / name).write_text(text)
    return [name for name, _ in shown]


def picture(path: str, values=None) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(path, np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8) if values is None else values)


def leaves() -> None:
    for split in SPLITS:
        for name in ('ash', 'birch', 'oak'):
            picture(f'data/leaves/{split}/{name}/0001.jpg')


def fruit() -> None:
    categories = [dict(id=7 * i + 3, name=name) for i, name in enumerate(('apple', 'pear', 'plum'))]
    for split in SPLITS:
        picture(f'data/fruit/{split}/0001.jpg')
        boxes = [dict(id=i + 1, image_id=1, category_id=kind['id'], bbox=[5, 9, 60, 50], area=3000, iscrowd=0)
                 for i, kind in enumerate(categories)]
        image = dict(id=1, file_name='0001.jpg', width=128, height=96)
        Path('data/fruit/annotations').mkdir(exist_ok=True)
        Path(f'data/fruit/annotations/{split}.json').write_text(
            json.dumps(dict(images=[image], annotations=boxes, categories=categories)))


def road() -> None:
    for split in ('training', 'validation', 'test'):
        picture(f'data/road/images/{split}/0001.jpg')
        labels = np.arange(96 * 128).reshape(96, 128) % 4
        picture(f'data/road/annotations/{split}/0001.png', np.where(labels == 3, 255, labels).astype(np.uint8))


@pytest.mark.parametrize('page, make, size, taught', [
    ('classifier', leaves, 224, [f'backbone.{name}' for name in ('layer2', 'layer3', 'layer5', 'conv2')]),
    ('detector', fruit, 128, [f'neck[{i}]' for i in range(4)]),
    ('segmentor', road, 128, [f'backbone.layer{i}' for i in range(1, 5)])], ids=['classifier', 'detector', 'segmentor'])
def test_own_data(page, make, size, taught, tmp_path, monkeypatch):
    """Smaller pictures than the guide's where the networks take them."""
    monkeypatch.chdir(tmp_path)
    make()
    names = write_files(page, tmp_path)
    name = names[0].partition('_')[0]
    assert names == [f'{name}_{part}.py' for part in ('data', 'student', 'teacher', 'distil')]
    for part in ('student', 'teacher', 'distil'):
        config = load_config(f'{name}_{part}.py')
        check_data(config)
        init_default_scope(config.default_scope)
        assert config.work_dir == f'work_dirs/{name}_{part}'
        assert config.default_hooks.checkpoint.max_keep_ckpts == 1
    for split in SPLITS:
        dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
        assert len(dataset.metainfo['classes'] or dataset.CLASSES) == 3 and len(dataset) >= 1
        sample = dataset[0]['data_samples']
    if page == 'segmentor':
        assert set(np.unique(sample.gt_sem_seg.data)) == {0, 1, 2, 255}
    model = dict(config.model, input_size=size, teacher_ckpt='init',
                 teacher=without_downloads(config.model.teacher, 'teacher'))
    model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    distiller = MODELS.build(model)
    assert [pair.student_path for pair in distiller.distillation.pairs] == taught
    guide = (GUIDES / f'{page}.md').read_text()
    assert all(re.search(rf'^{re.escape(path)} +\d', guide, re.MULTILINE) for path in taught)
    assert works(training_step(distiller, 2))


def test_own_parts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])  # reading the config adds its folder
    assert write_files('extending', tmp_path) == ['my_parts.py', 'my_pair.py', 'my_method.py']
    config = load_config('my_pair.py')
    model = dict(config.model, data_preprocessor=config.data_preprocessor, teacher_ckpt='init')
    init_default_scope(config.default_scope)
    distiller = MODELS.build(model)
    pair = distiller.distillation.pairs[0]
    assert type(pair.connector).__name__ == 'ThreeByThree' and pair.weights == {'CharbonnierLoss': 2.0}
    assert works(training_step(distiller, 2))
    model = model_of('my_pair.py', 'my_method.py')
    assert [loss.type for loss in model.losses] == ['CharbonnierLoss'] and model.connector.type == 'Align'
    assert works(training_step(MODELS.build(model | dict(teacher_ckpt='init')), 2))


def test_cached(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_files('teacher_cache', tmp_path) == ['cached.py']
    config = load_config('cached.py')
    assert config.train_dataloader.dataset.type == 'sfkd.ReplayedDataset'
    assert config.train_dataloader.dataset.dataset.type == 'CustomDataset'
    hook, = config.custom_hooks
    assert MODELS.get('SFKD') is not None and hook.pop('type') == 'sfkd.TeacherCacheHook' and hook.max_gib == 20
