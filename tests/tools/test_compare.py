"""The comparison's arithmetic, and that it goes on where it stopped."""
import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
METRIC = 'accuracy/top1'


@pytest.fixture(scope='module')
def compare():
    spec = importlib.util.spec_from_file_location('compare', ROOT / 'tools/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(method, values, pair='resnet_to_mixer'):
    return [dict(task='cls', pair=pair, method=method, seed=seed, split='test', value=value, seconds=10, cpu_seconds=20) for seed, value in values.items()]


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


def test_ranks_are_of_the_methods_that_every_pair_has(compare):
    measured = [row for pair, values in dict(a=(1., 3., 2.), b=(5., 4., 6.)).items()
                for method, value in zip(('alone', 'kd', 'sfkd'), values) for row in rows(method, {0: value}, pair)]
    text = compare.ranks(measured + rows('cwd', {0: 9.}, 'a'))
    assert '| kd | 1 | 3 | 2.00 |' in text and '| sfkd | 2 | 1 | 1.50 |' in text and 'cwd' not in text


def test_what_is_in_the_results_file_is_not_run_again(tool, tmp_path):
    results, methods = tmp_path / 'results.jsonl', ('alone', 'kd', 'sfkd')
    results.write_text(''.join(json.dumps(row) + '\n' for method in methods for row in rows(method, {0: 50.})))
    text = tool('tools/compare.py', '--pairs', 'resnet_to_mixer', '--methods', *methods, '--seeds', 0, '--results', results,
                '--plot', tmp_path / 'plot.png')
    assert text.count('| 50.00 |') == 3 and len(results.read_text().splitlines()) == 3 and (tmp_path / 'plot.png').stat().st_size > 5000


@pytest.fixture
def quick(compare, monkeypatch, digits):
    """Cells of a few steps on small data."""
    popen = subprocess.Popen
    small = [f'{split}_dataloader.dataset.data_root={digits}' for split in ('train', 'val', 'test')]
    monkeypatch.setattr(compare.subprocess, 'Popen', lambda command, **kwargs: popen([*command, *small], **kwargs))


def test_a_cell_that_crashes_leaves_the_others(compare, quick, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(compare.METHODS, 'broken', 'no/such/file.py')
    comparison = compare.Comparison(tmp_path / 'results.jsonl', 'val', epochs=2, jobs=2)
    found = comparison.run([('resnet_to_mixer', method, 7, options)
                            for method, options in (('broken', []), ('dkd', ['model.logits.0.weight=0.5']), ('alone', []))])
    assert comparison.failed == 1 and 'FAILED: resnet_to_mixer broken seed 7' in capfd.readouterr().out
    written = {row['method']: row for row in map(json.loads, (tmp_path / 'results.jsonl').read_text().splitlines())}
    assert set(written) == {'alone', 'dkd+logits.0.weight=0.5'} == {row['method'] for row in found}
    row = written['dkd+logits.0.weight=0.5']
    assert {'task', 'pair', 'method', 'seed', 'split', 'metric', 'value', 'seconds', 'config', 'commit'} <= row.keys()
    assert row['split'] == 'val' and row['seed'] == 7 and row['epochs'] == 2 and 0 <= row['value'] <= 100 and row['cpu_seconds'] > 1
    comparison = compare.Comparison(tmp_path / 'results.jsonl', 'test', epochs=2)
    tested, = comparison.run([('resnet_to_mixer', 'alone', 7, [])])
    assert tested['split'] == 'test' and 'val' not in str(tested['metric'])
    log = next((ROOT / 'work_dirs/compare/resnet_to_mixer/dkd+logits.0.weight=0.5/val7').glob('*/vis_data/scalars.json')).parent
    assert sum(METRIC in line for line in (log / 'scalars.json').read_text().splitlines()) == 1  # scored once


def test_tuning_gives_every_method_the_same_trials(compare, tmp_path, capfd, monkeypatch):
    """The best factor by the mean over pairs, then one more trial with the switch."""
    run = []

    def score(self, cells):
        run.append([(method, options) for _, method, _, options in cells])
        weight = float(cells[0][3][0].split('=')[1])
        return [dict(value=10 * weight + len(cells[0][3])) for _ in cells]
    monkeypatch.setattr(compare.Comparison, 'run', score)
    comparison = compare.Comparison(tmp_path / 'none.jsonl', 'val')
    for method in compare.METHODS:
        if method != 'alone':
            run.clear()
            compare.tune(comparison, method, ['resnet_to_mixer', 'swin_to_resnet8'], [0])
            assert len(run) == 4 and all(len(cells) == 2 for cells in run), method
            assert run[-1][0][1][:-1] == run[2][0][1], method  # the largest factor was best
            assert '4 and model.' in capfd.readouterr().out, method


@pytest.mark.parametrize('task', ['cls', 'det', 'seg'])
def test_the_readme_has_the_table_of_the_results_file(compare, task):
    measured = [json.loads(line) for line in (ROOT / f'docs/results/results_{task}.jsonl').read_text().splitlines()]
    cells = re.findall(r'\| (\w+ \| \w+ \| \d+ \| [\d.]+ ± [\d.]+) \|', compare.table(measured))
    readme = (ROOT / 'README.md').read_text()
    assert len(cells) >= 2 and all(cell in readme for cell in cells)
