"""The quickstart's contract, on two epochs."""
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.parametrize('task, teacher', [('cls', 84.8), ('det', 0.545), ('seg', 42.79)])
def test_it_ends_in_a_table_and_a_summary(tool, task, teacher):
    tool('tools/make_digits_wild.py', task)
    text = tool('tools/quickstart.py', task, '--epochs', 2)
    out = ROOT / 'work_dirs/quickstart' / task
    summary = json.loads((out / 'summary.json').read_text())
    assert set(summary) == {'task', 'metric', 'teacher', 'student', 'sfkd', 'seconds', 'torch', 'seed'}
    assert summary['teacher'] == pytest.approx(teacher, rel=1e-3)  # as configs/mini/teachers/README.md says
    assert f"{summary['sfkd'] * (100 if task == 'det' else 1):6.2f}" in text and text.count('epoch   ') == 4
    assert 'eta' in text
    assert all((out / name).stat().st_size > 5000 for name in ['curves.png'] + ['predictions.png'] * (task != 'cls'))
    assert text.splitlines()[-1] == f'work_dirs/quickstart/{task}/report.html'
    page = (out / 'report.html').read_text()
    factor = 100 if task == 'det' else 1
    validation = json.loads((out / 'teacher/score_val.json').read_text())[summary['metric']]
    assert f'The teacher scores {factor * validation:.2f} there.' in page and 'student alone' in page
    assert all(f"<td>{factor * summary[key]:.2f}</td>" in page for key in ('teacher', 'student', 'sfkd'))
    assert 'Left out' not in page
