"""The random states of this process: torch's on the CPU and on its own GPU, NumPy's and Python's."""
from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def get_state() -> dict:
    """All random states, in types that ``torch.load(weights_only=True)`` reads."""
    kind, keys, *rest = np.random.get_state()
    version, internal, gauss = random.getstate()
    return dict(torch=torch.get_rng_state(), cuda=torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
                numpy=[kind, torch.from_numpy(keys.astype(np.int64)), *rest], python=[version, list(internal), gauss])


def set_state(state: dict) -> None:
    """Restore what :func:`get_state` gave."""
    torch.set_rng_state(state['torch'].cpu())
    if state['cuda'] is not None:
        torch.cuda.set_rng_state(state['cuda'].cpu())
    kind, keys, *rest = state['numpy']
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    version, internal, gauss = state['python']
    random.setstate((version, tuple(internal), gauss))


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Leave every random state as it was: what happens inside changes nothing in the training outside."""
    state = get_state()
    try:
        yield
    finally:
        set_state(state)
