"""SFKD: spatial-frequency knowledge distillation between different architectures.

Importing the package registers every component with mmengine. It imports torch and mmengine, none of the model
libraries.
"""
import sys

from . import compat
from .datasets import PictureFolder
from .distillation import Distillation
from .openmmlab import SFKD, Distiller
from .shipped import check_program
from .version import __version__

check_program(sys.argv[0])
compat.install()  # imports nothing: only if mmcv asks for its compiled operators and has none

__all__ = ['SFKD', 'Distillation', 'Distiller', 'PictureFolder', '__version__']
