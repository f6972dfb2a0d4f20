"""Hooks around a distillation run."""
from __future__ import annotations

import functools
import math
import re
from pathlib import Path

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.registry import EVALUATOR
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from torch import nn

from .. import randomness
from ..checkpoint import stock_checkpoint, write_checkpoint
from ..datasets import ReplayedDataset
from ..distillation.cache import TeacherCache, digest_of, digest_of_data, digest_of_network, tap_shapes
from ..distillation.precision import resolved
from ..distillation.teacher import Teacher
from ..errors import ConfigError
from ..registry import HOOKS
from .building import normalisation_of
from .running import plain_scores


def unwrapped(runner: Runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Beside every full checkpoint, one of the student alone that the stock model loads strictly.

    ``student_latest.pth`` follows the last full checkpoint, ``student_best.pth`` the best (with several metrics
    ``student_best_<metric>.pth``); both are replaced whole, so an interrupted run leaves the last ones.
    """
    priority = 'VERY_LOW'  # after an EMA has put in its averages, before a resumed run makes up for a validation

    def before_train(self, runner: Runner) -> None:
        # A resumed run knows the old run's files, and wrote their students itself
        self._written = self._newest(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        newest = self._newest(runner)
        for key, full in newest.items():
            if self._written.get(key) != full:
                name = 'student_latest' if key == 'last_ckpt' else 'student_' + key.replace('_ckpt', '').replace(
                    '/', '_')
                write_checkpoint(stock_checkpoint(checkpoint), Path(runner.work_dir, f'{name}.pth'))
        self._written = newest

    @staticmethod
    def _newest(runner: Runner) -> dict[str, str]:
        """``{'last_ckpt' or 'best_ckpt...': the file it stands for}``."""
        return {key: file for key, file in runner.message_hub.runtime_info.items()
                if file and (key == 'last_ckpt' or key.startswith('best_ckpt'))}


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stops a run whose loss is no longer finite, before a checkpoint of it is written, and names the term that failed
    first.

    Args:
        interval: iterations between two looks; each look waits for the device. There is one before each checkpoint too.
        skip: how many optimizer steps in all may be left out because a gradient is not finite (each looked at: a wait a
            step); what such a step left in running statistics goes too. 0 leaves out none. AMP's loss scaler leaves out
            such steps by itself, most of them in its search for a scale, which are no errors: there those count of
            which a loss, before scaling, is not finite, since the run was last started. With several optimizers, Apex
            or DeepSpeed none is left out.
    """

    def __init__(self, interval: int = 50, skip: int = 0):
        self.interval, self.skip, self.skipped = interval, skip, 0
        self._allowed: float = 0  # iterations with a loss that is not finite
        self._invalid: int | torch.Tensor = 0  # those that there were
        # {names of an iteration's terms: (terms,), the iteration in which each was first not finite, or inf}
        self._failed: dict[tuple[str, ...], torch.Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        wrapper = runner.optim_wrapper
        self.skipped = runner.message_hub.runtime_info.get('skipped_steps', 0)  # before a resumed run was interrupted
        if (not self.skip or not isinstance(wrapper, OptimWrapper)
                or isinstance(wrapper, (ApexOptimWrapper, OptimWrapperDict))):
            return
        scaler = getattr(wrapper, 'loss_scaler', None)
        self._scaled = scaler is not None and scaler.is_enabled()
        self._allowed = self.skip if self._scaled else math.inf  # each step is looked at
        self._optimize, wrapper.step = wrapper.step, functools.partial(self._step, runner)
        self._buffers = [buffer for buffer in runner.model.buffers() if buffer.is_floating_point()]
        self._kept = [buffer.clone() for buffer in self._buffers]  # as they were after the last step

    def _step(self, runner: Runner, **kwargs) -> None:
        gradients = [
            p.grad for group in runner.optim_wrapper.param_groups for p in group['params'] if p.grad is not None
        ]
        finite = bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all())  # the same in every process
        for buffer, kept in zip(self._buffers, self._kept):
            kept.copy_(buffer) if finite else buffer.copy_(kept)
        if finite or self._scaled:  # which leaves it out, and looks for another scale
            self._optimize(**kwargs)
            return
        self.skipped += 1
        runner.message_hub.update_info('skipped_steps', self.skipped)
        runner.logger.warning(
            f'iteration {runner.iter + 1}: a gradient is not finite; the step is left out '
            f'({self.skipped} of {self.skip})')
        if self.skipped > self.skip:
            raise FloatingPointError(
                f'iteration {runner.iter + 1}: more than InvalidLossHook.skip={self.skip} steps had a gradient that '
                'is not finite; the last checkpoint is kept')

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self.interval:
            return
        names = tuple(key for key, value in outputs.items() if torch.is_tensor(value) and value.numel() == 1)
        values = torch.stack([outputs[key].detach().reshape(()).float() for key in names])
        if names not in self._failed:  # a set for steps that distil, another for those that do not
            self._failed[names] = torch.full_like(values, torch.inf)
        finite, failed = values.isfinite(), self._failed[names]
        self._failed[names] = torch.where(finite, failed, failed.clamp_max(runner.iter + 1))
        self._invalid = self._invalid + ~finite.all()
        if self.every_n_train_iters(runner, self.interval):
            self._look()

    def after_train_epoch(self, runner: Runner) -> None:
        self._look()

    def before_full_checkpoint(self, runner: Runner) -> None:  # of ResumableCheckpointHook, in every process
        self._look()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:  # whatever saves, in the first alone
        self._look()

    def _look(self) -> None:
        if not self._invalid > self._allowed:
            return
        names, when = [name for names in self._failed for name in names], torch.cat([*self._failed.values()]).tolist()
        first = min(when)
        terms = [name for name, at in zip(names, when) if at == first and name != 'loss'] or ['loss']
        often = f' ({self._invalid} times, more than InvalidLossHook.skip={self.skip})' if self._allowed else ''
        raise FloatingPointError(
            f'iteration {first:.0f}: not finite: {", ".join(terms)}{often}; the last checkpoint is kept. Lower the '
            'learning rate or the weight of these terms, or train without --amp')


@HOOKS.register_module()
class CurveGroupsHook(Hook):
    """Has loggers that group curves by what is before a slash (TensorBoard, W&B, MLflow) show one group ``distill`` and
    one ``task``. The names in mmengine's own files, and everywhere else, stay what they are.
    """

    def before_run(self, runner: Runner) -> None:
        for backend in runner.visualizer._vis_backends.values():
            if not isinstance(backend, LocalVisBackend):
                backend.add_scalars = functools.partial(self._add, backend.add_scalars)

    @staticmethod
    def _add(add_scalars, scalars: dict, *args, **kwargs) -> None:
        add_scalars({re.sub(r'^(distill|task)\.', r'\1/', name): value for name, value in scalars.items()},
                    *args, **kwargs)


def cannot_be_scored(teacher: Teacher) -> str | None:
    """Why a teacher gives no prediction for the student's pictures; None where it does."""
    if teacher.input_size:
        size = 'x'.join(map(str, teacher.input_size))
        return f'the teacher is shown pictures of {size} px, not those of the data set'
    if not hasattr(teacher.network, 'val_step'):
        return f'the teacher, {type(teacher.network).__name__}, is no model of OpenMMLab and predicts nothing'
    return None


@HOOKS.register_module()
class TeacherReportHook(Hook):
    """Before training, scores the teacher on the validation set: its own weights and normalisation, the student's
    pictures. A teacher of other pictures (``teacher_input_size``), or that predicts nothing, is not scored, which the
    log says.
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
        if why := cannot_be_scored(distillation.teacher):
            runner.logger.warning(f'TeacherReportHook: {why}, so it is not scored')
            return
        evaluator = runner.cfg.val_evaluator
        evaluator = EVALUATOR.build(evaluator) if 'metrics' in evaluator else Evaluator(evaluator)
        evaluator.dataset_meta = loader.dataset.metainfo
        with torch.no_grad(), randomness.preserved():
            for batch in loader:
                evaluator.process(data_samples=teacher.val_step(batch), data_batch=batch)
        scores = evaluator.evaluate(len(loader.dataset))
        runner.logger.info('teacher on the validation set: ' + '  '.join(
            f'{key}: {value:.4f}' if isinstance(value, float) else f'{key}: {value}'
            for key, value in plain_scores(scores).items()))


@HOOKS.register_module()
class TeacherCacheHook(Hook):
    """Keeps the teacher's features of every augmented picture on disk; once all are there, no teacher runs any more,
    and it leaves the memory.

    The training set must be a :class:`sfkd.datasets.ReplayedDataset`, and all pictures of one size. Of a
    :class:`Cohort` what any of its members taps is kept. See :class:`sfkd.distillation.TeacherCache`.

    Args:
        folder: of the cache; runs of the same teacher, data, pipeline and seed share it. A ``{fingerprint}`` in it
            becomes a digest of these, so that every run finds or makes its own.
        max_gib: the most that the whole folder may take.
        stored: 'fp32' or 'bf16', see :class:`sfkd.distillation.TeacherCache`.

    Raises:
        ConfigError: where the run cannot be cached, or the folder is of another run; nothing in it is changed then.
    """

    def __init__(self, folder: str, max_gib: float = 20.0, stored: str = 'fp32'):
        self.folder, self.max_gib, self.stored = folder, max_gib, stored
        self.cache: TeacherCache | None = None

    def before_train(self, runner: Runner) -> None:
        student, dataset = unwrapped(runner), runner.train_loop.dataloader.dataset
        distillation = getattr(student, 'distillation', None) or getattr(student, 'one_pass', None)
        if distillation is None or not distillation.pairs:
            return  # students alone, or every weight 0: no teacher runs
        if not isinstance(dataset, ReplayedDataset):
            raise ConfigError("TeacherCacheHook: train_dataloader.dataset draws new augmentations every time; wrap it: "
                              "dict(type='sfkd.ReplayedDataset', dataset=...)")
        if getattr(student.data_preprocessor, 'batch_augments', None) is not None:
            raise ConfigError(
                'TeacherCacheHook: data_preprocessor.batch_augments mixes pictures, which no cache of single '
                'pictures can stand in for; set it to None')
        if distillation.teacher.rest is not None:
            raise ConfigError('TeacherCacheHook: model.anchor asks for the rest of the teacher in every step, which no '
                              'cache of features can stand in for; leave out one of the two (the method srrl has one)')
        teacher, fingerprint = distillation.teacher, self._fingerprint(runner, student, distillation.teacher)
        rows = len(dataset) * dataset.variants
        folder = self.folder.replace('{fingerprint}', digest_of(*fingerprint.values(), str(rows), self.stored))
        self.cache = TeacherCache(teacher, folder, rows, tap_shapes(distillation), fingerprint, self.max_gib,
                                  self.stored)
        distillation.teacher = self.cache
        for hook in runner.hooks:  # an averaged copy of the model has the same teacher, and would hold it in memory
            if isinstance(hook, EMAHook):
                hook.ema_model.module.distillation.teacher = self.cache

    @staticmethod
    def _fingerprint(runner: Runner, student: nn.Module, teacher: Teacher) -> dict[str, str]:
        """Digests of what the teacher's features depend on, by name."""
        dataset = runner.train_loop.dataloader.dataset
        optimizer = runner.optim_wrapper
        optimizer = next(optimizer.values()) if isinstance(optimizer, OptimWrapperDict) else optimizer
        precision = resolved(teacher.precision, next(teacher.network.parameters()).device)
        return dict(
            teacher=digest_of_network(teacher.network),
            normalisation=digest_of(*map(str, (normalisation_of(student), normalisation_of(teacher.network),
                                               teacher.input_size))),
            precision=digest_of(type(optimizer).__name__, str(getattr(optimizer, 'cast_dtype', None)), precision),
            data=digest_of_data(dataset),
            # with the pipelines of wrapped data sets
            pipeline=digest_of(str(runner.cfg.train_dataloader.dataset.dataset)), seed=str(dataset.seed))

    def before_train_epoch(self, runner: Runner) -> None:
        if self.cache is not None:
            self.cache.release_teacher()
