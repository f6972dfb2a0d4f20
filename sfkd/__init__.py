"""SFKD: spatial-frequency knowledge distillation between different architectures.

Importing the package registers every component with mmengine. It imports torch and mmengine, none of the model libraries.
"""
from . import compat, engine, models  # noqa: F401  (the latter two register)
from .version import __version__  # noqa: F401

compat.install()  # imports nothing: only if mmcv asks for its compiled operators and has none
