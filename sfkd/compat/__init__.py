"""What other libraries miss on this machine: mmcv's operators where mmcv was installed without a compiler, mmseg's
configs, and for mmpretrain the names that transformers had before version 5.

mmcv's Python code for operators (``mmcv.ops``) needs the compiled module ``mmcv._ext``, and most of mmdet needs
``mmcv.ops``. :func:`install`, which ``import sfkd`` calls, adds a last resort to Python's import system: where nothing
else finds ``mmcv._ext``, that name is the stand-in of :mod:`sfkd.compat.mmcv_ops`. So

* a compiled ``mmcv._ext`` is found before and never touched; one that is there but broken keeps raising its own error;
* nothing is imported until mmcv asks for it;
* one order matters: modules of mmdet and mmseg that were imported earlier have put "not compiled" functions of their
  own, or None, in the place of mmcv's. :func:`install` warns of these. (``mmdet.utils``, ``mmdet.registry`` and the
  like are no such modules.)

:func:`install` also lets a config's ``mmseg::`` find mmseg where it was not installed under the name mmsegmentation, as
OneDL's is not, ``mmcls::`` find mmpretrain, which had that name before 1.0, and ``sfkd::`` our own configs, without a
scope: mmengine would look in that of ``sfkd`` for what they name, which is mmpretrain's, mmdet's or mmseg's.

mmpretrain's vision-language models derive from classes of transformers, and ask for functions beside them that version
5 no longer has; mmpretrain 1.3 then cannot be imported at all. Beside such a transformers, :func:`install` has
mmpretrain believe that there is none: its other models work, and those say what they need.
"""
from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

from mmengine.config import Config
from mmengine.config import utils as config_utils
from mmengine.utils import is_installed

from ..shipped import PREFIX, located

NAME = 'mmcv._ext'
#: ``python -c WITH_SFKD FILE ARGUMENTS`` runs another library's program as it is, with :func:`install` before it.
WITH_SFKD = 'import sys, runpy, sfkd; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'


class StandInFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads ``mmcv._ext``, and nothing else; the last of ``sys.meta_path``."""

    def find_spec(self, fullname, path=None, target=None):
        return importlib.machinery.ModuleSpec(fullname, self,
                                              origin='sfkd.compat.mmcv_ops') if fullname == NAME else None

    def create_module(self, spec) -> None:
        return None  # an ordinary module

    def exec_module(self, module: ModuleType) -> None:
        from . import mmcv_ops  # only now: it imports torchvision
        mmcv_ops.fill(module)


class WithoutMultimodal(importlib.abc.MetaPathFinder):
    """Finds mmpretrain's note of what is installed, and corrects it: no vision-language models."""
    MODULE = 'mmpretrain.utils.dependency'

    def find_spec(self, fullname, path=None, target=None):
        spec = importlib.machinery.PathFinder.find_spec(fullname, path) if fullname == self.MODULE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Corrected(spec.loader.name, spec.loader.path)
        return spec


class _Corrected(importlib.machinery.SourceFileLoader):

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.WITH_MULTIMODAL = False


def install() -> None:
    """Let ``mmcv._ext`` be the stand-in where there is no compiled one, ``mmseg::`` and ``sfkd::`` be found, and
    mmpretrain be imported beside transformers 5; calling it again changes nothing.
    """
    if any(isinstance(finder, StandInFinder) for finder in sys.meta_path):
        return
    sys.meta_path.append(StandInFinder())
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if int(importlib.metadata.version('transformers').partition('.')[0]) >= 5:
            sys.meta_path.insert(0, WithoutMultimodal())  # before the one that would find the file as it is
            if loaded := sys.modules.get(WithoutMultimodal.MODULE):
                loaded.WITH_MULTIMODAL = False
    if not is_installed('mmsegmentation') and is_installed('mmseg'):  # mmengine asks for the former and gives up
        config_utils.MODULE2PACKAGE['mmseg'] = 'mmseg'
    # its name since 1.0, which configs of mmrazor do not know
    if not is_installed('mmcls') and is_installed('mmpretrain'):
        config_utils.MODULE2PACKAGE['mmcls'] = 'mmpretrain'
    others = Config._get_cfg_path
    Config._get_cfg_path = staticmethod(
        lambda path, base: (located(path, '_base_'), None) if path.startswith(PREFIX) else others(path, base))
    early = _without_operators()
    if early:
        warnings.warn(f'import sfkd before {", ".join(early)}: without mmcv\'s operators they now have functions that '
                      'only raise errors, or none', stacklevel=3)


def _without_operators() -> list[str]:
    """The modules that asked for ``mmcv.ops`` in vain: it is not loaded, but their top level names it."""
    if 'mmcv.ops' in sys.modules:
        return []
    asks = re.compile(r'^ {0,4}from mmcv(\.ops| import ops)', re.MULTILINE)
    loaded = [(name, getattr(module, '__file__', None)) for name, module in list(sys.modules.items())
              if name.partition('.')[0] in ('mmdet', 'mmseg')]
    return sorted(name for name, file in loaded if file and file.endswith('.py')
                  and asks.search(Path(file).read_text(encoding='utf-8')))
