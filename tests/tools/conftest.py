"""Runs the tools as a user does: in processes of their own, on a small Digits in the Wild."""
import importlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sfkd.compat import WITH_SFKD
from sfkd.datasets.digits_wild import generate_cls

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='session')
def digits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'digits_wild/cls'
    generate_cls(folder, counts=dict(train=120, val=20, test=20))
    return folder


@pytest.fixture(scope='session')
def small(digits) -> list[str]:
    """Config options that make a mini config a matter of seconds."""
    options = [f'{split}_dataloader.dataset.data_root={digits}' for split in ('train', 'val', 'test')]
    return options + ['train_dataloader.batch_size=20', 'train_cfg.max_epochs=1', 'param_scheduler.1.end=3',
                      'param_scheduler.1.T_max=2', 'default_hooks.checkpoint.max_keep_ckpts=-1']


def free_port() -> str:
    """Of this machine, for processes that meet: other trainings may be under way on it."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


@pytest.fixture(name='stock_tool', scope='session')
def a_stock_tool():
    return stock_tool


@pytest.fixture(name='free_port')
def a_free_port() -> str:
    return free_port()


def stock_tool(library: str, name: str) -> tuple:
    """The start of a command that runs a library's own tool as it is; only, sfkd gives mmdet the operators that mmcv
    may lack here, and lets mmpretrain be imported beside transformers 5.
    """
    folder = Path(importlib.import_module(library).__file__).parent
    return '-c', WITH_SFKD, folder / f'.mim/tools/{name}.py'


class Tool:
    """``tool('tools/train.py', ...)`` gives what the command printed; ``tool.start(...)`` its process."""

    @staticmethod
    def start(*arguments) -> subprocess.Popen:
        command = ['bash' if str(arguments[0]).endswith('.sh') else sys.executable, *map(str, arguments)]
        environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
                       'PORT': free_port()}
        return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def __call__(self, *arguments, status: int = 0) -> str:
        process = self.start(*arguments)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == status, text[-3000:]
        return text


@pytest.fixture(scope='session')
def tool() -> Tool:
    return Tool()
