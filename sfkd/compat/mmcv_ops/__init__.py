"""mmcv's compiled operators by torchvision and plain torch, on any device: what stock mmdet, mmseg and mmpretrain
models call.

Every function here has the name and the arguments with which ``mmcv/ops/*.py`` calls ``mmcv._ext`` (read from
onedl-mmcv 2.3.6); most fill tensors that the caller made. Values and gradients are those of mmcv's operators, at
borders and ties too, with these exceptions:

* half precision is computed in float32 and rounded once at the end;
* RoIs without area: ``max`` RoIAlign gives 0 (mmcv: -10000), RoIPool sends no gradient (mmcv: to the first cell);
* multi-scale deformable attention is mmcv's own form for CPUs, whose gradient differs where a location is exactly one
  cell outside.

Any other operator of mmcv raises a RuntimeError that says how to compile them.
"""
from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

from mmengine.logging import print_log

from . import boxes, losses, reassembly, regions, sampling

#: How mmcv gets its operators: its setup.py compiles them if torch can be imported while building, which pip's
#: isolation prevents.
INSTALL = ('pip install --no-build-isolation --no-cache-dir --force-reinstall --no-deps --no-binary onedl-mmcv '
           'onedl-mmcv=={version}')


def fill(module: ModuleType) -> None:
    """Put the operators into a module that is to be ``mmcv._ext``, and say so once."""
    vars(module).update({function.__name__: function for function in OPERATORS}, __getattr__=_missing)
    print_log('mmcv has no compiled operators here: torch and torchvision stand in for those that models need '
              '(docs/architecture.md)', logger='current')


def _missing(name: str) -> Callable:
    """Any other name of ``mmcv._ext``: it is there, as mmcv checks when it is imported, but calling it is an error."""
    if name.startswith('__'):
        raise AttributeError(f'the stand-in for mmcv._ext has no {name}')

    def operator(*args, **kwargs):
        import mmcv
        raise RuntimeError(
            f"mmcv's operator '{name}' is missing: this mmcv was installed without compiled operators, and sfkd has no "
            'stand-in for this one. Compile them (needs a C++ compiler, ninja and, for a GPU, the CUDA toolkit; '
            f'FORCE_CUDA=1 where no GPU is visible):\n  {INSTALL.format(version=mmcv.__version__)}')
    return operator


def get_compiler_version() -> str:
    return 'n/a (no compiled operators)'


def get_compiling_cuda_version() -> str:
    return 'n/a (no compiled operators)'


OPERATORS = (get_compiler_version, get_compiling_cuda_version, *(
    function for file in (boxes, regions, sampling, reassembly, losses) for name, function in vars(file).items()
    if not name.startswith('_') and getattr(function, '__module__', None) == file.__name__))
