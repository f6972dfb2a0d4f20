"""OpenMMLab's face: distillations as models, hooks and runs of its configs."""
from . import amp, data, foundation, hooks, progress, resuming  # noqa: F401  (they register)
from .cohort import Cohort
from .distiller import SFKD, Distiller

__all__ = ['Cohort', 'Distiller', 'SFKD']
