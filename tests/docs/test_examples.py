"""The examples run as they stand, and what they save is the student and the connectors without the teacher."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from skimage.io import imsave

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / 'docs/examples'
CONNECTORS = [f'pairs.{i}.connector.align.project.weight' for i in range(4)]


def run(name: str, *arguments) -> str:
    """What an example prints."""
    command = [sys.executable, EXAMPLES / f'{name}.py', *map(str, arguments)]
    alone = {key: value for key, value in os.environ.items() if key != 'LOCAL_RANK'}  # Accelerate looks for the others
    environment = {**alone, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1',
                   'CUDA_VISIBLE_DEVICES': ''}
    done = subprocess.run(command, cwd=arguments[-1].parent, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def check_student(state: dict, classes: int = 10) -> None:
    """It is timm's own model, and has learnt something: its batch statistics have moved, its weights are numbers."""
    student = timm.create_model('resnet10t', num_classes=classes)
    student.load_state_dict(state)
    assert student.bn1.running_mean.abs().max() > 0 if hasattr(student, 'bn1') else True
    assert all(value.isfinite().all() for value in state.values())


def steps_of(printed: str) -> list[tuple[float, float]]:
    return [tuple(map(float, found)) for found in re.findall(r'task ([\d.]+), taught ([\d.]+)', printed)]


def check_connectors(state: dict) -> None:
    """A projection a pair, and DS2S, whose details' neighbours are of three bands."""
    refined = [key for key in state if '.refine.' in key]
    assert sorted(key for key in state if key.endswith('weight') and key not in refined) == CONNECTORS
    assert sum(key.endswith('refine.detail.depthwise.weight') for key in refined) == 4
    assert len(state) - len(refined) <= 8


def test_every_example_is_short_and_has_a_test():
    names = {path.stem for path in EXAMPLES.glob('*.py')}
    assert all(f"run('{name}'" in Path(__file__).read_text() for name in names) and len(names) == 4
    assert all(len(path.read_text().splitlines()) <= 75 for path in EXAMPLES.glob('*.py'))


def test_plain_loop(tmp_path):
    for kind in 'ab':
        (tmp_path / 'train' / kind).mkdir(parents=True)
        for i in range(4):
            picture = torch.randint(0, 256, (80, 70, 3), dtype=torch.uint8).numpy()
            imsave(tmp_path / 'train' / kind / f'{i}.png', picture, check_contrast=False)
    printed = run('plain_loop', '--steps', 2, '--batch', 4, '--folder', tmp_path / 'train', '--out', tmp_path / 's.pth')
    found = steps_of(printed)
    assert len(found) == 2 and all(0 < task < 3 and taught > 1 for task, taught in found)
    check_student(torch.load(tmp_path / 's.pth'), classes=2)


@pytest.mark.long
def test_lightning_module(tmp_path):
    printed = run('lightning_module', '--steps', 2, '--out', tmp_path / 'taught.ckpt')
    assert len(set(re.findall(r"'distill\.layer\d\.loss_\w+'", printed))) == 8
    state = torch.load(tmp_path / 'taught.ckpt', weights_only=True)['state_dict']
    parts = {part: {key.removeprefix(f'{part}.'): value for key, value in state.items() if key.startswith(f'{part}.')}
             for part in ('student', 'distillation')}
    assert sum(map(len, parts.values())) == len(state)
    check_student(parts['student'])
    check_connectors(parts['distillation'])


@pytest.mark.long
def test_accelerate_loop(tmp_path):
    printed = run('accelerate_loop', '--steps', 3, '--precision', 'bf16', '--out', tmp_path / 'out')
    found = steps_of(printed)
    assert len(found) == 3 and all(0 < task < 5 and taught > 1 for task, taught in found)
    check_student(torch.load(tmp_path / 'out/student.pth'))
    check_student(load_file(tmp_path / 'out/model.safetensors'))
    check_connectors(load_file(tmp_path / 'out/model_1.safetensors'))
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {
        'student.pth', 'model.safetensors', 'model_1.safetensors', 'optimizer.bin', 'random_states_0.pkl'}


@pytest.mark.long
def test_transformers_trainer(tmp_path):
    from transformers import ResNetForImageClassification
    printed = run('transformers_trainer', '--steps', 2, '--out', tmp_path / 'two')
    assert re.search(r"'eval_loss': '?\d", printed)
    # a third step, of the learning rate that the schedule had come to: 0
    run('transformers_trainer', '--steps', 3, '--resume', tmp_path / 'two/checkpoint-2', '--out', tmp_path / 'three')
    two, three = (torch.load(tmp_path / name / 'distillation.pth') for name in ('two', 'three'))
    check_connectors(three)
    assert all(torch.equal(two[key], value) for key, value in three.items())
    weights = load_file(tmp_path / 'three/model.safetensors')
    student = ResNetForImageClassification.from_pretrained(tmp_path / 'three')
    student.load_state_dict(weights)
    assert not any('distillation' in key or 'connector' in key for key in student.state_dict())
