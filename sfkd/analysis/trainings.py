"""Short real trainings of what stock recipes ask of a model by the names of its parts, on the embedded benchmark."""
from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import convert_sync_batchnorm
from mmengine.runner import Runner, save_checkpoint
from torch import Tensor, nn

from ..checkpoint import read_checkpoint
from ..compat import WITH_SFKD
from ..datasets.digits_wild import generate_cls, generate_det, generate_seg
from ..errors import ConfigError
from ..openmmlab.building import build_model, initialise, read_config
from ..openmmlab.running import build_runner, load_config
from ..shipped import CONFIGS, TOOLS
from .seam import OURS, optim_wrapper, options_of_weights, weight_names
from .stock import one_line

PAIRS = dict(cls='sfkd::mini/cls_resnet_to_mixer.py', det='sfkd::mini/det_swin_to_resnet8.py',
             seg='sfkd::mini/seg_swin_to_resnet8.py')
ALONE = dict(cls='sfkd::mini/cls_mixer.py', det='sfkd::mini/det_gfl_resnet8.py',
             seg='sfkd::mini/seg_fcn_resnet8.py')
FLAGSHIP = 'sfkd/seg_pspnet_r101_to_pspnet_r18.py'
MASK_RCNN = 'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
LIBRARY = dict(cls='mmpretrain', det='mmdet', seg='mmseg')
SMALL_CONVNEXT = dict(arch=dict(depths=[1, 1, 3, 1], channels=[8, 16, 24, 32]), init_cfg=None)

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


# ---- averages, switches, batch statistics ----

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


# ---- the optimiser ----

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


# ---- the stock libraries' own tools ----

def stock_tools(task: str, folder: Path, data: Path) -> Findings:
    """A library's own train.py and test.py with a distillation config."""
    tools = Path(importlib.import_module(LIBRARY[task]).__file__).parent / '.mim/tools'
    start = [sys.executable, '-c', WITH_SFKD]
    configs = {}
    for name, path in dict(pair=PAIRS[task], alone=ALONE[task]).items():
        config = configured(path, folder, data, epochs=8 if task == 'det' else 1, batch=2 if task == 'det' else 4)
        config.log_level, config.default_hooks.checkpoint.save_best = 'INFO', None
        if task == 'det':  # on the pictures of the training, so that there is something to score
            config.train_cfg.val_interval, training = 8, config.train_dataloader.dataset
            config.test_dataloader.dataset.update(ann_file=training.ann_file, data_prefix=training.data_prefix)
            config.test_evaluator.ann_file = str(Path(training.data_root, training.ann_file))
        configs[name] = folder / f'{task}_{name}.py'
        config.dump(configs[name])
    text = run(*start, tools / 'train.py', configs['pair'], '--work-dir', folder)
    measure = dict(cls='accuracy/top1', det='coco/bbox_mAP', seg='mIoU')[task]

    def score(text: str) -> str:
        return re.findall(rf'{measure}: +([\d.e+-]+)', text)[-1]
    full = folder / f'epoch_{config.train_cfg.max_epochs}.pth'
    scores = [score(run(*start, tools / 'test.py', configs[name], full, '--work-dir', folder / name))
              for name in ('pair', 'alone')]
    ours = score(run(sys.executable, TOOLS / 'test.py', configs['pair'], full, '--work-dir', folder / 'ours'))
    library, more = LIBRARY[task], {}
    if task == 'seg':  # OneDL's mmseg has a package name that mmengine does not know
        read = f"from mmengine import Config; Config.fromfile('{CONFIGS / FLAGSHIP}')"
        refused = re.findall(r'ModuleNotFoundError: .*', run(sys.executable, '-c', read, fails=True))
        run(sys.executable, '-c', f'import sfkd; {read}')
        more[f'configs/{FLAGSHIP}, whose base is mmseg::, is read once sfkd is imported, and not before'] = (
            bool(refused), ''.join(refused))
    return {
        f"{library}'s own train.py with {PAIRS[task]}": ('distill.' in text and full.exists(), 'trains and distils'),
        f"{library}'s own test.py scores the full checkpoint by the pair's config, by the student's own, as ours does":
            (len({*scores, ours}) == 1, f'{measure} {", ".join([*scores, ours])}'),
        **more
    }


# ---- layer decay and load_from ----

