"""The zoo's rows are what they say; the longest of this, every row's build, is ``python tools/zoo.py check``."""
import copy
import re
import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sfkd.datasets.digits_wild import DEFAULT_COUNTS, generate_cls
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import load_config
from sfkd.shipped import CONFIGS

ROOT = Path(__file__).resolve().parents[2]
LOG = """
2026/11/22 21:31:20 - mmengine - INFO - Epoch(train)  [1][20/40]  lr: 1.0000e-03  loss: 2.4
2026/11/22 21:31:33 - mmengine - INFO - Epoch(train)  [1][40/40]  lr: 1.0000e-03  loss: 2.3112
2026/11/22 21:31:33 - mmengine - INFO - Epoch(val) [1][10/20]    time: 0.0641
2026/11/22 21:31:34 - mmengine - INFO - Epoch(val) [1][20/20]    accuracy/top1: 10.7000
2026/11/22 21:31:47 - mmengine - INFO - Epoch(train)  [2][40/40]  lr: 9.9847e-04  loss: 2.3082
2026/11/22 21:31:47 - mmengine - INFO - Saving checkpoint at 3 epochs
2026/11/22 21:31:57 - mmengine - INFO - Epoch(train)  [3][40/40]  lr: 9.9847e-04  loss: 2.2082
"""


@pytest.fixture(scope='module')
def zoo() -> dict:
    return runpy.run_path(str(ROOT / 'tools/zoo.py'))


@pytest.fixture(scope='module')
def rows(zoo) -> list[dict]:
    return zoo['rows']()


def test_openmmlabs_index_reads_it(rows):
    import modelindex
    index = modelindex.load(str(ROOT / 'model-index.yml'))
    index.build_models_with_collections()
    models = {model.name: model for model in index.models}
    assert sorted(models) == sorted(row['Name'] for row in rows) and len(models) >= 25
    measured = [model for model in models.values() if model.results]
    assert len(measured) >= 12
    for model in models.values():
        assert model.full_model.paper['URL'].startswith('https://arxiv.org/')
    assert not index.check(silent=True)


def test_every_file_that_a_row_names_is_there_and_the_weights_are_small(rows):
    keys = ('Config', 'Stock Config', 'Weights', 'Training Log')
    missing = [row[key] for row in rows for key in keys if key in row and not (ROOT / row[key]).is_file()]
    assert not missing
    assert sum((ROOT / row['Weights']).stat().st_size for row in rows if 'Weights' in row) < 42 * 2 ** 20
    for row in rows:
        gpus = row['Metadata'].get('GPUs')
        assert 'Weights' in row or row['Command'] == f"bash tools/dist_train.sh {row['Config']} {gpus}"


def test_seeds_are_all_that_the_results_have(zoo, rows):
    """Of a student alone too, whose rows stand under the names of its pairs."""
    expected = {'mini/cls_mixer': '21.55 ± 3.31', 'mini/cls_resnet8': '36.63 ± 4.47',
                'mini/cls_resnet_to_mixer': '58.08 ± 1.97', 'mini/det_gfl_resnet8': '30.70 ± 0.17'}
    assert expected == {row['Name']: zoo['spread'](zoo['seeds_of'](row)) for row in rows if row['Name'] in expected}
    assert all(over_seeds in (ROOT / 'README.md').read_text() for over_seeds in expected.values())


def test_the_page_is_written_from_the_rows(zoo, rows):
    assert (ROOT / 'docs/zoo.md').read_text() == zoo['page_of'](rows)


def test_a_row_is_reproduced_or_its_mistake_named(zoo, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generate_cls(tmp_path / 'data/digits_wild/cls', counts=DEFAULT_COUNTS['cls'] | dict(train=1, val=1))
    row = next(row for row in rows if row['Name'] == 'mini/cls_swin')
    found = re.fullmatch(r'(\d+\.\d\d), as said \d+\.\d\d', zoo['checked'](row))
    monkeypatch.setitem(zoo['checked'].__globals__, 'measured', lambda *_: float(found[1]))  # it takes long
    wrong = copy.deepcopy(row)
    wrong['Results'][0]['Metrics']['Top 1 Accuracy'] += 9
    with pytest.raises(ConfigError, match=r'scores \d+\.\d\d, not \d+\.\d\d within'):
        zoo['checked'](wrong)
    with pytest.raises(ConfigError, match='does not fit'):
        zoo['checked'](row | {'Weights': 'configs/mini/teachers/resnet.safetensors'})


def test_what_is_kept_of_a_log(zoo):
    lines = zoo['last_of_epochs'](LOG)
    assert lines == [LOG.splitlines()[i] for i in (2, 4, 5, 7)]


@pytest.mark.parametrize('place', ['students', 'teachers'])
def test_what_is_published_of_a_run(zoo, tmp_path, place):
    run = tmp_path / 'run.1'
    (run / '20261125').mkdir(parents=True)
    (run / '20261125/20261125.log').write_text(LOG)
    (run / 'last_checkpoint').write_text('/elsewhere/epoch_3.pth')
    state = {'head.weight': torch.rand(3, 2), 'norm.count': torch.tensor(7), 'distillation.pairs.0.x': torch.ones(1)}
    torch.save(dict(meta={}, state_dict=state, optimizer={}), run / 'epoch_3.pth')
    weights, log = zoo['publish'](run, tmp_path / 'pair.py', place)
    found = load_file(weights)
    assert weights == tmp_path / place / 'pair.safetensors' and set(found) == {'head.weight', 'norm.count'}
    assert torch.equal(found['head.weight'], state['head.weight'].half()) and found['norm.count'] == 7
    assert log.read_text().splitlines() == zoo['last_of_epochs'](LOG)
    with pytest.raises(ConfigError, match=r"run: '.*' has no last_checkpoint"):
        zoo['publish'](tmp_path, tmp_path / 'pair.py', place)


@pytest.mark.parametrize('name, stock', [
    ('cls_mixer', 'cls_mixer'), ('cls_resnet_to_mixer', 'cls_mixer'), ('cls_resnet_to_mixer_cached', 'cls_mixer'),
    ('cls_swin_to_resnet8_without_labels', 'cls_resnet8')])
def test_the_stock_config_of_a_pair_is_the_students_own(zoo, name, stock):
    file = CONFIGS / f'mini/{name}.py'
    assert zoo['stock_file'](file, load_config(str(file))) == CONFIGS / f'mini/{stock}.py'


def test_a_row_that_is_not_there_is_an_error(tool):
    assert "--only: there is no row 'mini/cls_swim'; nearest are" in tool(
        'tools/zoo.py', 'check', '--only', 'mini/cls_swim', status=2)
