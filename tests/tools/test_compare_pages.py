"""The pages have the tables that comparisons print, and say what their rows say."""
import json
import re
from pathlib import Path

import pytest

from sfkd.analysis.comparison import parts, ranks, table
from sfkd.analysis.intervals import interval

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize('task, page', [('cls', 'short_budgets'), ('det', 'ablation'), ('seg', 'ablation')])
def test_the_page_has_the_table_of_the_results_file(compare, task, page):
    lines = table(results_of(task), compare.BASELINES).splitlines()[2:]
    text = (ROOT / f'docs/{page}.md').read_text()
    assert len(lines) >= 2 and not [line for line in lines if line not in text]


def test_the_page_has_each_method_and_part_on_public_data(compare):
    text, rows = (ROOT / 'docs/ablation.md').read_text(), results_of('fashion')
    section = text[text.index('## On public data'):text.index('### Its budget and weights')]
    seeds = re.search(r'--task fashion --seeds ([\d ]+) --tables-only', section)[1].split()
    rows = [row for row in rows if str(row['seed']) in seeds]
    lines = [*table(rows, ('alone', 'aligned_mse+losses.0.weight=0.625')).splitlines(),
             *parts(rows, compare.PARTS['fashion']).splitlines()]
    assert len(lines) > 10 and not [line for line in lines if line not in section]


def test_the_page_has_the_parts_on_the_segmentor(compare):
    text, rows = (ROOT / 'docs/ablation.md').read_text(), results_of('seg', 'parts')
    lines = [*table(rows, compare.BASELINES).splitlines(), *parts(rows, compare.PARTS['seg']).splitlines()]
    assert {row['seed'] for row in rows} == {0, 1, 2, 3, 4} and len(rows) == 20
    assert len(lines) == 12 and not [line for line in lines if line not in text]


def test_the_pages_say_what_all_runs_of_the_whole_method_and_the_lean_form_differ_by():
    of = {method: {(row['pair'], row['seed']): row['value'] for row in results_of('cls') if row['method'] == method}
          for method in ('sfkd', 'sfkd_lean')}
    differences = [value - of['sfkd_lean'][cell] for cell, value in of['sfkd'].items()]
    assert len(differences) == 20
    for page in 'README.md', 'docs/results.md':
        assert interval(differences).strip() in (ROOT / page).read_text()


@pytest.mark.parametrize('other, runs, pages', [
    ('alone', 20, ['README', 'docs/ablation', 'docs/results']),
    ('aligned_mse+losses.0.weight=0.625', 20, ['README', 'docs/ablation', 'docs/results']),
    ('rsd+losses.0.weight=0.1', 20, ['docs/ablation']),
    ('cwd+losses.0.weight=5+logits.0.weight=1.0', 20, ['docs/ablation']),
    ('sfkd_lean+spatial_weight=0.625+frequency_weight=0.625+logit_weight=1.0', 20, ['README', 'docs/ablation'])])
def test_the_pages_say_what_sfkd_differs_by_over_all_runs_on_public_data(compare, other, runs, pages):
    whole = compare.PARTS['fashion']['all'][0]
    of = {method: {(row['pair'], row['seed']): row['value'] for row in results_of('fashion') if row['method'] == method}
          for method in (whole, other)}
    differences = [of[whole][cell] - value for cell, value in of[other].items()]
    assert len(differences) == runs
    assert not [page for page in pages
                if interval(differences).strip().removeprefix('+') not in (ROOT / f'{page}.md').read_text()]


def test_the_page_has_the_table_of_the_longer_runs(compare):
    lines = table(results_of('cls', 'long'), compare.BASELINES).splitlines()[2:]
    text = (ROOT / 'docs/ablation.md').read_text()
    assert len(lines) == 24 and not [line for line in lines if line not in text]


def test_the_page_ranks_six_methods_of_the_longer_runs(tool):
    text = tool('tools/compare.py', '--tables-only', '--epochs', 24, '--results', ROOT / 'docs/results/long_cls.jsonl',
                '--pairs', 'resnet_to_mixer', 'swin_to_resnet8', '--methods', 'alone', 'kd', 'aligned_mse', 'pkd',
                'cwd', 'sfkd_lean')
    mean_rank = {line.split('|')[1].strip(): float(line.split('|')[-3])
                 for line in text.rpartition('mean rank')[2].partition('\n\n')[0].splitlines()[2:]}
    assert mean_rank == dict(sfkd_lean=1.5, aligned_mse=2.5, pkd=3.0, cwd=3.0, kd=5.0, alone=6.0)
    assert '(1.5; aligned MSE 2.5, PKD and CWD 3)' in (ROOT / 'docs/ablation.md').read_text()


def test_the_page_ranks_the_methods_as_the_results_file_does():
    lines = ranks([row for row in results_of('cls') if row['pair'] != 'resnet_to_swin']).splitlines()[2:]
    text = (ROOT / 'docs/short_budgets.md').read_text()
    assert len(lines) == 14 and not [line for line in lines if line not in text]


def test_the_readme_ranks_eight_methods_on_public_data(compare):
    whole, lean, plain = (compare.PARTS['fashion']['all'][0], *compare.PARTS['fashion']['GFFL'])
    names = {whole: 'SFKD', f'{whole}+levels=0': 'SFKD without the DWT', lean: 'SFKD, lean',
             f'{lean}+logit_weight=1.0': 'SFKD, lean, with logit KD', plain: 'aligned MSE',
             'cwd+losses.0.weight=5+logits.0.weight=1.0': 'CWD', 'rsd+losses.0.weight=0.1': 'RSD',
             'alone': 'student alone'}
    found = ranks([dict(row, method=names[row['method']], pair=row['pair'].removeprefix('fashion_'))
                   for row in results_of('fashion') if row['method'] in names])
    assert found.count('\n') > len(names) and found in (ROOT / 'README.md').read_text()


def results_of(task, kind='results'):
    return [json.loads(line) for line in (ROOT / f'docs/results/{kind}_{task}.jsonl').read_text().splitlines()]
