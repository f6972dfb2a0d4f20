"""A short slice of the dress rehearsal: a config that fails at its first validation is found out, and (long) a pair
passes every stage.
"""
import json
from pathlib import Path

import pytest

pytest.importorskip('mmdet')  # the rehearsal makes the data of every task
pytest.importorskip('mmseg')

ROOT = Path(__file__).resolve().parents[2]
PAIR = 'configs/sfkd/cls_cifar100_r50_to_r18.py'
STUDENT = ROOT / 'configs/sfkd/students/cifar100_r18.py'
TYPO = f"_base_ = '{STUDENT}'\nval_evaluator = dict(type='Accuracy', topk=(1, 500))\n"  # of 100 classes


def rows(folder):
    return [json.loads(line) for line in (folder / 'results.jsonl').read_text().splitlines()]


@pytest.mark.long
def test_a_pair_passes_every_stage(tool, tmp_path):
    text = tool('tools/stress/rehearse.py', PAIR, '--work-dir', tmp_path)
    row, = rows(tmp_path)
    assert list(row['stages']) == ['stand-ins', 'train', 'resume', 'export', 'stock test']
    assert row['ok'] and {stage['outcome'] for stage in row['stages'].values()} == {'ok'}
    assert set(row['scores']) == {'accuracy/top1', 'accuracy/top5'} and row['terms'] == 10
    assert 'Overridden, and nothing else:' in text and '1 of 1 configs passed every stage' in text
    # What has passed is left out
    text = tool('tools/stress/rehearse.py', PAIR, '--work-dir', tmp_path, '--resume-from-results')
    assert f'{PAIR}\n' not in text and '1 of 1 configs passed every stage' in text and len(rows(tmp_path)) == 1


@pytest.mark.long
def test_a_typo_is_found_out(tool, tmp_path):
    typo = tmp_path / 'typo.py'
    typo.write_text(TYPO)
    text = tool('tools/stress/rehearse.py', typo, '--work-dir', tmp_path / 'rehearsal', status=1)
    row, = rows(tmp_path / 'rehearsal')
    assert not row['ok'] and list(row['stages']) == ['stand-ins', 'train']
    assert 'Top-500 accuracy is unavailable' in row['stages']['train']['outcome']
    assert 'Traceback' not in text and '0 of 1 configs passed every stage' in text
