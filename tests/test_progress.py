"""What a training says of its own length, by a clock that the test winds."""
import io
import os
import pty
from types import SimpleNamespace

import pytest

from sfkd.progress import Bar, Estimate, Progress, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def estimate(times, total=12, per_epoch=4, done=0):
    """After steps of so many seconds."""
    clock = Clock()
    found = Estimate(total, per_epoch, done, clock)
    for seconds in times:
        clock.now += seconds
        found.step()
    return found, clock


def test_the_first_step_is_in_no_estimate():
    found, _ = estimate([60, 1, 2])
    assert found.per_step == 1.5 and found.remaining == 9 * 1.5 and found.is_due()
    assert str(found) == ('a step takes 1.5 s, an epoch (4 steps) 6 s, the whole training (3 epochs, 12 steps) 18 s')
    assert not estimate([60, 1])[0].is_due() and not estimate([60, 1, 2, 1])[0].is_due()


def test_what_lies_between_two_epochs_is_no_step():
    found, clock = estimate([60, 1, 1])
    clock.now += 1000
    found.begin()
    clock.now += 4
    found.step()
    assert found.per_step == 2


def test_a_resumed_training_says_what_is_left():
    found, _ = estimate([60, 1, 1], done=5)
    assert found.remaining == 4 and str(found).endswith('12 s, 4 s of it left')


def test_the_line():
    found, clock = estimate([60])
    assert found.line(1.23456) == '[##......................] 1/12  epoch 1/3  loss 1.235'
    clock.now += 2
    found.step()
    assert found.line() == '[####....................] 2/12  epoch 1/3  20 s left'
    for _ in range(10):
        found.step()
    assert found.line(0) == f"[{'#' * 24}] 12/12  epoch 3/3  loss 0  0 s left"


@pytest.mark.parametrize('seconds, text', [
    (0.2149, '0.21 s'), (9.94, '9.9 s'), (9.96, '10 s'), (59.6, '1 min 00 s'), (185, '3 min 05 s'),
    (3599.6, '1 h 00 min'), (2 * 3600 + 61, '2 h 01 min'), (26 * 3600, '1 d 2 h')])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_line_is_written_over_in_place_and_makes_room(monkeypatch):
    monkeypatch.setenv('TERM', 'xterm')
    here, there = pty.openpty()
    clock = Clock()
    with open(there, 'w') as stream:
        monkeypatch.setattr(os, 'get_terminal_size', lambda fd: SimpleNamespace(columns=6))
        bar = Bar(stream, clock)
        bar.clear()                   # nothing is there yet
        bar.show('0123456789')        # as wide as the terminal at most
        bar.show('too soon')
        clock.now += 0.2
        bar.show('next')
        bar.clear()
        bar.show('anew')              # at once: the place is free
    expected, text = b'\r01234\x1b[K\rnext\x1b[K\r\x1b[K\ranew\x1b[K', b''
    while len(text) < len(expected):  # the kernel hands it over in parts
        text += os.read(here, 1000)
    os.close(here)
    assert text == expected


def test_no_line_where_nobody_looks(monkeypatch):
    stream = io.StringIO()
    bar = Bar(stream)
    bar.show('text')
    bar.clear()
    assert not bar.visible and stream.getvalue() == ''


def test_a_file_gets_the_estimate_a_line_now_and_then_and_the_last():
    stream, clock = io.StringIO(), Clock()
    progress = Progress(8, 4, stream=stream, clock=clock)
    for i in range(8):
        clock.now += 10
        progress.step(1 / (i + 1))
    estimate, *lines = stream.getvalue().splitlines()
    assert estimate.startswith('a step takes 10 s, an epoch (4 steps) 40 s, the whole training (2 epochs, 8 steps) 1 ')
    assert [line.split()[1] for line in lines] == ['6/8', '8/8'] and lines[-1].endswith('loss 0.125  0 s left')
