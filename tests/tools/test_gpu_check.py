"""The one command for a GPU, on the CPU: every part is tried by hand (docs/benchmarks.md); here that one part's end is
not the others'.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def check(*arguments, **environment):
    return subprocess.run(['bash', 'tools/gpu_check.sh', *map(str, arguments)], cwd=ROOT, text=True,
                          capture_output=True, env=dict(os.environ, **environment))


def test_a_part_that_fails_or_runs_out_of_time_ends_alone(tmp_path):
    python = tmp_path / 'python'
    python.write_text(f'#!/bin/sh\ncase "$*" in *check_values*) echo "no such GPU"; exit 3 ;; esac\n'
                      f'exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    found = check('--device', 'cpu', '--out', tmp_path / 'out', '--parts', 'device', 'values', 'operators',
                  PYTHON=str(python))
    assert found.returncode == 1, found.stderr
    summary = (tmp_path / 'out/summary.md').read_text()
    assert '| values | FAILED, exit status 3: no such GPU |' in summary
    assert '| device | passed |' in summary and '| operators | passed |' in summary
    assert 'torch' in (tmp_path / 'out/device.log').read_text()
    rows = json.loads((tmp_path / 'out/operators.json').read_text())
    assert {row['op'] for row in rows} == {'dwt', 'gffl', 'depthwise', 'pooling', 'standardisation'}
    assert all(row['error'] < 1e-5 for row in rows)
    late = check('--device', 'cpu', '--out', tmp_path / 'late', '--minutes', 0, PYTHON=sys.executable)
    assert late.returncode == 0 and (tmp_path / 'late/summary.md').read_text().count('no time was left') == 12


def test_what_cannot_be_asked_for():
    for arguments, message in ((['--parts', 'speeds'], "no part 'speeds'; there are device values"),
                               (['--device', 'tpu'], '# usage'), (['--fast'], '# usage')):
        found = check(*arguments)
        assert found.returncode == 2 and message in found.stdout + found.stderr
