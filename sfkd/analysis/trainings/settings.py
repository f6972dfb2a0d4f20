"""What a stock config sets beside the model: averages, hooks, batch statistics, optimiser wrappers, what is kept."""
from __future__ import annotations

import contextlib
import copy
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import mmengine
import torch
from mmengine.model import convert_sync_batchnorm
from torch import nn

from ...openmmlab.building import read_config
from ...shipped import TOOLS
from ..matrix.seam import weight_names
from .small import (
    ALONE,
    PAIRS,
    Findings,
    configured,
    run,
    same,
    saved_weights,
    score_of,
    student_weights,
    trained,
    without_validation,
)


def ema(folder: Path, data: Path) -> Findings:
    """mmengine's EMAHook: what was scored is what is kept."""
    config = configured(PAIRS['cls'], folder, data, epochs=3)
    config.custom_hooks = [dict(type='EMAHook', momentum=0.2)]
    runner, record = trained(copy.deepcopy(config))
    averaged, raw = saved_weights(folder / 'student_latest.pth'), student_weights(runner.model)
    logged = [scores['accuracy/top1'] for scores in record.scores]
    scores = {name: score_of(config, folder / f'student_{name}.pth')['accuracy/top1'] for name in ('latest', 'best')}
    return {
        'student_latest.pth in tools/test.py gives the last logged score':
            (scores['latest'] == logged[-1], f"{scores['latest']:.4f}, logged {logged[-1]:.4f}"),
        'student_best.pth gives the best logged score':
            (scores['best'] == max(logged), f"{scores['best']:.4f}, logged {max(logged):.4f}"),
        'they hold the averages, not the weights of the last step':
            (averaged.keys() == raw.keys() and not same(averaged, raw), f'{len(averaged)} tensors'),
    }


def yolox(folder: Path, data: Path) -> Findings:
    """YOLOX-tiny with its own hooks, optimiser, mosaic and random sizes."""
    stock = read_config('mmdet::yolox/yolox_tiny_8xb8-300e_coco.py', 'yolox')
    stock.model.bbox_head.num_classes = 10
    stock.model.data_preprocessor.batch_augments[0].random_size_range = (96, 160)
    config = without_validation(configured(PAIRS['det'], folder, data, epochs=3, batch=4))
    config.model.student, config.optim_wrapper, config.custom_hooks = (stock.model, stock.optim_wrapper,
                                                                       stock.custom_hooks)
    config.custom_hooks[0].num_last_epochs = 1  # the hook switches one epoch before
    pipeline = stock.train_dataloader.dataset.pipeline
    for transform in pipeline:
        transform.update({key: (160, 128) for key in ('img_scale', 'scale') if key in transform})
        transform.update({key: (-80, -64) for key in ('border', ) if key in transform})
    config.train_dataloader.dataset.pipeline = config.train_dataloader.dataset.pipeline[:2]
    config.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=config.train_dataloader.dataset,
                                           pipeline=pipeline)
    runner, record = trained(config)
    epochs = ['loss_l1' in step for step in record.losses]
    kept = saved_weights(folder / 'student_latest.pth')
    return {
        'YOLOXModeSwitchHook: bbox_head.use_l1 in the end': (runner.model.bbox_head.use_l1 is True,
                                                                  str(runner.model.bbox_head.use_l1)),
        'loss_l1 from the second of three epochs on': (epochs == [False] * 3 + [True] * 6,
                                                       f'in {sum(epochs)} of {len(epochs)} steps'),
        'Mosaic and its like are skipped then': (
            'Mosaic' in (runner.train_dataloader.dataset._skip_type_keys or ()),
            str(runner.train_dataloader.dataset._skip_type_keys)),
        'distilled in every step': (record.distils(), f'last loss {record.losses[-1]["loss"]:.3f}'),
        'student_latest.pth holds the averages of its EMAHook': (not same(kept, student_weights(runner.model)),
                                                                 f'{len(kept)} tensors'),
    }


def sync_bn(folder: Path, data: Path) -> Findings:
    """A student with synchronised batch statistics in one process, and mmengine's conversion to them."""
    weights, count, losses = {}, {}, {}
    for kind in ('SyncBN', 'BN'):
        config = without_validation(configured('sfkd::mini/cls_resnet_to_resnet8.py', folder / kind, data))
        config.model.student.backbone.norm_cfg = dict(type=kind)
        runner, record = trained(config)
        weights[kind], losses[kind] = student_weights(runner.model), record.losses
        count[kind] = sum(isinstance(module, nn.SyncBatchNorm) for module in runner.model.modules())
    model = runner.model
    before, teacher = weight_names(model), model.distillation.teacher.network
    batch_norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    converted = convert_sync_batchnorm(model)
    synchronised = sum(isinstance(module, nn.SyncBatchNorm) for module in converted.modules())
    return {
        'one process: mmengine makes it plain again, and the training is that of BN bit for bit':
            (count['SyncBN'] == 0 and same(weights['SyncBN'], weights['BN']) and losses['SyncBN'] == losses['BN'],
             f'{len(weights["BN"])} tensors'),
        'convert_sync_batchnorm: the student\'s are converted, names stay, the teacher is left alone':
            (synchronised == batch_norms and weight_names(converted) == before and not any(
                isinstance(module, nn.SyncBatchNorm) for module in teacher.modules()),
             f'{synchronised} of {batch_norms} converted'),
    }


