from .cka import linear_cka
from .terms import PairReport, report_terms

__all__ = ['PairReport', 'linear_cka', 'report_terms']
