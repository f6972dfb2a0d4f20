"""Means of few runs, and how sure they are."""
from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from scipy.stats import t as student_t


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f'{mean(values):.2f} ± {stdev(values):.2f}' if len(values) > 1 else f'{mean(values):.2f}'


def interval(values: Sequence[float]) -> str:
    """Mean and 95% confidence interval of a mean (Student's t)."""
    if len(values) == 1:
        return f'{mean(values):+6.2f}'
    t = round(student_t.ppf(0.975, len(values) - 1), 2)  # as printed in tables of it
    return f'{mean(values):+6.2f} ± {t * stdev(values) / math.sqrt(len(values)):.2f}'
