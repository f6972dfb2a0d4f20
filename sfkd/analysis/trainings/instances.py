"""Students that find masks, taught by a detector without."""
from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import mmengine
import torch
from mmengine.config import Config

from ...compat import WITH_SFKD
from ...openmmlab.building import read_config
from ...shipped import TOOLS
from .small import ALONE, PAIRS, Findings, configured, run, without_validation

MASK_RCNN = 'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
SMALL_CONVNEXT = dict(arch=dict(depths=[1, 1, 3, 1], channels=[8, 16, 24, 32]), init_cfg=None)


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
