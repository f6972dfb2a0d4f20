"""SFKD: spatial-frequency knowledge distillation between different architectures.

Importing the package registers every component with mmengine. It imports torch and mmengine, none of the model
libraries.
"""
from . import compat
from .datasets import PictureFolder
from .distillation import Distillation
from .openmmlab import SFKD, Distiller
from .version import __version__

compat.install()  # imports nothing: only if mmcv asks for its compiled operators and has none

__all__ = ['SFKD', 'Distillation', 'Distiller', 'PictureFolder', '__version__']
