"""How far a long run is, and how long the whole of it will take."""
from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    """Counts the steps of a run on a terminal, in one line that stays in its place; in a file, a line now and then.
    After three steps it says how long the whole will take; the first, which warms everything up, does not count.

    Args:
        total: steps of the run.
        done: of them before this process, where a run goes on.
        stream: where it writes.
        interval: seconds between two lines in a file.
    """

    def __init__(self, total: int, done: int = 0, stream: TextIO | None = None, interval: float = 30.0):
        self.total, self.done, self.own = total, done, 0
        self.stream, self.interval = stream or sys.stderr, interval
        self.begun = self.written = time.monotonic()
        self.warm: float | None = None  # when the first step had ended
        self.in_place = self.stream.isatty()

    def step(self, loss: float) -> None:
        """A step has ended."""
        now = time.monotonic()
        self.done, self.own = self.done + 1, self.own + 1
        if self.warm is None:
            self.warm = now
        if self.own == 3:
            seconds = self.seconds_a_step(now)
            self._line(f'about {spelled(seconds * self.total)} for {self.total} steps ({seconds:.2f} s each), '
                       f'{spelled(seconds * (self.total - self.done))} of it to come')
        last = self.done == self.total
        if self.in_place or last or now - self.written >= self.interval:
            rest = spelled(self.seconds_a_step(now) * (self.total - self.done))
            text = f'step {self.done}/{self.total}  loss {loss:.4f}  ' + (
                f'{spelled(now - self.begun)} in all' if last else f'{rest} to go')
            self.written = now
            self._line(text, stays=last or not self.in_place)

    def seconds_a_step(self, now: float) -> float:
        """The mean over this process's steps without the first."""
        return (now - self.warm) / (self.own - 1) if self.own > 1 else now - self.begun

    def _line(self, text: str, stays: bool = True) -> None:
        self.stream.write(f'\r\033[K{text}' if self.in_place else text)
        self.stream.write('\n' * stays)
        self.stream.flush()


def spelled(seconds: float) -> str:
    """A duration for people: '45 s', '12 min', '3 h 20 min'."""
    if seconds < 100:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 100 else f'{minutes // 60} h {minutes % 60} min'
