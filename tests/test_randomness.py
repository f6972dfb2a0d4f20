"""Random states: seeded as the libraries do, and left as they were."""
import random
import traceback

import numpy as np
import pytest
import torch

from sfkd import randomness


def test_seeding_is_the_libraries_own_and_writes_no_tracebacks(monkeypatch):
    """``torch.manual_seed`` keeps one for each device that was never used."""
    with monkeypatch.context() as patched, randomness.preserved():
        patched.setattr(traceback, 'format_stack', lambda *_: pytest.fail('a traceback'))
        randomness.seed(3, 4, 5)
        found = torch.rand(3), np.random.rand(3), random.random()
    with randomness.preserved():
        torch.manual_seed(3), np.random.seed(4), random.seed(5)
        assert torch.equal(found[0], torch.rand(3)) and (found[1] == np.random.rand(3)).all()
        assert found[2] == random.random()
