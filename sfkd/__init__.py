"""SFKD: spatial-frequency knowledge distillation between different architectures.

Importing the package registers every component with mmengine. It imports torch and mmengine, none of the model
libraries.
"""
from . import compat
from .distillation import Distillation
from .openmmlab import SFKD, Distiller
from .version import __version__

compat.install()  # imports nothing: only if mmcv asks for its compiled operators and has none

__all__ = ['SFKD', 'Distillation', 'Distiller', 'PictureFolder', '__version__']


def __getattr__(name: str):
    if name == 'PictureFolder':  # not above: its package loads scikit-learn
        from .datasets import PictureFolder
        return PictureFolder
    raise AttributeError(f"module 'sfkd' has no attribute '{name}'")
