"""SFKD: spatial-frequency knowledge distillation between different architectures.

Importing the package registers every component with mmengine. It imports torch and mmengine, none of the model libraries.
"""
from . import engine, models  # noqa: F401  (they register)
from .version import __version__  # noqa: F401