def sync_bn_two_processes(folder: Path, data: Path) -> Findings:
    """``sync_bn='torch'`` in two processes on a CPU: torch refuses."""
    config = without_validation(configured('sfkd::mini/cls_resnet_to_resnet8.py', folder, data))
    config.sync_bn = 'torch'
    config.dump(folder / 'config.py')
    text = run('bash', TOOLS / 'dist_train.sh', folder / 'config.py', 2, '--work-dir', folder / 'run', fails=True)
    said = re.findall(r'ValueError: (SyncBatchNorm .*)', text)
    return {"two processes on a CPU with sync_bn='torch': converted, and torch refuses before the first step":
            (bool(said), said[0] if said else text[-200:])}


def accumulation(folder: Path, data: Path) -> Findings:
    """Six iterations of which four and then two make a step."""
    found = {}
    for name, path in dict(stock=ALONE['cls'], zero=PAIRS['cls'], distilled=PAIRS['cls']).items():
        config = without_validation(configured(path, folder / name, data, batch=20))
        config.optim_wrapper.accumulative_counts = 4
        if name == 'zero':
            config.model.spatial_weight = config.model.frequency_weight = 0
        runner, record = trained(config)
        steps = {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values()}
        found[name] = student_weights(runner.model), steps, record
    zero = same(found['stock'][0], found['zero'][0])
    last = [found[name][2].losses for name in ('stock', 'zero')]
    return {
        'accumulative_counts=4 of 6 iterations, weights 0: the stock training bit for bit':
            (zero and last[0] == last[1], f'{len(found["stock"][0])} tensors'),
        'distilled: as many steps of every weight, the connectors\' too': (
            found['distilled'][1] == found['stock'][1] == {2} and found['distilled'][2].distils(),
            f'{max(found["distilled"][1])} for {len(found["distilled"][2].losses)} iterations'),
        'and other weights': (not same(found['stock'][0], found['distilled'][0]), 'the comparison can tell'),
    }


@contextlib.contextmanager
def amp_without_gpu() -> Iterator[None]:
    """mmengine's AmpOptimWrapper asks for a GPU when it is built. Its autocast in bfloat16 runs on a CPU all the same,
    and its loss scaler turns itself off there.
    """
    module = mmengine.optim.optimizer.amp_optimizer_wrapper
    asks, module.is_cuda_available = module.is_cuda_available, lambda: True
    try:
        yield
    finally:
        module.is_cuda_available = asks


def amp_bfloat16(folder: Path, data: Path) -> Findings:
    """mmengine's AmpOptimWrapper in bfloat16 on a CPU."""
    losses = {}
    for kind, options in dict(OptimWrapper={}, AmpOptimWrapper=dict(dtype='bfloat16')).items():
        config = without_validation(configured(PAIRS['cls'], folder / kind, data))
        config.optim_wrapper.update(type=kind, **options)
        with amp_without_gpu():
            runner, record = trained(config)
        losses[kind] = record
    full, half = (record.losses[0]['loss'] for record in losses.values())
    weights = {p.dtype for p in runner.model.parameters()}
    difference = abs(full - half) / full
    return {'AmpOptimWrapper in bfloat16 on a CPU: losses finite, the first near that of float32, weights in float32': (
        record.distils() and 0 < difference < 0.02 and weights == {torch.float32},
        f'{half:.4f}, in float32 {full:.4f}; last {record.losses[-1]["loss"]:.4f}')}


def amp_of_another_wrapper(folder: Path, data: Path) -> Findings:
    """``--amp`` where the config has an optimiser wrapper of its own."""
    text = run(sys.executable, TOOLS / 'train.py', PAIRS['cls'], '--amp', '--work-dir', folder, '--cfg-options',
               'optim_wrapper.type=ApexOptimWrapper', fails=True)
    said = re.findall(r'- (--amp: optim_wrapper.type .*)', text)
    return {'--amp with another optim_wrapper than mmengine\'s plain one: an error, not a replacement':
            (bool(said) and 'Traceback' not in text, said[0] if said else text[-200:])}


def save_best_list(folder: Path, data: Path) -> Findings:
    """``save_best`` with two measures: a student of each."""
    config = configured(PAIRS['cls'], folder, data, epochs=2)
    config.default_hooks.checkpoint.save_best = ['accuracy/top1', 'accuracy/top5']
    config.val_evaluator = dict(type='Accuracy', topk=(1, 5))
    _, record = trained(config)
    found = {}
    for key in ('top1', 'top5'):
        file = folder / f'student_best_accuracy_{key}.pth'
        full = next(folder.glob(f'best_accuracy_{key}_*.pth'))
        best = max(scores[f'accuracy/{key}'] for scores in record.scores)
        found[f"save_best of two measures: {file.name} is the best by {key}'s"] = (
            file.exists() and same(saved_weights(file), student_weights(saved_weights(full))),
            f'{full.name}, {best:.2f}')
    return found
