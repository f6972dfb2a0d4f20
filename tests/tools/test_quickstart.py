"""The quickstart's contract, on two epochs."""
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_it_ends_in_a_table_and_a_summary(tool):
    tool('tools/make_digits_wild.py', 'cls')
    text = tool('tools/quickstart.py', 'cls', '--epochs', 2)
    out = ROOT / 'work_dirs/quickstart/cls'
    summary = json.loads((out / 'summary.json').read_text())
    assert set(summary) == {'task', 'metric', 'teacher', 'student', 'sfkd', 'seconds', 'torch', 'seed'}
    assert summary['teacher'] > 80 and f"{summary['sfkd']:6.2f}" in text and (out / 'curves.png').stat().st_size > 5000
    assert text.count('epoch   ') == 4 and 'eta' in text
