"""Dense students and teachers of configs/pretrained begin with a classifier's backbone."""
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from sfkd.checkpoint import read_checkpoint
from sfkd.openmmlab.configs import load_config
from sfkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {f'neck[{i}]': f'neck[{i}]' for i in range(3)}
#: pair -> its student's classifier, and student stage -> teacher stage
PAIRS = dict(
    det_mit_to_resnet8=('pretrained/students/cls_resnet8', LEVELS),
    det_resnet_to_mit8=('pretrained/students/cls_mit8', LEVELS),
    seg_mit_to_resnet8=('pretrained/students/cls_resnet8',
                        {f'backbone.layer{i + 1}': f'backbone.layers.{i}.2' for i in range(4)}),
    seg_resnet_to_mit8=('pretrained/students/cls_mit8',
                       {f'backbone.layers.{i}.2': f'backbone.layer{i + 1}' for i in range(4)}))


def test_every_pair_is_here():
    assert set(PAIRS) == {path.stem for path in (ROOT / 'configs/pretrained').glob('*_to_*.py')}


@pytest.mark.parametrize('name', PAIRS)
def test_the_student_begins_as_the_classifier(name, alone):
    file, stages = PAIRS[name]
    config = load_config(f'configs/pretrained/{name}.py', options={'model.teacher_ckpt': 'init'})
    init_default_scope(config.default_scope)
    model = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    model.init_weights()
    found = model.student.backbone.state_dict()
    classifier = {key.removeprefix('backbone.'): value for key, value in
                  read_checkpoint(f'sfkd::{file}.safetensors', 'classifier').items() if key.startswith('backbone.')}
    assert classifier.keys() <= found.keys() and len(classifier) > 50
    # a classifier has the norm of its last stage alone, a dense network one of each stage that it gives
    assert all('norm' in key for key in found.keys() - classifier.keys())
    for key, value in classifier.items():
        torch.testing.assert_close(found[key], value.to(found[key].dtype), rtol=0, atol=0)
    assert {pair.student_path: pair.teacher_path for pair in model.distillation.pairs} == stages
