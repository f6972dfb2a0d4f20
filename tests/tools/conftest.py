"""A small Digits in the Wild for the tools, and what they are compared with."""
import importlib.util
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


@pytest.fixture(name='stock_tool', scope='session')
def a_stock_tool():
    return stock_tool


def stock_tool(library: str, name: str) -> tuple:
    """The start of a command that runs a library's own tool as it is; only, sfkd gives mmdet the operators that mmcv
    may lack here, and lets mmpretrain be imported beside transformers 5.
    """
    folder = Path(importlib.import_module(library).__file__).parent
    return '-c', WITH_SFKD, folder / f'.mim/tools/{name}.py'


@pytest.fixture(scope='module')
def compare():
    sys.path.insert(0, str(ROOT / 'tools'))  # where Python looks when it runs a tool
    spec = importlib.util.spec_from_file_location('compare', ROOT / 'tools/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
