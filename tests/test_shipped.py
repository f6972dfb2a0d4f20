"""``sfkd::`` is a file among the configs, wherever a config or weights are named, and no scope."""
from pathlib import Path

import pytest
from mmengine.config import Config

from sfkd.checkpoint import read_checkpoint
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.configs import load_config
from sfkd.shipped import CONFIGS, TOOLS, located

ROOT = Path(__file__).resolve().parents[1]
PAIR = 'sfkd::mini/cls_resnet_to_mixer'


def test_a_checkout_has_its_own_folders():
    assert (TOOLS, CONFIGS) == (ROOT / 'tools', ROOT / 'configs')


@pytest.mark.parametrize('path', [PAIR, f'{PAIR}.py'])
def test_a_config_with_or_without_its_ending(path):
    assert located(path, 'config') == str(ROOT / 'configs/mini/cls_resnet_to_mixer.py')
    assert located('configs/mini/x.py', 'config') == 'configs/mini/x.py'


def test_a_wrong_name_has_its_nearest():
    with pytest.raises(ConfigError, match=f"config: there is no '{PAIR}x'; nearest are '{PAIR}.py'"):
        load_config(f'{PAIR}x')
    with pytest.raises(ConfigError, match="there is no 'sfkd::mini/teachers/resnt.safetensors'; nearest are "
                                          "'sfkd::mini/teachers/resnet.safetensors'"):
        read_checkpoint('sfkd::mini/teachers/resnt.safetensors', 'teacher_ckpt')


def test_in_every_place_that_names_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mine.py').write_text(f"_base_ = '{PAIR}'\nmodel = dict(every=2)\n")
    config = load_config('mine.py', method='sfkd::peers/cwd')
    assert config.model.type == 'Distiller' and config.work_dir == 'work_dirs/mine_cwd'
    assert config.model.teacher == 'sfkd::mini/cls_resnet.py' and load_config('mine.py').model.every == 2
    assert load_config(PAIR).work_dir == 'work_dirs/cls_resnet_to_mixer'
    teacher = build_model(config.model.teacher, 'teacher')
    teacher.load_state_dict(read_checkpoint(config.model.teacher_ckpt, 'teacher_ckpt'))


def test_what_a_base_names_has_no_scope_of_ours(tmp_path):
    """mmengine would give a model that is taken from the base the scope 'sfkd', which has no ImageClassifier."""
    (tmp_path / 'mine.py').write_text("_base_ = 'sfkd::mini/cls_mixer.py'\nstudent = {{_base_.model}}\n")
    config = Config.fromfile(tmp_path / 'mine.py')
    assert '_scope_' not in config.student and config.student.type == 'ImageClassifier'
