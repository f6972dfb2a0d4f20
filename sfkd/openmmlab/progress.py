"""The hook by which a run says how long it takes."""
from __future__ import annotations

import logging
import math
import operator

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..progress import Bar, Estimate
from ..registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """After three iterations, logs how long an iteration, an epoch and the training take; on a terminal, a line that
    follows it. In the first process alone.
    """
    priority = 'LOW'  # the loss was read, and with it the device waited for; what is logged of this step is printed

    def __init__(self):
        self.estimate: Estimate | None = None
        self.bar = Bar()

    def before_train(self, runner: Runner) -> None:
        if runner.rank:
            return
        self.estimate = Estimate(runner.max_iters, steps_an_epoch(runner), runner.iter)
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.addFilter(self._make_room)

    def _make_room(self, record: logging.LogRecord) -> bool:
        self.bar.clear()
        return True

    def before_train_epoch(self, runner: Runner) -> None:
        if self.estimate:
            self.estimate.begin()

    after_val = before_train_epoch  # of a loop that counts iterations: it validates within its one epoch

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self.estimate:
            return
        self.estimate.step()
        if self.estimate.is_due():
            runner.logger.info(f'{self.estimate}; validation is not counted')
        if self.bar.visible:
            loss = (outputs or {}).get('loss')
            self.bar.show(self.estimate.line(None if loss is None else float(loss)))

    def after_train(self, runner: Runner) -> None:
        self.bar.clear()


def steps_an_epoch(runner: Runner) -> int:
    """Of a loop that counts iterations: so many as it takes to show as many pictures as there are, for its sampler is
    endless; all of them where nobody knows how many there are.
    """
    loader = runner.train_loop.dataloader
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return len(loader)
    together = loader.batch_sampler.batch_size * runner.world_size
    return math.ceil(operator.length_hint(loader.dataset, runner.max_iters * together) / together)
