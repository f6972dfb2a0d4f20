"""The classification configs say what they do, build without a download, and take a training step at their real
size.
"""
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample

import sfkd  # noqa: F401
from sfkd.openmmlab.building import read_config
from sfkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'configs'
FLAGSHIP = 'cls_swin_to_r18'
QUICK = (FLAGSHIP, 'cls_cifar100_vit_s_to_mnv2', 'cls_cifar100_convnext_t_to_deit_t')
DISTILLATIONS = sorted(CONFIGS.glob('sfkd/cls_*.py'))
CIFAR_DISTILLATIONS = sorted(CONFIGS.glob('sfkd/cls_cifar100_*.py'))
ALONE = sorted([*CONFIGS.glob('sfkd/students/cifar100_*.py'), *CONFIGS.glob('sfkd/teachers/cifar100_*.py')])
MINI = [path for folder in ('mini', 'pretrained') for path in sorted(CONFIGS.glob(f'{folder}/*.py'))
        if 'SFKD' in path.read_text()]

#: what the configs promise: optimizer, learning rate, weight decays, pictures a GPU, epochs, lowest learning rate,
#: epochs of warm-up
CNN = ('SGD', 0.05, {0.0, 2e-3}, 128, 300, 1e-3, 3)
VIT = ('AdamW', 5e-4, {0.0, 0.05}, 128, 300, 1e-5, 20)
RECIPES = dict(r18=CNN, mnv2=CNN, deit_t=VIT, mixer_s12=VIT)


def name(path):
    return path.stem


def student_of(path):
    return path.stem.rpartition('_to_')[2]


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('sfkd/*.py')) + MINI, ids=name)
def test_parses_and_brings_sfkd_along(path):
    config = Config.fromfile(path)
    assert config.model.type.rpartition('.')[2] in ('SFKD', 'Distiller')
    assert 'sfkd' in config.custom_imports.imports  # a runner that does not know us finds the model
    assert Config.fromstring(config.pretty_text, '.py').to_dict() == config.to_dict()  # as the runner dumps it


@pytest.mark.parametrize('path', [*DISTILLATIONS, *ALONE], ids=name)
def test_comment_states_command_and_batch(path):
    config, comment = Config.fromfile(path), path.read_text().partition('_base_')[0]
    assert f'bash tools/dist_train.sh {path.relative_to(ROOT)} 8' in comment
    gpus, per_gpu, total = map(int, re.search(r'total batch (\d+) x (\d+) = (\d+)', comment).groups())
    assert gpus * per_gpu == total == config.auto_scale_lr.base_batch_size
    assert per_gpu == config.train_dataloader.batch_size


def test_flagship_recipe():
    config = Config.fromfile(CONFIGS / f'sfkd/{FLAGSHIP}.py')
    assert config.train_dataloader.batch_size == 64 and config.train_cfg.max_epochs == 100
    schedule = config.param_scheduler
    assert (schedule.type, schedule.milestones, schedule.gamma) == ('MultiStepLR', [30, 60, 90], 0.1)
    optimizer = {key: config.optim_wrapper.optimizer[key] for key in ('type', 'lr', 'momentum', 'weight_decay')}
    assert optimizer == dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)


@pytest.mark.parametrize('path', CIFAR_DISTILLATIONS, ids=name)
def test_cifar_recipe(path):
    config, student = Config.fromfile(path), Config.fromfile(CONFIGS / f'sfkd/students/cifar100_{student_of(path)}.py')
    kind, lr, decays, per_gpu, epochs, lowest, warm_up = RECIPES[student_of(path)]
    optimizer, (first, cosine) = config.optim_wrapper.optimizer, config.param_scheduler
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == (kind, lr, max(decays))
    assert (config.train_dataloader.batch_size, config.train_cfg.max_epochs) == (per_gpu, epochs)
    assert (first.end, cosine.begin, cosine.end, cosine.eta_min) == (warm_up, warm_up, epochs, lowest)
    assert config.model.student.head.loss.label_smooth_val == 0.1
    mixes = {mix.type: mix.alpha for mix in config.model.student.get('train_cfg', {}).get('augments', [])}
    steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    assert mixes == (dict(Mixup=0.8, CutMix=1.0) if kind == 'AdamW' else {})
    assert ('RandAugment' in steps) == ('RandomErasing' in steps) == (kind == 'AdamW')
    assert config.optim_wrapper.get('clip_grad') == (dict(max_norm=5.0) if kind == 'AdamW' else None)
    # The student alone is trained in exactly the same way
    assert config.model.student == student.model
    for key in ('optim_wrapper', 'param_scheduler', 'train_dataloader', 'val_dataloader', 'data_preprocessor',
                'train_cfg'):
        assert config[key] == student[key], key


@pytest.mark.parametrize('path', CIFAR_DISTILLATIONS, ids=name)
def test_cifar_teacher_checkpoint_is_what_its_training_writes(path):
    model = Config.fromfile(path).model
    teacher = read_config(model.teacher, 'teacher')
    assert model.teacher_ckpt == f'work_dirs/{Path(model.teacher).stem}/epoch_{teacher.train_cfg.max_epochs}.pth'
    assert teacher.default_hooks.checkpoint.interval == 1
    assert teacher.model.head.num_classes == model.student.head.num_classes == 100


@pytest.mark.parametrize('kind', ['cnn', 'vit'])
def test_cifar_pictures_keep_their_colours(kind):
    config = Config.fromfile(CONFIGS / f'_base_/datasets/cifar100_224_{kind}.py')
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255  # as the data set reads it: RGB
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        shown = Compose(config.val_dataloader.dataset.pipeline)(dict(img=red, gt_label=3))
        packed = [Compose(config.train_dataloader.dataset.pipeline)(dict(img=red, gt_label=3)) for _ in range(8)]
        preprocessor = MODELS.get('mmpretrain.ClsDataPreprocessor')(**config.data_preprocessor)
    assert {p['inputs'].shape for p in [shown, *packed]} == {(3, 224, 224)}
    assert {p['inputs'].dtype for p in packed} == {torch.uint8}
    r, g, b = preprocessor(dict(inputs=shown['inputs'][None]))['inputs'][0].mean((1, 2)).tolist()
    assert r == pytest.approx((255 - 123.675) / 58.395, rel=1e-4) and g == pytest.approx(-116.28 / 57.12, rel=1e-4)
    assert b < 0


@pytest.mark.parametrize('path', [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.long)
                                  for p in DISTILLATIONS])
def test_training_step(path, step):
    """Two pictures at 224 px through preprocessor, both networks, all losses and the config's optimizer."""
    config = Config.fromfile(path)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        distiller = MODELS.build(dict(config.model, teacher_ckpt='init', data_preprocessor=config.data_preprocessor))
        optimizer = build_optim_wrapper(distiller, config.optim_wrapper)
    features = [pair for pair in distiller.distillation.pairs if pair.name != 'logits']
    assert len(features) >= 3 and len(features) + 1 == len(distiller.distillation.pairs)
    decays = RECIPES[student_of(path)][2] if path in CIFAR_DISTILLATIONS else {1e-4}
    assert {group['weight_decay'] for group in optimizer.param_groups} == decays

    batch = dict(inputs=torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8),
                 data_samples=[DataSample().set_gt_label(label) for label in (3, 7)])
    losses, moved = step(distiller, batch, optimizer)
    assert moved and {key.rpartition('.')[2] for key in losses} == {'loss', 'loss_spatial', 'loss_frequency', 'loss_kd'}