def layer_decay(folder: Path, data: Path, library: str, recipe: str, student: dict, path: str,
                change: Callable[[Config], None] = lambda config: None) -> Findings:
    """A stock recipe's layer decay, started from a stock checkpoint.

    Args:
        recipe: the stock config, of which the optimiser is taken.
        student: a small model of its classes.
        path: the mini pair whose data and teacher are taken.
        change: what else is to be different in the config.
    """
    recipe = read_config(f'{library}::{recipe}', 'recipe').optim_wrapper
    torch.manual_seed(1)
    stock = build_model(student, 'student', scope=library)
    initialise(stock)
    with torch.no_grad():
        for weight in stock.parameters():
            weight += 0.01 * torch.rand_like(weight)
    save_checkpoint(dict(meta={}, state_dict=stock.state_dict()), str(folder / 'stock.pth'))

    size = dict(cls=dict(batch=10), seg=dict(batch=2), det=dict(batch=2, epochs=2))  # twelve iterations each
    config = without_validation(configured(path, folder, data, **size[Path(path).name[:3]]))
    change(config)
    config.model.student, config.load_from = student, str(folder / 'stock.pth')
    config.optim_wrapper = {key: value for key, value in recipe.items() if key not in ('type', 'loss_scale', 'dtype')}
    runner, record = trained(config)

    expected = options_of_weights(stock, optim_wrapper(stock, recipe).optimizer)
    found = {name: options for name, options in record.options.items() if not name.startswith(OURS)}
    rates = sorted({options['lr'] for options in found.values()})
    own = {options['lr'] for name, options in record.options.items() if name.startswith(OURS)}
    learnt = [name for name in found if not torch.equal(runner.model.state_dict()[name], stock.state_dict()[name])]
    return {
        f"{recipe.constructor}: every student weight's group is the stock one":
            (found == expected and len(rates) > 3,
             f'{len(found)} weights at {len(rates)} rates from {rates[0]:.3g} to {rates[-1]:.3g}; connectors '
             f'{", ".join(f"{rate:.3g}" for rate in sorted(own))}'),
        'load_from a stock checkpoint: every tensor arrives before the first step':
            (same(student_weights(record.weights), stock.state_dict()), f'{len(stock.state_dict())} tensors'),
        'distilled in every step, and every weight moves':
            (record.distils() and len(learnt) >= 0.95 * len(found),
             f'{len(record.losses)} steps, loss {record.losses[0]["loss"]:.3f} to {record.losses[-1]["loss"]:.3f}; '
             f'{len(learnt)} of {len(found)} weights moved'),
    }


def beit(folder: Path, data: Path) -> Findings:
    """A BEiT classifier with mmpretrain's layer decay, mixed pictures included."""
    path = 'beit/benchmarks/beit-base-p16_8xb128-coslr-100e_in1k.py'
    stock = read_config(f'mmpretrain::{path}', 'beit')
    stock.model.backbone.update(img_size=64, init_cfg=None, arch=dict(
        embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64))
    stock.model.head.update(num_classes=10, in_channels=32)
    student = dict(stock.model, type='mmpretrain.ImageClassifier',
                   data_preprocessor=dict(stock.data_preprocessor, num_classes=10, type='ClsDataPreprocessor'))
    return layer_decay(folder, data, 'mmpretrain', path, student, PAIRS['cls'])


def upernet(folder: Path, data: Path) -> Findings:
    """A ConvNeXt UPerNet with mmseg's layer decay."""
    path = 'convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py'
    student = read_config(f'mmseg::{path}', 'upernet').model
    student.backbone.update(SMALL_CONVNEXT)
    student.decode_head.update(in_channels=[8, 16, 24, 32], channels=16, num_classes=11)
    student.auxiliary_head.update(in_channels=24, channels=8, num_classes=11)
    student.data_preprocessor.size = (128, 128)
    student.test_cfg = dict(mode='whole')
    for head in (student.decode_head, student.auxiliary_head):
        head.norm_cfg = dict(type='BN', requires_grad=True)
    return layer_decay(folder, data, 'mmseg', path, student, PAIRS['seg'])


def small_mask_rcnn() -> Config:
    """mmdet's ConvNeXt Mask R-CNN, narrow, for ten classes."""
    student = read_config(f'mmdet::{MASK_RCNN}', 'mask_rcnn').model
    student.backbone.update(SMALL_CONVNEXT)
    student.neck.update(in_channels=[8, 16, 24, 32], out_channels=32)
    student.rpn_head.update(in_channels=32, feat_channels=32)
    heads = student.roi_head
    for extractor in (heads.bbox_roi_extractor, heads.mask_roi_extractor):
        extractor.out_channels = 32
    heads.bbox_head.update(in_channels=32, fc_out_channels=64, num_classes=10)
    heads.mask_head.update(in_channels=32, conv_out_channels=32, num_convs=1, num_classes=10)
    return student


