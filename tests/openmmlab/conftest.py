"""What a run of small_run.py ends with where nobody interrupts it, and what it says."""
import pytest
from small_run import runner_of

from sfkd.openmmlab import resuming


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """{(loop, workers, persistent): the weights at the end}."""
    found = {}

    def weights(*setting):
        if setting not in found:
            runner = runner_of(tmp_path_factory.mktemp('whole') / 'run', *setting)
            runner.train()
            found[setting] = {key: value.clone() for key, value in runner.model.state_dict().items()}
        return found[setting]
    return weights


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(resuming, 'print_log', lambda text, *_, **__: lines.append(text))
    return lines
