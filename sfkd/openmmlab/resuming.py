"""Runs that survive: never fewer than one whole checkpoint, and a resumed run that ends where the uninterrupted one
does.
"""
from __future__ import annotations

import contextlib
import functools
import logging
import os
import pickle
import re
import signal
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import mmengine.runner.runner
import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from .. import randomness
from ..checkpoint import check_fit, read_checkpoint, write_checkpoint
from ..errors import ConfigError
from ..registry import HOOKS
from .workers import STAMP, Begin, Rest, Stamped, end_workers, started_deaf

KEY = 'resume'  # of what a full checkpoint holds for this hook


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """mmengine's hook, with checkpoints that are whole or not there, and hold all that a run needs to go on exactly.

    A full checkpoint is written under another name, synced and renamed; only then the oldest goes. It holds the random
    states of every process and of its data workers, and whether the validation that is due at it was done. A run that
    resumes from it makes up for that validation, and then computes, bit for bit, what the uninterrupted run computes.
    Exact means: the same number of processes and workers, a data set that keeps no state of its own (mosaic caches do),
    and no gradients half accumulated.

    On the first SIGTERM (what Slurm sends) or Ctrl-C the run ends after the step at hand, with a checkpoint, in the
    middle of an epoch too.

    Args:
        interval, kwargs: see :class:`mmengine.hooks.CheckpointHook`.
    """

    #: With several processes, steps between two moments at which they agree whether one was told to end.
    PATIENCE = 10

    priority = 'LOWEST'  # after all that changes what is saved, and after all that draws random numbers before training

    def __init__(self, interval: int = -1, **kwargs):
        super().__init__(interval, **kwargs)
        self._loaded: dict | None = None  # from the checkpoint, until it is restored
        self._saved: dict | None = None  # what goes into the next full checkpoint
        self._workers: dict[int, bytes] = {}  # the random state of each after the last batch of it that was used
        self._next_worker = 0
        self._turn = 0  # by how much the numbers of a resumed run's workers lie behind those of the first run
        self._written: int | None = None  # after how many steps the last full checkpoint was written, or resumed from
        self._before_val: dict | None = None  # this process's random state
        self._signal: int | None = None
        self._handlers: dict[int, object] = {}

    # ---- writing ----

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        again = self.max_keep_ckpts > 0 and step in self.keep_ckpt_ids  # after a validation with a new best score
        kept = [*self.keep_ckpt_ids] if self.max_keep_ckpts > 0 else []
        if self.max_keep_ckpts > 0 and not again:
            kept.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', kept)  # the oldest too: it is there while this is written
        # Saved by iterations, a run in epochs comes to the next validation by itself
        validated = (meta['epoch'] == runner.epoch if self.by_epoch else meta['iter'] == runner.iter
                     or not isinstance(runner.train_loop, IterBasedTrainLoop))
        self._write(runner, self.filename_tmpl.format(step), meta, validated)
        while len(kept) > self.max_keep_ckpts > 0:
            self._remove(self.filename_tmpl.format(kept.pop(0)))
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        ended = runner.message_hub.runtime_info.pop('ended_ckpt', None)  # of a signal
        if ended and Path(ended).name != self.filename_tmpl.format(step):
            self._remove(Path(ended).name)

    def _write(self, runner: Runner, name: str, meta: dict, validated: bool, state: dict | None = None) -> None:
        """Write a full checkpoint, with this process's random state of now unless another is given, and then its name
        into ``last_checkpoint``. First every process calls the hooks' ``before_full_checkpoint``.
        """
        runner.call_hook('before_full_checkpoint')
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        workers = [self._workers.get(i) for i in range(runner.train_dataloader.num_workers)]
        own = dict(main=state or randomness.get_state(), workers=[each and pickle.loads(each) for each in workers],
                   next_worker=self._next_worker)
        self._saved = dict(processes=all_gather_object(own), validated=validated)
        with _whole_writes():
            runner.save_checkpoint(self.out_dir, name, self.file_client_args, save_optimizer=self.save_optimizer,
                                   save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                                   backend_args=self.backend_args, **self.args)
        self._saved, self._written = None, meta['iter']
        if is_main_process():
            _write_text(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._saved is not None:
            checkpoint[KEY] = self._saved

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend, self.file_backend = self.file_backend, _RemovesLast(self.file_backend)
        try:
            with _whole_writes():
                super()._save_best_checkpoint(runner, metrics)
            self.file_backend.finish()
        finally:
            self.file_backend = backend

    def _remove(self, name: str) -> None:
        path = self.file_backend.join_path(self.out_dir, name)
        if is_main_process() and self.file_backend.isfile(path):
            self.file_backend.remove(path)

    # ---- going on ----

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            check_fit(model, checkpoint, runner._load_from, '--resume')
            self._loaded = checkpoint.get(KEY, {})

    def before_run(self, runner: Runner) -> None:
        """Before any hook asks a loader for a batch: workers that last would be as they began."""
        if not isinstance(runner._train_loop, BaseLoop) or isinstance(runner.train_dataloader.worker_init_fn, Begin):
            return  # a test, also after the training
        loader = runner.train_dataloader
        if loader.num_workers:
            loader.collate_fn = Stamped(loader.collate_fn)
        for each in (loader, *([] if runner.val_loop is None else [runner.val_dataloader])):
            each.worker_init_fn = Begin(each.worker_init_fn)
            each._get_iterator = functools.partial(started_deaf, each._get_iterator)

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self._listen()
        if is_main_process():  # what a killed run was writing
            for file in Path(runner.work_dir).glob('.*.pth.*'):
                file.unlink()
        loader = runner.train_dataloader
        saved, self._loaded = self._loaded, None
        if saved is None:
            return
        self.last_ckpt, self._written = runner._load_from, runner.iter
        if problem := _inexact(saved, loader.num_workers):
            print_log(f'{problem}: the resumed run sees other random numbers than the interrupted one would have',
                      'current', level=logging.WARNING)
        else:
            own = saved['processes'][get_rank()]
            randomness.set_state(own['main'])
        if not saved.get('validated', True) and self._validation_due(runner.train_loop):
            runner.logger.info(
                'the run was interrupted before the validation that follows its checkpoint: made up for now')
            runner.val_loop.run()
        if not problem:
            self._continue(runner.train_loop, own)

    @staticmethod
    def _validation_due(loop) -> bool:
        if loop.runner.val_loop is None:
            return False
        loop._decide_current_val_interval()
        iterations = isinstance(loop, IterBasedTrainLoop)
        now, end = (loop._iter, loop._max_iters) if iterations else (loop._epoch, loop._max_epochs)
        return now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)

    def _continue(self, loop, own: dict) -> None:
        """Let the data loader begin where it was, and restore this process's random state as soon as it has begun."""
        loader, state = loop.dataloader, randomness.get_state()
        if isinstance(loop, IterBasedTrainLoop):
            batches = loop.dataloader_iterator
            if batches._resolve_sampler() is not None and batches._resolve_batch_size():  # else it loads what it skips
                self._continue_workers(loader, own['workers'], own['next_worker'])
            batches.skip_iter(loop._iter)
            batches._ensure_iterator()
            loop.fast_forward_on_resume = True  # done
            randomness.set_state(state)
            return
        done = loop._iter - loop._epoch * len(loader)  # of an epoch that was left in its middle
        if done > 0 or loader.persistent_workers:  # else the epoch begins as in the uninterrupted run
            self._continue_workers(loader, own['workers'], own['next_worker'] if done > 0 else 0)
            object.__setattr__(loader, 'batch_sampler', Rest(loader.batch_sampler, done, state))  # it is guarded

    def _continue_workers(self, loader, states: list[dict | None], turn: int) -> None:
        if None in states:
            print_log('the run was interrupted before each data worker had made a batch: the resumed run has other '
                      'augmentations than the interrupted one would have had', 'current', level=logging.WARNING)
        elif states:
            loader.worker_init_fn.states, self._turn = states[turn:] + states[:turn], turn
            # a checkpoint may come before each has made a batch again
            self._workers, self._next_worker = {i: pickle.dumps(state) for i, state in enumerate(states)}, turn

    def before_train_epoch(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return  # its one iterator is there already
        if not loader.persistent_workers:
            if loader.worker_init_fn.states is None:  # new ones
                self._workers, self._next_worker = {}, 0
        elif self._turn and runner.iter % len(loader) == 0:  # from now on each worker is again at its own place
            loader._iterator = None
            self._continue_workers(loader, [pickle.loads(self._workers[i]) for i in range(loader.num_workers)], 0)
            loader.batch_sampler.state = randomness.get_state()  # as if no worker had begun

    def after_train_epoch(self, runner: Runner) -> None:
        super().after_train_epoch(runner)
        runner.train_dataloader.worker_init_fn.states = None  # the next epoch's workers begin as ever
        if not runner.train_dataloader.persistent_workers:
            self._turn = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if isinstance(data_batch, dict) and STAMP in data_batch:
            count = runner.train_dataloader.num_workers
            worker, state = data_batch.pop(STAMP)
            worker = (worker + self._turn) % count
            self._workers[worker], self._next_worker = state, (worker + 1) % count

    # ---- ending ----

    def _listen(self) -> None:
        def note(number: int, frame) -> None:
            self._signal = number
            signal.signal(number, self._handlers[number])  # a second one does what it always does
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, note)

    def after_train(self, runner: Runner) -> None:
        super().after_train(runner)
        end_workers(runner)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        loader = runner.train_dataloader
        if len(self._workers) < loader.num_workers and batch_idx + 1 < len(loader):
            return  # until each worker has said where it is: a few steps
        if number := self._told(runner.iter + 1):
            self._save_and_end(runner, number)

    def _save_and_end(self, runner: Runner, number: int) -> None:
        if self._written != runner.iter + 1:  # not saved this very moment
            if self.by_epoch:  # in the middle of an epoch
                self._write_for_now(runner, runner.iter + 1, validated=True)
            else:
                self._save_checkpoint(runner)
        end_workers(runner)
        raise Ended(number, self.last_ckpt)

    def _write_for_now(self, runner: Runner, step: int, validated: bool, state: dict | None = None) -> None:
        """Write a checkpoint after so many steps that stays until the next one that is due."""
        name, earlier = f'iter_{step}.pth', runner.message_hub.runtime_info.get('ended_ckpt')
        runner.message_hub.update_info('ended_ckpt', self.file_backend.join_path(self.out_dir, name))
        self._write(runner, name, dict(epoch=runner.epoch, iter=step), validated, state)
        if earlier and Path(earlier).name != name:
            self._remove(Path(earlier).name)

    def before_val(self, runner: Runner) -> None:
        self._before_val = randomness.get_state()

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self._signal is None or get_world_size() > 1:  # processes may have unlike numbers of batches here
            return
        if self._written != runner.iter:  # as it was before the validation, which is then made up for
            self._write_for_now(runner, runner.iter, validated=False, state=self._before_val)
        end_workers(runner)
        raise Ended(self._signal, self.last_ckpt)

    def _told(self, count: int) -> int | None:
        """The signal to end, once all processes know of it."""
        if get_world_size() == 1:
            return self._signal
        if count % self.PATIENCE:
            return None
        number = torch.tensor(self._signal or 0)
        all_reduce(number, 'max')
        return int(number) or None