def small_mask2former() -> Config:
    """mmdet's Mask2Former for instances, narrow and shallow, for ten classes."""
    student = read_config('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 'mask2former').model
    student.backbone.update(depth=18, stem_channels=8, base_channels=8, norm_eval=False, init_cfg=None,
                            norm_cfg=dict(type='BN', requires_grad=True))
    head, narrow = student.panoptic_head, dict(embed_dims=32, num_heads=4)
    head.update(in_channels=[8, 16, 32, 64], feat_channels=32, out_channels=32, num_things_classes=10, num_queries=20,
                positional_encoding=dict(num_feats=16, normalize=True))
    head.loss_cls.class_weight = [1.0] * 10 + [0.1]
    pixels = head.pixel_decoder
    pixels.update(norm_cfg=dict(type='GN', num_groups=8), positional_encoding=dict(num_feats=16, normalize=True))
    for decoder, attentions, layers in ((pixels.encoder, ('self_attn_cfg', ), 1),
                                        (head.transformer_decoder, ('self_attn_cfg', 'cross_attn_cfg'), 2)):
        decoder.num_layers = layers
        for attention in attentions:
            decoder.layer_cfg[attention].update(narrow)
        decoder.layer_cfg.ffn_cfg.update(embed_dims=32, feedforward_channels=64)
    student.panoptic_fusion_head.num_things_classes = 10
    student.train_cfg.num_points = 256
    return student


def mask_rcnn(folder: Path, data: Path) -> Findings:
    """A ConvNeXt Mask R-CNN with mmdet's layer decay."""
    def with_masks(config: Config) -> None:
        config.train_dataloader.dataset.pipeline[1].with_mask = True
    return layer_decay(folder, data, 'mmdet', MASK_RCNN, small_mask_rcnn(), PAIRS['det'], with_masks)


# ---- instances with masks ----

def instances(make: Callable[[], Config], epochs: int, folder: Path, data: Path) -> Findings:
    """A student that finds masks, taught by a detector without: trained, exported, and scored by mmdet's own test.py
    on the pictures of the training, so that there is something to score.
    """
    configs, student = {}, make()
    for name, path in dict(pair=PAIRS['det'], alone=ALONE['det']).items():
        config = without_validation(configured(path, folder, data, epochs=epochs, batch=2))
        student.data_preprocessor = dict(config.data_preprocessor, pad_mask=True)
        config.model = dict(config.model, student=student) if name == 'pair' else student
        training, test = config.train_dataloader.dataset, config.test_dataloader.dataset
        test.update(ann_file=training.ann_file, data_prefix=training.data_prefix)
        for pipeline in (training.pipeline, test.pipeline):
            next(step for step in pipeline if step.type == 'LoadAnnotations').with_mask = True
        config.test_evaluator.update(ann_file=str(Path(training.data_root, training.ann_file)),
                                     metric=['bbox', 'segm'])
        config.log_level = 'INFO'
        configs[name] = folder / f'{name}.py'
        config.dump(configs[name])
    text = run(sys.executable, TOOLS / 'train.py', configs['pair'], '--work-dir', folder / 'run')
    full, exported = folder / f'run/epoch_{epochs}.pth', folder / 'student.pth'
    run(sys.executable, TOOLS / 'export_student.py', configs['pair'], full, exported)
    library = Path(importlib.import_module('mmdet').__file__).parent
    test = [sys.executable, '-c', WITH_SFKD, library / '.mim/tools/test.py']
    found, scores = [], []
    for name, file in dict(pair=full, alone=exported).items():
        text_of = run(*test, configs[name], file, '--work-dir', folder / name, '--out', folder / f'{name}.pkl')
        found.append([picture['pred_instances'] for picture in mmengine.load(folder / f'{name}.pkl')])
        scores.append([re.findall(rf'coco/{kind}_mAP: +([\d.]+)', text_of)[-1] for kind in ('bbox', 'segm')])
    equal = all(torch.equal(a[key], b[key]) for a, b in zip(*found) for key in ('bboxes', 'scores', 'labels')) and all(
        a['masks'] == b['masks'] for a, b in zip(*found))
    return {
        'trains from one line, by a teacher without masks':
            ('distill.' in text and full.exists(), 'trains and distils'),
        "mmdet's own test.py finds the same in the full checkpoint by the pair's config and in the exported student by "
        'its own': (equal and scores[0] == scores[1] and float(scores[0][0]) > 0,
                    f'{sum(len(a["scores"]) for a in found[0])} boxes with masks; box AP {scores[0][0]}, mask AP '
                    f'{scores[0][1]}'),
    }


#: In the order of the page.
ALL: dict[str, Callable[[Path, Path], Findings]] = {
    function.__name__: function
    for function in (beit, upernet, mask_rcnn, ema, yolox, sync_bn, sync_bn_two_processes, accumulation, amp_bfloat16,
                     amp_of_another_wrapper, save_best_list)
} | {f'{LIBRARY[task]}_tools': functools.partial(stock_tools, task) for task in PAIRS} | {
    'mask_rcnn_instances': functools.partial(instances, small_mask_rcnn, 40),
    'mask2former_instances': functools.partial(instances, small_mask2former, 40)}


class Trainings:
    """Rows ``seam/run/<name>``."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.data = make_data(Path(self.folder.name, 'digits_wild'))

    @staticmethod
    def names() -> list[str]:
        return [f'seam/run/{name}' for name in ALL]

    def row(self, name: str) -> dict:
        name = name.rpartition('/')[2]
        folder = Path(self.folder.name, name)
        folder.mkdir()
        try:
            findings = ALL[name](folder, self.data)
        except (ConfigError, RuntimeError) as error:
            findings = {ALL[name].__doc__: (False, one_line(error))}
        return dict(roles={what: dict(passes=passes, found=found, **({} if passes else dict(why=found)))
                           for what, (passes, found) in findings.items()})
