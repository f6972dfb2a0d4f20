from .cka import debiased_cka, gram, linear_cka
from .terms import PairReport, report_terms

__all__ = ['PairReport', 'debiased_cka', 'gram', 'linear_cka', 'report_terms']
