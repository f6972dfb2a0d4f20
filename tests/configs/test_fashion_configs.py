"""The configs of Fashion-MNIST: splits that share no picture, pairs at every stage, and a step of each."""
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope

from sfkd.openmmlab.configs import load_config
from sfkd.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parents[2]
PAIRS = sorted(path.stem for path in (ROOT / 'configs/fashion').glob('*_to_*.py'))
#: student stage -> teacher stage, both within the backbone
STAGES = dict(
    resnet_to_mixer={'layers.0': 'layer2', 'layers.1': 'layer3', 'layers.2': 'layer4'},
    resnet_to_resnet4={'layer1': 'layer2', 'layer2': 'layer3', 'layer3': 'layer4'},
    resnet_to_swin={'stages.0': 'layer2', 'norm1': 'layer3', 'head': 'head'},
    resnet_to_swin16={'stages.0': 'layer3', 'norm1': 'layer4'},
    swin_to_resnet4={'layer1': 'stages.0', 'layer2': 'norm1'})


@pytest.fixture(scope='module', autouse=True)
def scope(alone):
    init_default_scope('mmpretrain')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Files of the right sizes, whose pictures are their own number in base 256."""
    folder = tmp_path_factory.mktemp('fashion_mnist')
    for name, count in (('train', 60000), ('t10k', 10000)):
        pictures = np.zeros((count, 28, 28), np.uint8)
        pictures[:, 0, 0], pictures[:, 0, 1] = np.arange(count) % 256, np.arange(count) // 256
        header = np.array([0x803, count, 28, 28], '>u4')
        (folder / f'{name}-images-idx3-ubyte').write_bytes(header.tobytes() + pictures.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f'{name}-labels-idx1-ubyte').write_bytes(np.array([0x801, count], '>u4').tobytes() + labels.tobytes())
    return folder


def test_validation_shares_no_picture_with_training(folder):
    config = Config.fromfile(ROOT / 'configs/fashion/mixer.py')
    found = {}
    for split in ('train', 'val', 'test'):
        dataset = config[f'{split}_dataloader'].dataset
        dataset = dataset.dataset if split == 'train' else dataset  # each picture in two forms
        with DATASETS.switch_scope_and_registry('mmpretrain') as registry:
            data = registry.build(dict(dataset, data_root=str(folder), pipeline=[], download=False))
        found[split] = [int(data[i]['img'][0, 0]) + 256 * int(data[i]['img'][0, 1]) for i in range(len(data))]
    assert found == dict(train=[*range(50000)], val=[*range(50000, 60000)], test=[*range(10000)])


@pytest.mark.parametrize('name', PAIRS)
def test_pairs(name):
    config = load_config(f'configs/fashion/{name}.py', options={'model.teacher_ckpt': 'init'})
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    found = {pair.student_path.removeprefix('backbone.'): pair.teacher_path.removeprefix('backbone.')
             for pair in model.distillation.pairs}
    assert found == STAGES[name]
