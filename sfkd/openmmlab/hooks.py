"""Hooks around a distillation run."""
from __future__ import annotations

from pathlib import Path

import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import EVALUATOR
from mmengine.runner import Runner

from .. import randomness
from ..checkpoint import read_checkpoint, stock_checkpoint, write_checkpoint
from ..distillation.cache import TeacherCache, digest_of, digest_of_data, digest_of_network, tap_shapes
from ..errors import ConfigError
from ..registry import HOOKS
from .building import normalisation_of


def unwrapped(runner: Runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Beside every full checkpoint, one of the student alone that the stock model loads strictly.

    ``student_latest.pth`` follows the last full checkpoint, ``student_best.pth`` the best; both are replaced whole, so
    an interrupted run leaves the last ones.
    """
    priority = 'LOWEST'  # after mmengine's CheckpointHook

    def before_train(self, runner: Runner) -> None:
        # A resumed run knows the old run's files by paths that may have moved; it wrote their students itself
        self._written = {key: runner.message_hub.runtime_info.get(key) for key in ('last_ckpt', 'best_ckpt')}

    def after_train_epoch(self, runner: Runner) -> None:
        self._follow(runner, 'last_ckpt', 'student_latest.pth')

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        self._follow(runner, 'last_ckpt', 'student_latest.pth')

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        self._follow(runner, 'best_ckpt', 'student_best.pth')

    def after_train(self, runner: Runner) -> None:
        self._follow(runner, 'last_ckpt', 'student_latest.pth')

    def _follow(self, runner: Runner, key: str, name: str) -> None:
        full = runner.message_hub.runtime_info.get(key)
        if full and self._written[key] != full and is_main_process():
            write_checkpoint(stock_checkpoint(read_checkpoint(full, key)), Path(runner.work_dir, name))
            self._written[key] = full


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Makes a resumed run continue the random numbers of the interrupted one, so that it ends where that would have
    ended.

    mmengine saves no random state. Written by each process at the first epoch after a full checkpoint. Exact where the
    data loader restarts its workers every epoch (``persistent_workers=False``) or has none.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        file = Path(runner.work_dir, f'random_state_rank{get_rank()}.pth')
        last = runner.message_hub.runtime_info.get('last_ckpt', '')
        if getattr(runner, '_resume', False) and not self._restored:
            self._restored = True
            if runner.epoch:
                self._restore(runner, file)
        if Path(last).name == f'epoch_{runner.epoch}.pth':
            write_checkpoint(dict(epoch=runner.epoch, **randomness.get_state()), file)

    _restored = False

    @staticmethod
    def _restore(runner: Runner, file: Path) -> None:
        state = read_checkpoint(str(file), 'resume') if file.exists() else {}
        if state.get('epoch') != runner.epoch:
            runner.logger.warning(
                f'no random state of epoch {runner.epoch} in {file}: the resumed run will see other random numbers '
                'than the interrupted one would have')
            return
        randomness.set_state(state)


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stops a run whose loss is no longer finite and names the terms that are not.

    Args:
        interval: iterations between two looks; each look waits for the device.
    """

    def __init__(self, interval: int = 50):
        self.interval = interval

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.interval) and not torch.isfinite(outputs['loss']):
            terms = [f'{key} = {value.item():g}' for key, value in outputs.items() if not torch.isfinite(value).all()]
            raise FloatingPointError(
                f'iteration {runner.iter + 1}: not finite: {", ".join(terms)}; the last checkpoint is kept. '
                'Lower the learning rate or the weight of the term that failed first, or train without --amp')


@HOOKS.register_module()
class TeacherReportHook(Hook):
    """Before training, scores the teacher on the validation set: its own weights and normalisation, the student's
    pictures.
    """
    priority = 'HIGH'  # before a cache takes the teacher's place

    def before_train(self, runner: Runner) -> None:
        distillation = unwrapped(runner).distillation
        if runner.val_loop is None:
            runner.logger.warning('TeacherReportHook: the config has no validation set')
            return
        if not distillation.pairs:
            runner.logger.warning('TeacherReportHook: every weight is 0, so no teacher was loaded and none is scored')
            return
        teacher, loader = distillation.teacher.network, runner.val_loop.dataloader
        evaluator = runner.cfg.val_evaluator
        evaluator = EVALUATOR.build(evaluator) if 'metrics' in evaluator else Evaluator(evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        with torch.no_grad(), randomness.preserved():
            for batch in loader:
                evaluator.process(data_samples=teacher.val_step(batch), data_batch=batch)
        scores = evaluator.evaluate(len(loader.dataset))
        runner.logger.info('teacher on the validation set: ' + '  '.join(f'{key}: {value:.4f}'
                                                                         for key, value in scores.items()))


@HOOKS.register_module()
class TeacherCacheHook(Hook):
    """Keeps the teacher's features of every augmented picture on disk; once all are there, no teacher runs any more,
    and it leaves the memory.

    The training set must be a :class:`sfkd.datasets.ReplayedDataset`, and all pictures of one size. See
    :class:`sfkd.distillation.TeacherCache`.

    Args:
        folder: of the cache; runs of the same teacher, taps, data, pipeline and seed share it.
        max_gib: the most that it may take.

    Raises:
        ConfigError: where the run cannot be cached, or the folder is of another run; nothing in it is changed then.
    """

    def __init__(self, folder: str, max_gib: float = 20.0):
        self.folder, self.max_gib = folder, max_gib
        self.cache: TeacherCache | None = None

    def before_train(self, runner: Runner) -> None:
        from ..datasets import (
            ReplayedDataset,  # not above: its package loads scikit-learn, which 'import sfkd' does without
        )
        student, dataset = unwrapped(runner), runner.train_loop.dataloader.dataset
        distillation = getattr(student, 'distillation', None)
        if distillation is None or not distillation.pairs:
            return  # the student alone, or every weight 0: no teacher runs
        if not isinstance(dataset, ReplayedDataset):
            raise ConfigError("TeacherCacheHook: train_dataloader.dataset draws new augmentations every time; wrap it: "
                              "dict(type='sfkd.ReplayedDataset', dataset=...)")
        if getattr(student.data_preprocessor, 'batch_augments', None) is not None:
            raise ConfigError(
                'TeacherCacheHook: data_preprocessor.batch_augments mixes pictures, which no cache of single pictures can '
                'stand in for; set it to None')
        teacher, config = distillation.teacher, runner.cfg.train_dataloader.dataset.dataset
        fingerprint = dict(
            teacher=digest_of_network(teacher.network), normalisation=digest_of(str(normalisation_of(student)),
                                                                                str(normalisation_of(teacher.network)),
                                                                                str(teacher.input_size)),
            precision=type(runner.optim_wrapper).__name__, data=digest_of_data(dataset),
            pipeline=digest_of(str(config.pipeline)), seed=str(dataset.seed))
        self.cache = TeacherCache(teacher, self.folder,
                                  len(dataset) * dataset.variants, tap_shapes(distillation), fingerprint, self.max_gib)
        distillation.teacher = self.cache

    def before_train_epoch(self, runner: Runner) -> None:
        if self.cache is not None:
            self.cache.release_teacher()