class Ended(Exception):
    """A run was told to end and has saved what it had.

    Args:
        number: the signal's.
        checkpoint: where it goes on.
    """

    def __init__(self, number: int, checkpoint: str | None):
        self.status = 128 + number  # as shells have it
        there = f"{checkpoint} has it all" if checkpoint else 'no checkpoint was due yet'
        super().__init__(
            f'{signal.Signals(number).name}: the run has ended; {there}. The same command with --resume goes on')


def newest_checkpoint(folder: str | Path, since: float = 0, strict: bool = False) -> str | None:
    """The newest full checkpoint in a work directory that is whole; each that is damaged is named in the log.

    What ``last_checkpoint`` names comes first, then all others by the time at which they were written.

    Args:
        folder: may not be there yet.
        since: seconds since the epoch; what was written before does not count.
        strict: whether it is an error that there are whole checkpoints, and none has an optimizer.

    Raises:
        ConfigError: see ``strict``.
    """
    folder = Path(folder)
    pointer = folder / 'last_checkpoint'
    last = pointer.read_text().strip() if pointer.is_file() else ''
    others = [file for file in folder.glob('*.pth') if re.fullmatch(r'(epoch|iter)_\d+\.pth', file.name)]
    others.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    # By name in this folder: the run may have moved since
    named = [path for path in (folder / Path(last).name, Path(last)) if last and path.is_file()][:1]
    bare = None
    for file in dict.fromkeys([*named, *others]):
        if file.stat().st_mtime < since:
            continue
        try:
            if 'optimizer' in read_checkpoint(str(file), '--resume'):
                return str(file)
            bare = bare or file
        except ConfigError as error:
            print_log(f'--resume: {error}; it is skipped', 'current', level=logging.WARNING)
    if bare is not None and strict:
        raise ConfigError(f"--resume: '{bare}' holds no optimizer (the checkpoint hook's save_optimizer?), and no "
                          f'other checkpoint there does; start from it with --cfg-options load_from={bare} and another '
                          '--work-dir')
    return None


