"""A mini config on a few pictures: how it is trained, and what is known of it then."""
from __future__ import annotations

import copy
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from ...checkpoint import read_checkpoint
from ...datasets.digits_wild import generate_cls, generate_det, generate_seg
from ...openmmlab.configs import load_config
from ...openmmlab.running import build_runner
from ...shipped import TOOLS
from ..matrix.seam import OURS, options_of_weights

#: Task -> a pair.
PAIRS = dict(cls='sfkd::mini/cls_resnet_to_mixer.py', det='sfkd::mini/det_swin_to_resnet8.py',
             seg='sfkd::mini/seg_swin_to_resnet8.py')
#: Its student alone.
ALONE = dict(cls='sfkd::mini/cls_mixer.py', det='sfkd::mini/det_gfl_resnet8.py',
             seg='sfkd::mini/seg_fcn_resnet8.py')
LIBRARY = dict(cls='mmpretrain', det='mmdet', seg='mmseg')

#: What was looked at -> (whether it is as it should be, what was found).
Findings = dict[str, tuple[bool, str]]


def make_data(root: Path) -> Path:
    """A few pictures of each task."""
    generate_cls(root / 'cls', counts=dict(train=120, val=60, test=20))
    generate_det(root / 'det', counts=dict(train=12, val=2, test=2))
    generate_seg(root / 'seg', counts=dict(train=24, val=2, test=2))
    return root


def configured(path: str, folder: Path, data: Path, epochs: int = 1, batch: int = 10) -> Config:
    """A mini config on a few pictures, without workers and schedules."""
    config = load_config(path, str(folder))
    task = re.search(r'/(cls|det|seg)_', path)[1]
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.num_workers, loader.dataset.data_root = 0, str(data / task)
        evaluator = config.get(f'{split}_evaluator', {})
        if 'ann_file' in evaluator:
            evaluator.ann_file = str(data / task / loader.dataset.ann_file)
    config.train_dataloader.batch_size, config.train_cfg.max_epochs = batch, epochs
    config.param_scheduler, config.log_level = None, 'WARNING'
    config.experiment_name = f'{folder.name}_{time.monotonic_ns()}'  # mmengine keeps what it logs by this name
    return config


def without_validation(config: Config) -> Config:
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    config.default_hooks.checkpoint.save_best = None
    return config


class Record(Hook):
    """What a training began with, and what it gave."""

    def __init__(self):
        self.losses: list[dict[str, float]] = []
        self.scores: list[dict[str, float]] = []

    def before_train(self, runner: Runner) -> None:  # load_from is loaded by now
        self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}
        self.options = options_of_weights(runner.model, runner.optim_wrapper.optimizer)

    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.losses.append({key: value.item() for key, value in outputs.items()})

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        self.scores.append(dict(metrics))

    def distils(self) -> bool:
        """Whether every step had finite losses, of the distillation too."""
        return all(any(key.startswith('distill.') for key in step) and all(map(math.isfinite, step.values()))
                   for step in self.losses)


def trained(config: Config) -> tuple[Runner, Record]:
    config.test_cfg = config.test_dataloader = config.test_evaluator = None
    runner, record = build_runner(config), Record()
    runner.register_hook(record)
    runner.train()
    return runner, record


def student_weights(model: nn.Module | dict) -> dict[str, Tensor]:
    saved = model if isinstance(model, dict) else model.state_dict()
    return {name: value for name, value in saved.items() if not name.startswith(OURS)}


def saved_weights(file: Path) -> dict[str, Tensor]:
    return read_checkpoint(str(file), file.name)['state_dict']


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run(*command, fails: bool = False) -> str:
    """What a command printed, in a process of its own.

    Raises:
        RuntimeError: if it fails, or with ``fails`` if it does not.
    """
    environment = {**os.environ, 'PYTHONPATH': os.getcwd(), 'PYTHON': sys.executable}
    done = subprocess.run([str(part) for part in command], env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    if (done.returncode != 0) != fails:
        raise RuntimeError(f'status {done.returncode}: {done.stdout[-1500:]}')
    return done.stdout


def score_of(config: Config, file: Path) -> dict[str, float]:
    """What tools/test.py gives a student's file on the validation set."""
    config = copy.deepcopy(config)
    config.test_dataloader, config.test_evaluator, config.test_cfg = config.val_dataloader, config.val_evaluator, {}
    config.dump(file.with_suffix('.config.py'))
    out = file.with_suffix('.json')
    run(sys.executable, TOOLS / 'test.py', file.with_suffix('.config.py'), file, '--work-dir', file.parent / 'scored',
        '--out', out)
    return json.loads(out.read_text())
