"""Runs the tools as a user does: in processes of their own, on a small Digits in the Wild."""
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
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
    """``tool('tools/train.py', ...)`` gives what the command printed; ``tool.start(...)`` its process.

    Args:
        output: file for what a command prints.
    """

    def __init__(self, output: Path):
        self.output = output
        self.preloaded: subprocess.Popen | None = None

    @staticmethod
    def environment() -> dict[str, str]:
        return {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHON': sys.executable,
                'PORT': free_port()}

    def start(self, *arguments) -> subprocess.Popen:
        command = ['bash' if str(arguments[0]).endswith('.sh') else sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, cwd=ROOT, env=self.environment(), text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def __call__(self, *arguments, status: int = 0) -> str:
        if str(arguments[0]).endswith('.py'):
            found, text = self._in_a_fork(*map(str, arguments))
        else:
            process = self.start(*arguments)
            text, _ = process.communicate(timeout=300)
            found = process.returncode
        assert found == status, text[-3000:]
        return text

    def _in_a_fork(self, *arguments: str) -> tuple[int, str]:
        """Of a process that has the large libraries already (preloaded.py)."""
        if self.preloaded is None:
            self.preloaded = subprocess.Popen([sys.executable, ROOT / 'tests/tools/preloaded.py'], cwd=ROOT, text=True,
                                              env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        request = dict(arguments=arguments, environment=self.environment(), output=str(self.output), seconds=300)
        self.preloaded.stdin.write(json.dumps(request) + '\n')
        self.preloaded.stdin.flush()
        status = int(self.preloaded.stdout.readline())
        return status, self.output.read_text()

    def close(self) -> None:
        if self.preloaded is not None:
            self.preloaded.stdin.close()
            self.preloaded.wait()


@pytest.fixture(scope='session')
def tool(tmp_path_factory) -> Iterator[Tool]:
    tool = Tool(tmp_path_factory.mktemp('tool') / 'output.txt')
    yield tool
    tool.close()


@pytest.fixture(scope='module')
def compare():
    sys.path.insert(0, str(ROOT / 'tools'))  # where Python looks when it runs a tool
    spec = importlib.util.spec_from_file_location('compare', ROOT / 'tools/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
