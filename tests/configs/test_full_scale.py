"""What a rehearsal of ten iterations (tools/stress/rehearse.py) cannot show: that each config's parts agree over the
whole training, and about classes and files.
"""
from pathlib import Path

import pytest
from mmpretrain.datasets import CIFAR100, ImageNet

from sfkd.openmmlab.building import read_config

CocoDataset = pytest.importorskip('mmdet.datasets').CocoDataset
ADE20KDataset = pytest.importorskip('mmseg.datasets').ADE20KDataset

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / 'configs/sfkd').rglob('*.py'))
CLASSES = {kind.__name__: len(kind.METAINFO['classes']) for kind in (CIFAR100, ImageNet, CocoDataset, ADE20KDataset)}

every_config = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


def length(config):
    """Whether training counts epochs, and how many of them or of iterations."""
    by_epoch = 'max_epochs' in config.train_cfg
    return by_epoch, config.train_cfg.max_epochs if by_epoch else config.train_cfg.max_iters


def class_counts(spec):
    if isinstance(spec, (list, tuple)):
        return {count for part in spec for count in class_counts(part)}
    if not isinstance(spec, dict):
        return set()
    own = {spec['num_classes']} if isinstance(spec.get('num_classes'), int) else set()
    return own.union(*(class_counts(part) for part in spec.values()))


@every_config
def test_the_learning_rates_schedule_ends_with_training(path, read):
    """No part of it begins after the end or stops before it, and none of a chain leaves a gap."""
    by_epoch, total = length(config := read(path))
    schedule = config.param_scheduler if isinstance(config.param_scheduler, list) else [config.param_scheduler]
    *warm_up, main = schedule
    assert main.get('by_epoch', True) == by_epoch
    assert main.get('end', total) == total
    if main.type == 'MultiStepLR':
        assert main.get('begin', 0) == 0 and all(0 < milestone < total for milestone in main.milestones)
    else:
        assert main.type in ('CosineAnnealingLR', 'PolyLR')
        assert main.get('begin', 0) == (warm_up[0].end if warm_up else 0)
        assert main.get('T_max', total - main.begin) == total - main.begin
    for part in warm_up:
        assert part.get('begin', 0) == 0 and part.end <= (total if part.by_epoch else 1500)
        assert part.by_epoch or not part.get('convert_to_iter_based')


@every_config
def test_the_end_is_saved_scored_and_logged_in_trainings_own_unit(path, read):
    by_epoch, total = length(config := read(path))
    hook = config.default_hooks.checkpoint
    assert hook.get('by_epoch', True) == by_epoch == config.get('log_processor', {}).get('by_epoch', True)
    assert total % hook.interval == total % config.train_cfg.val_interval == 0
    assert hook.interval == config.train_cfg.val_interval  # or save_best would score what is not saved, or the reverse
    assert not config.get('find_unused_parameters', False)


@every_config
def test_student_teacher_and_data_have_the_same_classes(path, read):
    config = read(path)
    expected = CLASSES[config.train_dataloader.dataset.type]
    model = config.model
    networks = [model]
    if model.type == 'SFKD':
        networks = [model.student, read_config(model.teacher, 'test').model]
    assert [class_counts(network) for network in networks] == [{expected}] * len(networks)
    assert config.get('data_preprocessor', {}).get('num_classes', expected) == expected
    assert config.val_dataloader.dataset.type == config.train_dataloader.dataset.type


@every_config
def test_what_is_scored_is_what_is_shown(path, read):
    config = read(path)
    for split in ('val', 'test'):
        dataset, evaluator = config[f'{split}_dataloader'].dataset, config[f'{split}_evaluator']
        if 'ann_file' in evaluator:
            assert evaluator.ann_file == dataset.data_root + dataset.ann_file
        assert config[f'{split}_dataloader'].get('drop_last') is not True
        loader = config[f'{split}_dataloader']
        assert not loader.get('persistent_workers') or loader.num_workers > 0


@every_config
def test_the_learning_rate_can_be_scaled_to_another_batch(path, read):
    """``--auto-scale-lr`` needs the total batch for which the config's own rate is meant; mmseg's have none."""
    config = read(path)
    total = {'CIFAR100': 8 * 128, 'ImageNet': 8 * 64}.get(config.train_dataloader.dataset.type, 16)
    assert config.auto_scale_lr.base_batch_size == total and not config.auto_scale_lr.get('enable')
