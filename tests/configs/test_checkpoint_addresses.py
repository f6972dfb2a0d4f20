"""Every published checkpoint that a config names is the one that the library itself publishes for that very model."""
import importlib
from pathlib import Path

import pytest
import yaml
from mmengine.runner import checkpoint as model_names

from sfkd.openmmlab.building import build_model, read_config

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / 'configs/sfkd').rglob('*.py'))
PUBLISHED = [path for path in CONFIGS if "teacher_ckpt='https://" in path.read_text()]
FINE_TUNED = [path for path in CONFIGS if 'load_from = ' in path.read_text()]
NAMED = {'torchvision': model_names.get_torchvision_models, 'open-mmlab': model_names.get_external_models,
         'mmcls': model_names.get_mmcls_models}


def name(path):
    return path.stem


def metafile_of(library, file):
    """What a library publishes beside one of its configs: the entries of the folder's metafile."""
    folder = Path(importlib.import_module(library).__file__).parent / '.mim' / Path(file).parent
    found, = [*folder.glob('metafile.yml'), *folder.glob('metafile.yaml')]
    return yaml.safe_load(found.read_text())['Models']


def starts(spec):
    """The addresses of the weights with which a model's parts start."""
    if isinstance(spec, (list, tuple)):
        return [address for part in spec for address in starts(part)]
    if not isinstance(spec, dict):
        return []
    own = [spec[key] for key in ('pretrained', 'checkpoint') if isinstance(spec.get(key), str)]
    return own + [address for part in spec.values() for address in starts(part)]


def test_every_config_is_looked_at(read):
    addresses = {path: read(path).model.get('teacher_ckpt', '') for path in CONFIGS}
    assert PUBLISHED == [path for path, address in addresses.items() if '://' in address]
    assert FINE_TUNED == [path for path in CONFIGS if read(path).get('load_from')]
    trained_here = [path for path, address in addresses.items() if address.startswith('work_dirs/')]
    assert sorted(PUBLISHED + trained_here) == [path for path in CONFIGS if read(path).model.type == 'SFKD']
    assert (len(PUBLISHED), len(trained_here), len(FINE_TUNED)) == (13, 6, 5)


@pytest.mark.parametrize('path', PUBLISHED, ids=name)
def test_the_teachers_checkpoint_is_the_published_one_of_its_config(path, read):
    model = read(path).model
    library, _, file = model.teacher.partition('::')
    file = f'configs/{file}'
    weights = [entry['Weights'] for entry in metafile_of(library, file) if entry.get('Config') == file]
    assert weights and model.teacher_ckpt in weights


@pytest.mark.parametrize('path', FINE_TUNED, ids=name)
def test_a_fine_tuned_teacher_starts_as_the_published_model_of_its_shape(path, read):
    """All weights but those of the last layer fit: the published config has the same keys and shapes."""
    config = read(path)
    folder = {'deit': 'deit', 'mlp-mixer': 'mlp_mixer', 'swin-transformer': 'swin_transformer'}
    group = config.load_from.split('/')[-2]
    entry, = [entry for entry in metafile_of('mmpretrain', f'configs/{folder.get(group, group)}/any.py')
              if entry.get('Weights') == config.load_from]
    published = read_config(f'mmpretrain::{entry["Config"].removeprefix("configs/")}', 'test')
    shapes = [{key: tuple(value.shape) for key, value in build_model(part.model, 'test', part.data_preprocessor,
                                                                     'mmpretrain').state_dict().items()}
              for part in (config, published)]
    differ = {key for key in shapes[0].keys() | shapes[1].keys() if shapes[0].get(key) != shapes[1].get(key)}
    assert all(key.startswith('head.') for key in differ) and len(differ) == 2, differ
    assert [config.data_preprocessor[key] for key in ('mean', 'std')] == [
        published.data_preprocessor[key] for key in ('mean', 'std')]


@pytest.mark.parametrize('path', CONFIGS, ids=name)
def test_what_a_student_starts_from_has_a_name_that_mmengine_knows(path, read):
    model = read(path).model
    for address in starts(model.get('student', model)):
        scheme, _, known = address.partition('://')
        if scheme != 'https':
            assert NAMED[scheme]()[known].startswith('https://')
