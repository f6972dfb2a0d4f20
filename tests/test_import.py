"""Importing the package is light, and its names resolve whatever library's scope a config has."""
import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.registry import MODELS, DefaultScope

import sfkd
from sfkd import SFKD, Distiller


def test_import_is_light():
    heavy = {'mmdet', 'mmseg', 'mmpretrain', 'mmcv', 'pywt', 'sklearn'}
    code = f'import sys, sfkd; sys.exit(bool({heavy} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
    assert sfkd.__version__


PLAIN = '''
from importlib.machinery import PathFinder
hidden, stock = {hidden}, PathFinder.find_spec
PathFinder.find_spec = staticmethod(
    lambda name, *rest: None if name.partition('.')[0] in hidden else stock(name, *rest))
import torch
from torch import nn
import sfkd.labelfree
from sfkd import Distillation, PictureFolder

def cnn(width):
    sizes = [3, width, 2 * width, 4 * width, 8 * width]
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in zip(sizes, sizes[1:])]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))

student, images = cnn(4), torch.randn(4, 3, 64, 64)
distillation = Distillation(student, cnn(8), input_size=64, connector=dict(type='WaveletConnector', {options}))
with distillation(images) as taught:
    loss = student(images).square().mean()
(loss + taught.loss).backward()
print(len(distillation.pairs), taught.loss > 0, student[0][0].weight.grad.abs().sum() > 0)
'''


@pytest.mark.parametrize('options', ['levels=2', "levels=1, wavelet='db2', refine=True"])
def test_plain_pytorch_needs_none_of_the_libraries_of_configs_and_tools(options):
    """What requirements/mm.txt brings cannot be found: a step of a pair of CNNs, by Haar and by another wavelet."""
    hidden = {'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'sklearn', 'scipy', 'pycocotools', 'torchvision'}
    done = subprocess.run([sys.executable, '-c', PLAIN.format(hidden=hidden, options=options)], text=True,
                          capture_output=True)
    assert done.stdout.split() == ['4', 'tensor(True)', 'tensor(True)'], done.stderr


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'sfkd'])
@pytest.mark.parametrize('name, cls', [('SFKD', SFKD), ('Distiller', Distiller), ('sfkd.SFKD', SFKD)])
def test_entry_points_resolve_in_every_scope(scope, name, cls):
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(None) as registry:
        assert registry.get(name) is cls


#: from the ground up, as docs/architecture.md has them; a room imports from those before it alone
ROOMS = ('errors', 'version', 'shipped', 'image_processors', 'progress', 'randomness', 'registry', 'unpickling',
         'checkpoint', 'ops', 'datasets', 'compat', 'features', 'connectors', 'losses', 'distillation', 'export',
         'openmmlab', 'labelfree', 'analysis', 'command', '__main__')
PACKAGE = Path(sfkd.__file__).parent


def rooms_imported(file: Path) -> set[str]:
    """The rooms that a file imports from, at its top or within a function."""
    here = file.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or '').partition('.')[0] == 'sfkd'):
            parts = (node.module or '').split('.') if node.module else []
            path = [*here[:len(here) + 1 - node.level], *parts] if node.level else parts[1:]
            found |= {path[0]} if path else {alias.name for alias in node.names}
    return found


def test_each_room_imports_only_what_stands_below_it():
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == '.py' or (path / '__init__.py').exists()}
    assert modules - {'__init__'} == set(ROOMS)
    for rank, room in enumerate(ROOMS):
        files = [PACKAGE / f'{room}.py'] if (PACKAGE / f'{room}.py').exists() else (PACKAGE / room).rglob('*.py')
        for file in files:
            above = {name for name in rooms_imported(file) & set(ROOMS) if ROOMS.index(name) > rank}
            assert not above, f'{file.relative_to(PACKAGE)} imports {above}'


def test_no_tool_imports_another():
    tools = PACKAGE.parent / 'tools'
    names = {path.stem for path in tools.glob('*.py')}
    for path in tools.glob('*.py'):
        tree = ast.parse(path.read_text(encoding='utf-8'))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        assert not {name.partition('.')[0] for name in imported} & names, path.name


def test_a_tool_of_another_checkout_is_refused(tmp_path):
    """It would name that checkout's commit for what this package has done."""
    other = tmp_path / 'other'
    for file in 'tools/train.py', 'sfkd/__init__.py':
        (other / file).parent.mkdir(parents=True)
        (other / file).write_text('import sfkd\n' * file.startswith('tools'))

    def run(**environment):
        return subprocess.run([sys.executable, str(other / 'tools/train.py')], cwd=tmp_path, text=True,
                              capture_output=True, env={**os.environ, 'PYTHONPATH': str(PACKAGE.parent), **environment})
    said = run()
    assert said.returncode == 1 and f"belongs to '{other}/sfkd', and Python imports '{PACKAGE}'" in said.stderr
    assert f'PYTHONPATH={other}' in said.stderr
    assert run(PYTHONPATH=str(other)).returncode == 0
