"""The flagship's own command line on a generated folder in ImageNet's layout, at 224 px."""
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from sfkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


def make_imagenet(root: Path, classes: int = 1000, val: int = 4) -> None:
    """One picture a class in ``train/nXXXXXXXX/``, and ``val`` pictures in ``val/`` with their labels in
    ``meta/val.txt``.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG')
    files = [root / f'train/n{i:08d}/n{i:08d}_1.JPEG' for i in range(classes)]
    files += [root / f'val/ILSVRC2012_val_{i:08d}.JPEG' for i in range(val)]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(buffer.getvalue())
    (root / 'meta').mkdir()
    (root / 'meta/val.txt').write_text(''.join(f'ILSVRC2012_val_{i:08d}.JPEG {i}\n' for i in range(val)))


CONFIG = 'configs/sfkd/cls_swin_to_r18.py'


def test_trains_and_leaves_a_stock_student(tool, tmp_path):
    make_imagenet(tmp_path / 'imagenet')
    loaders = [f'{split}_dataloader.{key}' for split in ('train', 'val') for key in (
        f'dataset.data_root={tmp_path}/imagenet', 'dataset.indices=4', 'batch_size=2', 'num_workers=0')]
    tool('tools/train.py', CONFIG, '--work-dir', tmp_path / 'work', '--cfg-options', *loaders,
         'model.teacher_ckpt=init', 'train_cfg.max_epochs=1', 'default_hooks.logger.interval=1')
    lines = [json.loads(line) for log in tmp_path.glob('work/*/vis_data/scalars.json')
             for line in log.read_text().splitlines()]
    steps = [line for line in lines if 'loss' in line]
    assert len(steps) == 2 and all(math.isfinite(step['loss']) for step in steps)
    assert {'task.loss', 'distill.layer4.loss_spatial', 'distill.layer4.loss_frequency',
            'distill.logits.loss_kd'} <= set(steps[0])

    stock = Config.fromfile(Config._get_cfg_path('mmpretrain::resnet/resnet18_8xb32_in1k.py', '')[0])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        student = MODELS.build(dict(stock.model, type='mmpretrain.ImageClassifier'))
    checkpoint = torch.load(tmp_path / 'work/student_latest.pth', weights_only=True)
    student.load_state_dict(checkpoint['state_dict'], strict=True)
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())


def test_names_the_missing_data(tool, tmp_path):
    text = tool('tools/train.py', CONFIG, '--work-dir', tmp_path, '--cfg-options',
                f'train_dataloader.dataset.data_root={tmp_path}/nowhere', status=2)
    assert 'Traceback' not in text
    assert f'{tmp_path}/nowhere' in text and 'docs/data.md' in text
