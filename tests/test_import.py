"""Importing the package is light, and its names resolve whatever library's scope a config has."""
import subprocess
import sys

import pytest
from mmengine.registry import MODELS, DefaultScope

import sfkd
from sfkd import SFKD, Distiller


def test_import_is_light():
    heavy = {'mmdet', 'mmseg', 'mmpretrain', 'mmcv', 'pywt', 'sklearn'}
    code = f'import sys, sfkd; sys.exit(bool({heavy} & set(sys.modules)))'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
    assert sfkd.__version__


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'sfkd'])
@pytest.mark.parametrize('name, cls', [('SFKD', SFKD), ('Distiller', Distiller), ('sfkd.SFKD', SFKD)])
def test_entry_points_resolve_in_every_scope(scope, name, cls):
    with DefaultScope.overwrite_default_scope(scope), MODELS.switch_scope_and_registry(None) as registry:
        assert registry.get(name) is cls
