"""Data workers of a run that may be interrupted: their random states travel with batches, signals pass them by, and
none outlives its run.
"""
from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable

from mmengine.runner import Runner
from torch.utils.data import get_worker_info

from .. import randomness

STAMP = 'worker_state'  # of a batch: the number of the worker that made it, and the worker's random state afterwards


def end_workers(runner: Runner) -> None:
    """End the data workers that live as long as the run: torch waits seconds for each where they go with a reference
    cycle.
    """
    batches = getattr(runner.train_loop, 'dataloader_iterator', None)
    for iterator in (getattr(batches, '_iterator', None), runner.train_dataloader._iterator):
        if iterator is not None and hasattr(iterator, '_shutdown_workers'):
            iterator._shutdown_workers()


def end_with_parent() -> None:
    """On Linux: have the system kill this process when the one that started it is gone.

    Of torchrun's agent that is killed (for memory, say) the processes would train on, beside the run that is started in
    its place and into the same work directory; of a killed process the data workers that wait to hand out a batch would
    stay for ever.
    """
    if sys.platform == 'linux':
        # What started a data worker can be gone before the worker gets here, and then another process is its parent
        starter = multiprocessing.parent_process()
        by_server = isinstance(multiprocessing.current_process(), multiprocessing.context.ForkServerProcess)
        parent = os.getppid() if starter is None or by_server else starter.pid
        set_parent_death_signal = 1  # the number is that of sys/prctl.h
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # gone before that
            os.kill(os.getpid(), signal.SIGKILL)


class Stamped:
    """A collate function whose batches bear the worker that made them and its random state afterwards."""

    def __init__(self, collate: Callable):
        self.collate = collate

    def __call__(self, items):
        batch, worker = self.collate(items), get_worker_info()
        if worker is not None and isinstance(batch, dict):
            batch[STAMP] = worker.id, pickle.dumps(randomness.get_state())
        return batch


class Begin:
    """How a data worker begins: as it did, deaf to what tells the whole run to end, and where another one was.

    Slurm signals workers too, and Ctrl-C reaches them; the run needs them until its step is done. They still end when
    it ends them.
    """

    def __init__(self, begin: Callable | None):
        self.begin = begin
        self.states: list[dict] | None = None  # of the workers in whose places they begin

    def __call__(self, worker: int) -> None:
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_when_told, daemon=True).start()
        if self.begin is not None:
            self.begin(worker)
        if self.states:
            randomness.set_state(self.states[worker])


def started_deaf(start: Callable):
    """Start a data loader's workers so that no signal reaches them before :class:`Begin` has run in them."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    try:
        return start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _end_when_told() -> None:
    """In a data worker: end at a SIGTERM from its own run, at no other."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)


class Rest:
    """A batch sampler whose first pass leaves out what an interrupted epoch has had, and restores a random state
    there.
    """

    def __init__(self, sampler, done: int, state: dict):
        self.original, self.done, self.state = sampler, done, state

    def __getattr__(self, name: str):
        return getattr(self.original, name)

    def __len__(self) -> int:
        return len(self.original)

    def __iter__(self):
        done, self.done = self.done, 0
        batches = itertools.islice(self.original, done, None)
        first = next(batches, None)
        if self.state is not None:
            randomness.set_state(self.state)
            self.state = None
        if first is not None:
            yield first
            yield from batches