# ---- files ----

@contextlib.contextmanager
def _whole_writes() -> Iterator[None]:
    """Within it, what mmengine's runner saves is written whole or not at all."""
    def save(checkpoint: dict, filename: str, file_client_args=None, backend_args=None) -> None:
        if '://' in filename:  # of a remote store, which has its own way of being whole
            original(checkpoint, filename, file_client_args, backend_args)
        else:
            write_checkpoint(checkpoint, filename)
    original, mmengine.runner.runner.save_checkpoint = mmengine.runner.runner.save_checkpoint, save
    try:
        yield
    finally:
        mmengine.runner.runner.save_checkpoint = original


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_name(f'.{path.name}.part')
    temporary.write_text(text)
    os.replace(temporary, path)


class _RemovesLast:
    """A file backend whose removals wait until something new is there."""

    def __init__(self, backend):
        self._backend, self._waiting = backend, []

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._waiting.append(path)

    def finish(self) -> None:
        for path in self._waiting:
            self._backend.remove(path)


def _inexact(saved: dict, workers: int) -> str | None:
    """Why a checkpoint does not hold the random states that this run needs."""
    if not saved:
        return 'the checkpoint holds no random states'
    processes = saved['processes']
    if len(processes) != get_world_size():
        return f'the checkpoint is of {len(processes)} processes, and this run has {get_world_size()}'
    if len(processes[0]['workers']) != workers:
        return f"the checkpoint is of {len(processes[0]['workers'])} data workers a process, and this run has {workers}"
    return None
