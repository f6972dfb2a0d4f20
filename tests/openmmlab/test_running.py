"""The hooks and scores of a run."""
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from yapf.yapflib import yapf_api

from sfkd import SFKD
from sfkd.datasets.digits_wild import generate_cls
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import is_distillation, load_config, log_to
from sfkd.openmmlab.hooks import InvalidLossHook
from sfkd.openmmlab.running import add_hooks, build_runner, plain_scores
from sfkd.registry import MODELS, ROOT_MODELS, register_entry_point

format_code = yapf_api.FormatCode


@pytest.fixture
def registered():
    """A user's own distillation."""
    @register_entry_point
    class Gentle(SFKD):
        pass
    yield Gentle
    for registry in (MODELS, ROOT_MODELS):
        registry.module_dict.pop('Gentle')


def test_a_registered_subclass_is_a_distillation_with_checkpoints_of_its_student(zoo, registered, tmp_path,
                                                                                 monkeypatch):
    """Its config is formatted once, not for each checkpoint again."""
    formatted = []
    monkeypatch.setattr(yapf_api, 'FormatCode', lambda text, **kwargs: (formatted.append(text), format_code(
        text, **kwargs))[1])
    generate_cls(tmp_path / 'data', counts=dict(train=8, val=2, test=2))
    config = load_config('configs/mini/cls_resnet_to_mixer.py', str(tmp_path / 'run'), {
        'model.type': 'sfkd.Gentle', 'model.teacher_ckpt': 'init', 'train_cfg.max_epochs': 1,
        'train_dataloader.dataset.data_root': str(tmp_path / 'data'), 'train_dataloader.batch_size': 4,
        'train_dataloader.num_workers': 0, 'param_scheduler.1.end': 3, 'param_scheduler.1.T_max': 2})
    assert is_distillation(config)
    config.update(val_cfg=None, val_dataloader=None, val_evaluator=None)
    with torch.random.fork_rng():
        runner = build_runner(config)
        runner.train()
    assert isinstance(runner.model, registered)
    weights = torch.load(tmp_path / 'run/student_latest.pth', weights_only=False)['state_dict']
    assert list(weights) == list(runner.model.student.state_dict())
    assert len(formatted) == 1
    saved = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=False)['meta']['cfg']
    assert saved == runner.cfg.pretty_text == Config(runner.cfg.to_dict()).pretty_text
    runner.cfg.model.teacher_ckpt = 'other.pth'
    assert "teacher_ckpt='other.pth'" in runner.cfg.pretty_text and "teacher_ckpt='other.pth'" not in saved


CLASSES = '''
from mmengine.hooks import CheckpointHook
from mmengine.visualization import TensorboardVisBackend, Visualizer
from sfkd import SFKD
from sfkd.openmmlab.hooks import InvalidLossHook

default_scope = 'mmpretrain'
model = dict(type=SFKD)
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=3))
custom_hooks = [dict(type=InvalidLossHook, interval=7)]
visualizer = dict(type=Visualizer, vis_backends=[dict(type=TensorboardVisBackend)])
'''


def test_a_config_of_classes_and_its_dump_get_the_hooks_of_a_config_of_names(tmp_path):
    (tmp_path / 'classes.py').write_text(CLASSES)
    Config.fromfile(tmp_path / 'classes.py').dump(tmp_path / 'dump.py')
    for name in ('classes.py', 'dump.py'):
        config = Config.fromfile(tmp_path / name)
        add_hooks(config)
        log_to(config, ['tensorboard'])
        assert config.default_hooks.checkpoint == dict(type='sfkd.ResumableCheckpointHook', interval=3)
        assert config.custom_hooks[0].interval == 7 and [hook.type for hook in config.custom_hooks[1:]] == [
            'sfkd.StudentCheckpointHook', 'sfkd.DataCheckHook', 'sfkd.ProgressHook', 'sfkd.CurveGroupsHook']
        assert len(config.visualizer.vis_backends) == 1


OURS = dict(type='sfkd.ResumableCheckpointHook', interval=1)


@pytest.mark.parametrize('default_hooks, expected', [
    ({}, OURS), (dict(default_hooks=None), OURS), (dict(default_hooks=dict(timer=dict(type='IterTimerHook'))), OURS),
    (dict(default_hooks=dict(checkpoint=dict(type='mmengine.CheckpointHook', interval=1))), OURS),
    (dict(default_hooks=dict(checkpoint=None)), None)])
def test_checkpoints_survive_unless_none_are_wanted(default_hooks, expected):
    config = Config(dict(default_scope='mmpretrain', model=dict(type='SFKD'), **default_hooks))
    add_hooks(config)
    assert config.default_hooks.checkpoint == expected


def test_a_hook_derived_from_ours_takes_its_place():
    class Patient(InvalidLossHook):
        pass
    config = Config(dict(default_scope='mmpretrain', model=dict(type='SFKD'), custom_hooks=[dict(type=Patient)]))
    add_hooks(config)
    assert 'sfkd.InvalidLossHook' not in [hook.type for hook in config.custom_hooks]


def test_the_runner_that_a_config_names_is_used_or_refused(tmp_path):
    @RUNNERS.register_module()
    class Loud(Runner):
        logger = logging.getLogger('test_running')

        @classmethod
        def from_cfg(cls, config):
            return cls
    config = Config(dict(model=dict(type='mmpretrain.ImageClassifier'), work_dir=str(tmp_path)))
    try:
        found = build_runner(Config(dict(config, runner_type='Loud')))
    finally:
        RUNNERS.module_dict.pop('Loud')
    assert issubclass(found, Loud) and found.resume is not Runner.resume
    with pytest.raises(ConfigError, match="runner_type: 'FlexibleRunner' is no Runner of .* and strategy out"):
        build_runner(Config(dict(config, runner_type='FlexibleRunner')))


def test_scores_of_any_kind_can_be_written():
    scores = dict(top1=50, iou=np.float32(0.5), error=torch.tensor(0.25), classwise=[1.0, 2.0], name='a', none=None,
                  matrix=torch.eye(2, dtype=torch.long), array=np.ones(2))
    expected = dict(top1=50.0, iou=0.5, error=0.25, classwise=[1.0, 2.0], name='a', none=None,
                    matrix=[[1, 0], [0, 1]], array=[1.0, 1.0])
    assert json.loads(json.dumps(plain_scores(scores))) == expected
    assert isinstance(plain_scores(scores)['top1'], float)
