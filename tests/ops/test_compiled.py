"""Compiled loops are kept on disk, where that can be written."""
import numba
import numpy as np

from sfkd.ops import loops


def double(x):
    for i in range(len(x)):
        x[i] *= 2


def test_they_are_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, 'CACHE_DIR', str(tmp_path))
    for hits in 0, 1:
        loops.compiled.cache_clear()
        compiled, x = loops.compiled(double), np.ones(3)
        compiled(x)
        assert x.tolist() == [2, 2, 2] and sum(compiled.stats.cache_hits.values()) == hits


def test_where_nothing_can_be_written_they_are_compiled_all_the_same(monkeypatch):
    njit, asked = numba.njit, []

    def refused(function, **options):
        asked.append(options)
        if options.get('cache'):
            raise RuntimeError('cannot cache function: no locator available')
        return njit(function, **options)
    monkeypatch.setattr(numba, 'njit', refused)
    loops.compiled.cache_clear()
    x = np.ones(2)
    loops.compiled(double)(x)
    assert x.tolist() == [2, 2] and len(asked) == 2
