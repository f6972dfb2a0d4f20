"""How a run says how long it takes: a line on a terminal, and plain lines in a file."""
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sfkd.datasets.digits_wild import generate_cls
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.progress import ProgressHook
from sfkd.openmmlab.running import build_runner

ROOT = Path(__file__).resolve().parents[2]
SAYS = re.compile(r'a step takes \S+ s, an epoch \((\d+) steps\) .*, the whole training \((\d+) epochs, (\d+) steps\)')


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'digits_wild/cls'
    generate_cls(folder, counts=dict(train=40, val=10, test=10))
    return folder


def options(digits: Path) -> dict:
    return {'model.teacher_ckpt': 'init', 'train_dataloader.dataset.data_root': str(digits),
            'val_dataloader.dataset.data_root': str(digits), 'train_dataloader.batch_size': 10,
            'train_dataloader.num_workers': 0, 'val_dataloader.num_workers': 0}


@pytest.mark.parametrize('train_cfg, sampler', [
    (dict(by_epoch=True, max_epochs=2), 'DefaultSampler'), (dict(by_epoch=False, max_iters=8, val_interval=3),
                                                             'InfiniteSampler')])
def test_epochs_and_iterations_are_counted_alike(digits, tmp_path, train_cfg, sampler):
    config = load_config('sfkd::mini/cls_resnet_to_mixer', str(tmp_path / sampler), options(digits))
    config.test_cfg = config.test_dataloader = config.test_evaluator = config.param_scheduler = None
    config.train_dataloader.sampler.type, config.train_cfg = sampler, train_cfg
    config.default_hooks.checkpoint.update(by_epoch=train_cfg['by_epoch'], interval=100)
    config.experiment_name = sampler
    run = build_runner(config)
    run.train()
    log, = (tmp_path / sampler).glob('2*/*.log')
    assert SAYS.findall(log.read_text()) == [('4', '2', '8')]
    hook, = (hook for hook in run.hooks if isinstance(hook, ProgressHook))
    assert hook.estimate.done == hook.estimate.total == 8 and hook.estimate.steps == 8


def train(digits: Path, folder: Path, **streams) -> subprocess.Popen:
    given = [f'{key}={value}' for key, value in (options(digits) | {
        'train_cfg.max_epochs': 1, 'default_hooks.logger.interval': 2}).items()]
    command = [sys.executable, '-m', 'sfkd', 'train', 'sfkd::mini/cls_resnet_to_mixer', '--no-validate', '--work-dir',
               str(folder), '--cfg-options', *given]
    return subprocess.Popen(command, cwd=folder, env={**os.environ, 'PYTHONPATH': str(ROOT), 'TERM': 'xterm'},
                            **streams)


def test_on_a_terminal_a_line_follows_the_training(digits, tmp_path):
    here, there = pty.openpty()
    process = train(digits, tmp_path, stdout=there, stderr=there)
    os.close(there)
    text = b''
    while True:
        try:
            text += os.read(here, 4096)
        except OSError:  # the other side is closed
            break
    os.close(here)
    assert process.wait() == 0, text.decode()
    text = text.decode()
    drawn = [int(done) for done in re.findall(r'\r\[#+\.*\] (\d)/4  epoch 1/1  loss [\d.]+[^\r]*\x1b\[K', text)]
    assert drawn and drawn == sorted(drawn)
    logged = [line.rpartition('\r\x1b[K')[2] for line in text.split('\n') if 'Epoch(train)' in line]
    assert len(logged) == 2 and not any('[#' in line for line in logged)  # what was drawn before them was taken away
    assert '[#' not in text.rpartition('\r')[2]  # nor does it stay in the end


def test_a_pipe_gets_plain_lines(digits, tmp_path):
    process = train(digits, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert SAYS.findall(printed) == [('4', '1', '4')]
    assert not re.search(r'[\r]|\x1b\[K|\[#', printed + errors)
