"""The comparison's arithmetic, and that it goes on where it stopped."""
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def compare():
    spec = importlib.util.spec_from_file_location('compare', ROOT / 'tools/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(method, values, pair='resnet_to_mixer'):
    return [dict(pair=pair, method=method, seed=seed, split='test', value=value, seconds=10) for seed, value in values.items()]


def test_interval_is_students_t(compare):
    assert compare.interval([1., 2., 3.]) == ' +2.00 ± 2.48'  # 4.303 * 1 / sqrt(3)
    assert compare.interval([-1.5]) == ' -1.50'


def test_differences_are_paired_by_seed(compare):
    text = compare.table(rows('alone', {0: 10., 1: 20., 2: 99.}) + rows('sfkd', {1: 23., 0: 11.}))
    sfkd = next(line for line in text.splitlines() if '| sfkd |' in line)
    assert '17.00 ± 8.49' in sfkd and '+2.00 ± 12.71' in sfkd  # (11 - 10, 23 - 20); seed 2 has no partner


def test_names_of_methods_with_options(compare):
    assert compare.full_name('sfkd', ['model.sigma=1.0']) == 'sfkd+sigma=1.0'
    assert compare.full_name('alone', ['model.sigma=1.0']) == 'alone'


def test_what_is_in_the_results_file_is_not_run_again(tool, tmp_path):
    results = tmp_path / 'results.jsonl'
    done = [row for method in ('alone', 'kd', 'sfkd') for row in rows(method, {0: 50.})]
    results.write_text(''.join(json.dumps(row) + '\n' for row in done))
    text = tool('tools/compare.py', '--pairs', 'resnet_to_mixer', '--seeds', 0, '--results', results)
    assert text.count('50.00') == 3 and len(results.read_text().splitlines()) == 3


def test_the_readme_has_the_table_of_the_results_file(compare):
    measured = [json.loads(line) for line in (ROOT / 'docs/results/results_cls.jsonl').read_text().splitlines()]
    cells = re.findall(r'\| (\w+ \| \w+ \| \d+ \| [\d.]+ ± [\d.]+) \|', compare.table(measured))
    readme = (ROOT / 'README.md').read_text()
    assert len(cells) >= 7 and all(cell in readme for cell in cells)
