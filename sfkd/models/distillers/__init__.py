from .cohort import Cohort
from .distiller import Distiller
from .sfkd import SFKD

__all__ = ['Cohort', 'Distiller', 'SFKD']
