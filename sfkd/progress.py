"""How long a training takes: an estimate from its first steps, and a line on a terminal that follows it. For any loop::

    progress = Progress(epochs * len(loader), len(loader))
    for epoch in range(epochs):
        for images, labels in loader:
            ...
            progress.step(loss.item())
"""
from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from typing import TextIO

#: Steps before the first estimate. The first of them is in no estimate: it compiles, allocates and fills caches.
STEPS = 3
#: Seconds between two pictures of the line.
INTERVAL = 0.1
#: Seconds between two lines in a file.
FILE_INTERVAL = 30.0
WIDTH = 24


class Estimate:
    """How long the steps of a training take, from when they end; without what lies between :meth:`step` and
    :meth:`begin`, such as a validation.

    Args:
        total: steps of the whole training.
        per_epoch: steps of an epoch.
        done: steps that a resumed training has behind it.
        clock: gives seconds.
    """

    def __init__(self, total: int, per_epoch: int, done: int = 0, clock: Callable[[], float] = time.perf_counter):
        self.total, self.per_epoch, self.done, self.clock = total, per_epoch, done, clock
        self.steps, self.seconds = 0, 0.0  # of this process, the seconds without those of the first step
        self.began = clock()

    def begin(self) -> None:
        """The next step begins now: at the start of an epoch, and after whatever is no step."""
        self.began = self.clock()

    def step(self) -> None:
        """A step has ended, and the next one begins."""
        began, self.began = self.began, self.clock()
        self.seconds += self.began - began if self.steps else 0.0
        self.steps += 1
        self.done += 1

    def is_due(self) -> bool:
        """Whether this is the step after which a training says how long it will take."""
        return self.steps == STEPS

    @property
    def per_step(self) -> float:
        """Seconds a step, on average; not a number before the second step has ended."""
        return self.seconds / (self.steps - 1) if self.steps > 1 else math.nan

    @property
    def remaining(self) -> float:
        """Seconds to the end."""
        return (self.total - self.done) * self.per_step

    def __str__(self) -> str:
        epochs = math.ceil(self.total / self.per_epoch)
        left = f', {duration(self.remaining)} of it left' if self.done > self.steps else ''
        return (f'a step takes {duration(self.per_step)}, an epoch ({self.per_epoch} steps) '
                f'{duration(self.per_epoch * self.per_step)}, the whole training ({epochs} epochs, {self.total} steps) '
                f'{duration(self.total * self.per_step)}{left}')

    def line(self, loss: float | None = None) -> str:
        """Where the training is, for :class:`Bar`."""
        filled = WIDTH * self.done // self.total
        epoch, epochs = (math.ceil(steps / self.per_epoch) for steps in (self.done, self.total))
        shown = '' if loss is None else f'  loss {loss:.4g}'
        left = '' if math.isnan(self.per_step) else f'  {duration(self.remaining)} left'
        return (f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self.done}/{self.total}  epoch {epoch}/{epochs}{shown}"
                f'{left}')


class Bar:
    """One line of a terminal, written over in place; on any other stream nothing at all.

    Args:
        stream: standard error by default.
        clock: gives seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self.stream, self.clock = stream or sys.stderr, clock
        self.visible = self.stream.isatty() and os.environ.get('TERM') != 'dumb'
        self.drawn, self.when = False, -math.inf

    def show(self, line: str) -> None:
        """Put a line in the place of the one before, where that is :data:`INTERVAL` old."""
        if not self.visible or self.clock() - self.when < INTERVAL:
            return
        self.drawn, self.when = True, self.clock()
        columns = os.get_terminal_size(self.stream.fileno()).columns or 80
        self._write(line[:columns - 1])  # a line that wraps could not be written over

    def clear(self) -> None:
        """Take the line away, so that something else can be printed in its place."""
        if self.drawn:
            self.drawn, self.when = False, -math.inf
            self._write('')

    def _write(self, line: str) -> None:
        self.stream.write(f'\r{line}\x1b[K')
        self.stream.flush()


class Progress:
    """What a plain loop says of itself: after three steps how long all will take, then on a terminal one line that
    stays in its place, in a file a line now and then, and the last.

    Args:
        total, per_epoch, done, clock: see :class:`Estimate`.
        stream: standard error by default.
    """

    def __init__(self, total: int, per_epoch: int, done: int = 0, stream: TextIO | None = None,
                 clock: Callable[[], float] = time.perf_counter):
        self.estimate, self.bar, self.clock = Estimate(total, per_epoch, done, clock), Bar(stream), clock
        self.written = clock()

    def step(self, loss: float) -> None:
        """A step has ended."""
        self.estimate.step()
        if self.estimate.is_due():
            self._print(str(self.estimate))
        last = self.estimate.done == self.estimate.total
        if last or not self.bar.visible and self.clock() - self.written >= FILE_INTERVAL:
            self._print(self.estimate.line(loss))
        else:
            self.bar.show(self.estimate.line(loss))

    def _print(self, text: str) -> None:
        self.bar.clear()
        print(text, file=self.bar.stream, flush=True)
        self.written = self.clock()


def duration(seconds: float) -> str:
    """Seconds in words of two units at most: '0.21 s', '45 s', '3 min 05 s', '2 h 10 min', '3 d 4 h'."""
    if seconds < 9.95:
        return f'{seconds:.2g} s'
    whole = round(seconds)
    minutes, hours, days = whole // 60, round(whole / 60) // 60, round(whole / 3600) // 24
    if days:
        return f'{days} d {round(whole / 3600) % 24} h'
    if hours:
        return f'{hours} h {round(whole / 60) % 60:02} min'
    return f'{minutes} min {whole % 60:02} s' if minutes else f'{whole} s'
