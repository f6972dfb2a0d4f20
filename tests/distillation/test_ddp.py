"""Data-parallel distillation computes what one process computes on the joined batch."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(processes: int, out: Path) -> dict:
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}',
               Path(__file__).with_name('ddp_worker.py'), out]
    subprocess.run(command, check=True, timeout=200,
                   env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    return torch.load(out)


@pytest.fixture(scope='module')
def one_and_two(tmp_path_factory) -> tuple[dict, dict]:
    folder = tmp_path_factory.mktemp('ddp')
    return run(1, folder / 'one.pth'), run(2, folder / 'two.pth')


@pytest.mark.parametrize('batch', ['plain', 'padded', 'alone'])
def test_two_processes_give_the_gradients_of_one_on_the_joined_batch(one_and_two, batch):
    one, two = (found[batch] for found in one_and_two)
    assert one.keys() == two.keys()
    assert all(gradient.abs().max() > 0 for gradient in one.values() if batch == 'plain')
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=1e-8, abs=1e-10), name


def test_without_the_tasks_losses_nobody_waits_for_the_head(one_and_two):
    for found in one_and_two:
        assert {name for name in found['plain'] if name not in found['alone']} >= {'head.fc.weight', 'head.fc.bias'}
        assert 'backbone.patch_embed.projection.weight' in found['alone']


def test_the_padded_loss_is_the_mean_over_the_joined_cells(one_and_two):
    """Where one half of the pictures is mostly padding, a mean of the processes' means would be another."""
    one, two = one_and_two
    assert two['loss'].item() == pytest.approx(one['loss'].item(), rel=1e-10)


def test_two_processes_measure_the_anchors_share_as_one(one_and_two):
    """Also where some steps do not teach, and where a run was resumed from the checkpoint of one of them. Not exactly:
    a channel of the teacher's that is constant in one half has no scale there.
    """
    one, two = one_and_two
    assert abs(one['weight'] - 1) > 0.1 and two['weight'].item() == pytest.approx(one['weight'].item(), rel=0.02)
