"""GELU and SiLU in half precision on a CPU, read from a table of all that they can give.

A number of 16 bits has 65,536 values, so that a table of as many says what PyTorch's function gives, to the last bit,
and reading it takes a fraction of computing erf or exp. Ours.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .loops import MOST_THREADS, compiled

#: Below, a call of PyTorch's own is over sooner.
FEWEST = 4096


class TabulatedActivations(TorchFunctionMode):
    """A context in which ``torch.nn.functional.gelu`` and ``silu``, and so the modules that call them, read tables
    where that is faster: of a CPU's maps in bfloat16 or float16 that take no gradients.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (F.gelu, F.silu) and len(args) == 1 and _pays(args[0]):
            x = args[0]
            given = x if kwargs.get('inplace') else torch.empty_like(x)  # in the layout of x
            _read(x, given, _table(function, x.dtype, kwargs.get('approximate')))
            return given
        return function(*args, **kwargs)


def _pays(x: Tensor) -> bool:
    return (not torch.compiler.is_compiling()
            and x.device.type == 'cpu' and x.dtype in (torch.bfloat16, torch.float16) and x.numel() >= FEWEST
            and type(x) is Tensor and not (x.requires_grad and torch.is_grad_enabled())
            and torch.get_num_threads() <= MOST_THREADS
            and (x.is_contiguous() or x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)))


@cache
def _table(function: Callable[[Tensor], Tensor], dtype: torch.dtype, approximate: str | None) -> np.ndarray:
    values = torch.arange(-2**15, 2**15, dtype=torch.int32).to(torch.int16).view(dtype).roll(2**15)
    with torch.inference_mode(), torch._C.DisableTorchFunction():
        given = function(values) if approximate is None else function(values, approximate=approximate)
    return given.view(torch.int16).numpy().copy()


def _read(x: Tensor, given: Tensor, table: np.ndarray) -> None:
    compiled(_look_up)(_flat(x).view(np.uint16), _flat(given), table)


def _flat(x: Tensor) -> np.ndarray:
    """The numbers in the order in which they lie in memory."""
    return x.detach().as_strided((x.numel(),), (1,)).view(torch.int16).numpy()


def _look_up(x, given, table):
    for i in range(x.size):
        given[i] = table[x[i]]
