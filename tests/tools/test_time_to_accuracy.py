"""Seconds to an accuracy: the table by hand, and real runs on a small set."""
import argparse
import json
import runpy
from pathlib import Path

import pytest
from mmengine.runner import Runner

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def functions():
    return runpy.run_path(str(ROOT / 'tools/time_to_accuracy.py'))


def row(variant, seed, seconds, scores):
    return dict(variant=variant, seed=seed, seconds=seconds, scores=scores)


def test_the_table(functions):
    rows = [row('alone', 0, [10, 20], [30, 40]), row('alone', 1, [10, 30], [30, 50]),
            row('taught', 0, [15, 30], [40, 60]), row('taught', 1, [15, 30], [45, 62]),
            row('every second step', 0, [12, 24], [20, 39])]
    lines = {line.split(' | ')[0].strip('| '): line for line in functions['table'](rows).splitlines()}
    assert lines['alone'] == '| alone | 2 | 45.00 ± 7.07 | 25 | 25 | 1.00 |'
    # in seed 0 after 15 of 20 seconds, in seed 1 after 30 of 30
    assert lines['taught'] == '| taught | 2 | 61.00 ± 1.41 | 30 | 22 | 0.88 |'
    assert lines['every second step'] == '| every second step | 1 | 39.00 | 24 | never |  |'
    assert functions['seconds_to'](rows[2], 41) == 30 and functions['seconds_to'](rows[2], 61) is None


@pytest.fixture
def config(digits, tmp_path):
    """The path of a pair's config on a small set."""
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = "{ROOT}/configs/mini/cls_resnet_to_mixer.py"\n' + '\n'.join(
        f'{split}_dataloader = dict(batch_size=20, dataset=dict(data_root="{digits}"))' for split in (
            'train', 'val', 'test')))
    return path


def test_a_quarter_of_the_steps(functions, config, tmp_path):
    args = argparse.Namespace(config=str(config), epochs=6)
    found = functions['configured'](args, 'in the first quarter', 0, tmp_path)
    pictures = len(Runner.build_dataloader(found.train_dataloader).dataset)
    assert found.model.until == 6 * -(-pictures // 20) // 4 > 0


def test_a_variant_is_a_method_with_options(functions, config, tmp_path):
    args = argparse.Namespace(config=str(config), epochs=2)
    found = functions['configured'](args, 'kd+logits.0.weight=0.5', 0, tmp_path)
    assert found.model.logits[0].weight == 0.5 and found.train_cfg.max_epochs == 2


def test_runs_that_are_there_are_not_repeated(tool, config, tmp_path):
    variants = ['alone', 'taught, cached']
    arguments = ['tools/time_to_accuracy.py', config, '--seeds', 0, '--epochs', 2, '--results', tmp_path / 'r.jsonl',
                 '--work-dir', tmp_path / 'runs', '--variants', *variants]
    other = dict(row('alone', 0, [1, 2, 3], [10, 20, 30]), config=str(config))  # of another budget
    (tmp_path / 'r.jsonl').write_text(json.dumps(other) + '\n')
    (tmp_path / 'runs/taught_cached_0/cache').mkdir(parents=True)  # of an interrupted run
    (tmp_path / 'runs/taught_cached_0/cache/stranger').touch()
    assert 'taught, cached, seed 0: ' in tool(*arguments)
    rows = [json.loads(line) for line in (tmp_path / 'r.jsonl').read_text().splitlines()[1:]]
    assert [row['variant'] for row in rows] == variants
    for found in rows:
        assert len(found['seconds']) == len(found['scores']) == 2 and 0 < found['seconds'][0] < found['seconds'][1]
    assert len(list((tmp_path / 'runs/taught_cached_0/cache').glob('*.features.bin'))) == 4
    again = tool(*arguments)
    assert 'seed 0' not in again and '| taught, cached | 1 |' in again
