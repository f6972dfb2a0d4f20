"""The random states of this process: torch's on the CPU and on its own GPU, NumPy's and Python's."""
from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def _now() -> tuple:
    """All random states, as each library has them."""
    return (torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
            np.random.get_state(), random.getstate())


def _restore(in_torch, in_cuda, in_numpy, in_python) -> None:
    torch.set_rng_state(in_torch)
    if in_cuda is not None:
        torch.cuda.set_rng_state(in_cuda)
    np.random.set_state(in_numpy)
    random.setstate(in_python)


def get_state() -> dict:
    """All random states, in types that ``torch.load(weights_only=True)`` reads."""
    in_torch, in_cuda, (kind, keys, *rest), (version, internal, gauss) = _now()
    return dict(torch=in_torch, cuda=in_cuda, numpy=[kind, torch.from_numpy(keys.astype(np.int64)), *rest],
                python=[version, list(internal), gauss])


def set_state(state: dict) -> None:
    """Restore what :func:`get_state` gave."""
    kind, keys, *rest = state['numpy']
    version, internal, gauss = state['python']
    _restore(state['torch'].cpu(), None if state['cuda'] is None else state['cuda'].cpu(),
             (kind, keys.cpu().numpy().astype(np.uint32), *rest), (version, tuple(internal), gauss))


def seed(in_torch: int, in_numpy: int, in_python: int) -> None:
    """Seed the three. ``torch.manual_seed`` would note it, with a traceback, for every device that was never used, too:
    0.2 ms (``python -m timeit -s 'import torch' 'torch.manual_seed(1)'``) and, from deep calls, more than a small
    picture takes.
    """
    torch.default_generator.manual_seed(in_torch)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(in_torch)
    np.random.seed(in_numpy)
    random.seed(in_python)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Leave every random state as it was: what happens inside changes nothing in the training outside."""
    state = _now()
    try:
        yield
    finally:
        _restore(*state)
