import functools
from pathlib import Path

import pytest
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
