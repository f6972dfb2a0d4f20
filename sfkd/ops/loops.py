"""Plain loops over arrays, which numba compiles: for what PyTorch has no vector code for on a CPU."""
from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

#: The most cells of a grid that are few. Loops over cells with one over planes inside are then faster than one over
#: planes with those over rows and columns inside, which are too short to be vector code.
FEW = 4
#: PyTorch's own loops run on all of its threads, ours on one: where ours are a few times faster a number, theirs are
#: faster with more threads than these.
MOST_THREADS = 3


@cache
def compiled(loops: Callable, *allowed: str) -> Callable:
    """The function of arrays, compiled at its first call (about a second; no compiler is needed) and kept on disk for
    other processes, in ``__pycache__`` or, where that cannot be written, in the user's cache.

    Args:
        loops: the function.
        allowed: what the compiler may do with sums and products: 'reassoc', another order; 'contract', a product and
            the sum that it goes into in one rounding.
    """
    import numba  # here: its import takes a third of a second
    try:
        return numba.njit(loops, nogil=True, cache=True, fastmath=set(allowed))
    except RuntimeError:  # neither can be written
        return numba.njit(loops, nogil=True, fastmath=set(allowed))


def runs_loops(x: Tensor) -> bool:
    """Whether loops take a tensor: float32 or float64 on a CPU, and of no subclass, which may have no memory."""
    return (x.device.type == 'cpu' and x.dtype in (torch.float32, torch.float64)
            and type(x) in (Tensor, nn.Parameter))
