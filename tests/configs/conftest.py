import functools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])  # configs name their students and teachers from here


@pytest.fixture
def plain():
    """A config without the scope that mmengine notes in what it takes from another library's."""
    def strip(config):
        if isinstance(config, dict):
            return {key: strip(value) for key, value in config.items() if key != '_scope_'}
        return [strip(value) for value in config] if isinstance(config, (list, tuple)) else config
    return strip


@pytest.fixture(scope='session')
def read():
    """Reads a config, once in all tests; not to be changed."""
    return functools.cache(Config.fromfile)


@pytest.fixture
def step():
    """A training step: what it logs, and whether it moved the student's first weight."""
    def run(distiller, batch, optimizer):
        trained = {key: parameter for key, parameter in distiller.named_parameters() if parameter.requires_grad}
        gradients = {}
        for key, parameter in trained.items():
            parameter.register_hook(lambda gradient, key=key: gradients.update({key: gradient.norm()}))
        key, first = next(iter(trained.items()))
        before = first.detach().clone()
        logged = distiller.train().train_step(batch, optimizer)
        assert all(value.isfinite().all() for value in logged.values()), logged
        assert gradients.keys() == trained.keys()  # or DDP would wait for the rest
        assert all(gradient.isfinite() for gradient in gradients.values())
        assert key.startswith('backbone.') and gradients[key] > 0 and first.isfinite().all()
        return logged, not torch.equal(first, before)
    return run
