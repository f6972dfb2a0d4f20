"""Distillation in plain PyTorch: the flow, its pairs, the teacher and what stands in for it."""
from .cache import TeacherCache
from .distillation import Distillation, Taught
from .method import sfkd
from .pair import Pair
from .teacher import Normalisation, Teacher

__all__ = ['Distillation', 'Normalisation', 'Pair', 'Taught', 'Teacher', 'TeacherCache', 'sfkd']
