"""What a long run says of itself."""
import io

import pytest

from sfkd import progress
from sfkd.progress import Progress, spelled


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0
    monkeypatch.setattr(progress.time, 'monotonic', lambda: Clock.now)
    return Clock


def run(stream, clock, seconds, **kwargs):
    bar = Progress(stream=stream, **kwargs)
    for i, each in enumerate(seconds):
        clock.now += each
        bar.step(1 / (i + 1))
    return stream.getvalue()


def test_the_first_step_does_not_count(clock):
    """60 s of warming up, and then 2 s a step."""
    lines = run(io.StringIO(), clock, [60, 2, 2], total=100).splitlines()
    assert 'about 3 min for 100 steps (2.00 s each), 3 min of it to come' in lines
    lines = run(io.StringIO(), clock, [60, 2, 2], total=100, done=90).splitlines()
    assert 'about 3 min for 100 steps (2.00 s each), 14 s of it to come' in lines


def test_a_file_gets_a_line_now_and_then_and_the_last(clock):
    lines = run(io.StringIO(), clock, [10] * 8, total=8, interval=30).splitlines()
    steps = [line.partition('  ')[0] for line in lines if line.startswith('step')]
    assert steps == ['step 3/8', 'step 6/8', 'step 8/8']
    assert lines[-1] == 'step 8/8  loss 0.1250  80 s in all'


def test_a_terminal_has_one_line_that_stays_in_its_place(clock):
    text = run(Terminal(), clock, [1] * 5, total=5)
    assert text.count('\n') == 2 and text.endswith('step 5/5  loss 0.2000  5 s in all\n')  # the estimate and the end
    assert text.count('\r') == 6


def test_durations():
    assert [spelled(s) for s in (0.4, 99.4, 120, 5940, 36000)] == ['0 s', '99 s', '2 min', '99 min', '10 h 0 min']
