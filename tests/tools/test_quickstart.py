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
