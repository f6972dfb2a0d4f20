"""The hook by which a run says how long it takes."""
from __future__ import annotations

import logging
import math

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner

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
        loader = runner.train_loop.dataloader
        # the length of an endless sampler is that of all processes together
        processes = runner.world_size if isinstance(loader.sampler, InfiniteSampler) else 1
        self.estimate = Estimate(runner.max_iters, math.ceil(len(loader) / processes), runner.iter)
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
            runner.logger.info(str(self.estimate))
        if self.bar.visible:
            loss = (outputs or {}).get('loss')
            self.bar.show(self.estimate.line(None if loss is None else float(loss)))

    def after_train(self, runner: Runner) -> None:
        self.bar.clear()
