"""Stock recipes' layer decay, started from a stock checkpoint."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import save_checkpoint

from ...openmmlab.building import build_model, initialise, read_config
from ..matrix.seam import OURS, optim_wrapper, options_of_weights
from .instances import MASK_RCNN, SMALL_CONVNEXT, small_mask_rcnn
from .small import PAIRS, Findings, configured, same, student_weights, trained, without_validation


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


def mask_rcnn(folder: Path, data: Path) -> Findings:
    """A ConvNeXt Mask R-CNN with mmdet's layer decay."""
    def with_masks(config: Config) -> None:
        config.train_dataloader.dataset.pipeline[1].with_mask = True
    return layer_decay(folder, data, 'mmdet', MASK_RCNN, small_mask_rcnn(), PAIRS['det'], with_masks)
