"""The wheel alone, in an empty folder: built from a copy of the checkout, unpacked and first on the path."""
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    copy = tmp_path_factory.mktemp('checkout')
    for name in ('sfkd', 'tools', 'configs', 'requirements', 'tests'):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'MANIFEST.in', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, copy)
    done = subprocess.run([sys.executable, '-m', 'build', '--wheel', '--no-isolation'], cwd=copy, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout[-3000:]
    found, = (copy / 'dist').glob('*.whl')
    return found


@pytest.fixture(scope='module')
def unpacked(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('unpacked')
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def names_below(folder: Path, kinds=('.py', '.safetensors', '.yml', '.log')) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.suffix in kinds}


def test_it_holds_the_package_the_tools_and_the_configs_once(wheel, unpacked):
    package = unpacked / 'sfkd'
    assert names_below(package / '.mim/configs') == names_below(ROOT / 'configs')
    assert (package / '.mim/model-index.yml').read_text() == (ROOT / 'model-index.yml').read_text()
    tools = {path.name for path in (package / '.mim/tools').iterdir()}
    assert tools == {path.name for path in (ROOT / 'tools').glob('*.py')} | {
        'dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'get_fashion_mnist.sh'}
    names = zipfile.ZipFile(wheel).namelist()
    assert len(set(names)) == len(names) and {name.partition('/')[0] for name in names} == {
        'sfkd', f'{wheel.name.rsplit("-", 3)[0]}.dist-info'}
    assert not [name for name in names if 'tests/' in name or 'data/' in name or '__pycache__' in name]


def test_its_command_and_configs_work_from_an_empty_folder(unpacked, tmp_path):
    def run(*arguments) -> str:
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, env={**os.environ, 'PYTHONPATH': str(unpacked)}, timeout=300)
        assert done.returncode == 0, done.stdout
        return done.stdout
    assert run('-c', 'import sfkd; print(sfkd.__file__)').strip() == str(unpacked / 'sfkd/__init__.py')
    assert '\n  inspect     Show which stages' in run('-m', 'sfkd', '--help')
    text = run('-m', 'sfkd', 'inspect', 'sfkd::mini/cls_resnet_to_mixer', '--load-teacher')
    assert 'one training step: loss' in text
    made = run('-m', 'sfkd', 'make', 'cls', '--train', '10', '--val', '2', '--test', '2')
    assert '14 pictures' in made and (tmp_path / 'data/digits_wild/cls/train').is_dir()


def test_the_plain_installation_asks_for_no_library_of_a_task(unpacked):
    metadata = next(unpacked.glob('*.dist-info/METADATA')).read_text()
    required = [line.partition(': ')[2] for line in metadata.splitlines() if line.startswith('Requires-Dist')]
    plain = {line.partition('<')[0].partition('=')[0] for line in required if 'extra ==' not in line}
    assert plain == {'torch', 'onedl-mmengine', 'numpy', 'numba', 'pytorch-wavelets', 'PyWavelets', 'setuptools',
                     'safetensors', 'Pillow', 'opencv-python'}
    assert any(line.startswith('onedl-mmdetection') and line.endswith('extra == "mm"') for line in required)
