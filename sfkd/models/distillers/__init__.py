from .distiller import Distiller
from .sfkd import SFKD

__all__ = ['Distiller', 'SFKD']
