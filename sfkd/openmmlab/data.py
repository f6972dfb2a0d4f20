"""Looks through the data before training, and names the sample that cannot be trained on."""
from __future__ import annotations

import logging

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from ..datasets import PictureFolder
from ..datasets.checking import check_dataset, classes_of, leaves_of, named
from ..errors import ConfigError
from ..registry import HOOKS
from .masks import ignored_label


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Before training, checks what the training and validation sets list: files that are missing and labels that the
    model does not know end the run, all of them together; boxes and pictures that mmdetection leaves out are counted.
    During it, a picture that cannot be read, or a label map with an unknown class, is named.

    Raises:
        ConfigError: with every problem found, in every process.
    """
    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        classes, problems, notes = classes_of(model), [], []
        for split, loop in dict(train=runner.train_loop, val=runner.val_loop).items():
            for leaf in leaves_of(loop.dataloader.dataset) if loop is not None else ():
                if not hasattr(leaf, 'get_data_info'):
                    continue
                where = f'{split}_dataloader.dataset'
                if split == 'train' and isinstance(leaf, PictureFolder) and _asks_for_labels(model):
                    problems.append(f'{where}: a PictureFolder has no labels, which the losses of this '
                                    f"{type(model).__name__} ask for; distil with model.task_weight=0, or give labels")
                named(leaf, classes, where, ignored_label(model))
                if is_main_process():
                    found = check_dataset(leaf, classes, where)
                    problems += found[0]
                    notes += found[1]
        for note in notes:
            print_log(note, 'current', level=logging.WARNING)
        problems += _uneven(runner)
        shared = [problems]
        broadcast_object_list(shared)
        if shared[0]:
            raise ConfigError(shared[0])


def _asks_for_labels(model: nn.Module) -> bool:
    return getattr(getattr(model, 'distillation', None), 'task_weight', 1) != 0


def _uneven(runner: Runner) -> list[str]:
    """A process that has a batch more than the others would wait for them until the time limit."""
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return []  # by iterations the loader begins again
    counts = all_gather_object(len(runner.train_dataloader))
    if len(set(counts)) == 1:
        return []
    return [f'train_dataloader: the processes would make {min(counts)} to {max(counts)} batches an epoch, and the last '
            'would wait for ever; set round_up=True in its sampler']
