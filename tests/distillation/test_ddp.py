"""Data-parallel distillation computes what one process computes on the joined batch."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def gradients(processes: int, out: Path) -> dict[str, torch.Tensor]:
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}',
               Path(__file__).with_name('ddp_worker.py'), out]
    subprocess.run(command, check=True, timeout=200,
                   env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    return torch.load(out)


def test_two_processes_give_the_gradients_of_one_on_the_joined_batch(tmp_path):
    one, two = gradients(1, tmp_path / 'one.pth'), gradients(2, tmp_path / 'two.pth')
    assert one.keys() == two.keys() and all(gradient.abs().max() > 0 for gradient in one.values())
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=1e-8, abs=1e-10), name
