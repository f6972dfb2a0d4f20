"""SFKD: spatial-frequency knowledge distillation between different architectures.

Importing the package registers every component with mmengine. It imports torch and mmengine, none of the model
libraries.
"""
import sys

from .version import __version__

# The command ``sfkd`` lists its tools before anything is loaded, and then loads the package anew (command.py)
if not sys.argv[0].endswith('/sfkd') and (sys.argv[0], *sys.orig_argv[1:3]) != ('-m', '-m', 'sfkd'):
    from . import compat
    from .distillation import Distillation
    from .openmmlab import SFKD, Distiller

    compat.install()  # imports nothing: only if mmcv asks for its compiled operators and has none

__all__ = ['SFKD', 'Distillation', 'Distiller', '__version__']
