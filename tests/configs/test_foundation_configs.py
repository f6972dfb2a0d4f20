"""Foundation teachers: each config builds with random weights, pairs what it should, shows the teacher its own
pictures, and takes a step.
"""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

pytest.importorskip('timm')
from sfkd.analysis.trial import training_step, works  # noqa: E402
from sfkd.registry import MODELS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / 'configs/foundation').glob('*.py'))
IMAGENET = [123.675, 116.28, 103.53]
BLOCKS = [f'backbone.blocks.{i}' for i in (2, 5, 8, 11)]
#: teacher's paths, the grid of its last map, mean
EXPECTED = dict(
    cls_dinov2_vits14_to_r18=(BLOCKS, (16, 16), IMAGENET),
    cls_dinov3_vits16_to_mobilenet_v2=(BLOCKS, (14, 14), IMAGENET),
    cls_siglip2_b16_to_r18=(BLOCKS, (14, 14), [127.5] * 3),
    cls_clip_b16_to_mobilenet_v2=(BLOCKS, (14, 14), [122.7709, 116.7460, 104.0937]),
    det_dinov3_convnext_tiny_to_retinanet_r18=([f'backbone.stages.{i}' for i in (1, 2)] + ['backbone.norm_pre'],
                                               (4, 4), IMAGENET),
    seg_dinov2_vits14_reg_to_pspnet_r18=(BLOCKS, (37, 37), IMAGENET),
    cls_efficientnet_lite0_to_resnet8=([f'backbone.blocks.{i}' for i in (1, 2, 4)] + ['backbone.bn2'], (4, 4),
                                       [127.5] * 3))
QUICK = ('cls_dinov2_vits14_to_r18', 'det_dinov3_convnext_tiny_to_retinanet_r18', 'cls_efficientnet_lite0_to_resnet8')


def test_every_config_is_tried():
    assert {path.stem for path in CONFIGS} == set(EXPECTED)


@pytest.mark.parametrize('path', [pytest.param(p, id=p.stem, marks=() if p.stem in QUICK else pytest.mark.long)
                                  for p in CONFIGS])
def test_pairs_and_a_step(path):
    """At the config's own size in classification, at 128 px in the other tasks."""
    config = Config.fromfile(path)
    assert ('pretrained' in config.model.teacher) != ('in_order' in config.model.teacher)
    config.model.teacher.pretrained = False
    for part in (config.model.student, config.model.student.backbone):  # nothing is downloaded
        part.pop('pretrained', None)
        part.pop('init_cfg', None)
    if not path.stem.startswith('cls'):
        config.model.input_size = 128
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        model = MODELS.build(dict(config.model, data_preprocessor=config.get('data_preprocessor')))
    paths, grid, mean = EXPECTED[path.stem]
    pairs, teacher = model.distillation.pairs, model.distillation.teacher
    assert [pair.teacher_path for pair in pairs] == paths and pairs[-1].teacher_stage.grid == grid
    assert teacher.network.data_preprocessor.mean.flatten().tolist() == pytest.approx(mean)
    assert (teacher.affine is None) == (mean == IMAGENET)  # the students' is ImageNet's, or another
    step = training_step(model)
    assert works(step) and sum('distill.' in key for key in step) == 2 * len(pairs)
