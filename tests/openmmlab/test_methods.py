"""The model by which each method teaches a pair's student."""
import sys

import pytest

from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.methods import folder_of, model_of

PAIR = 'sfkd::mini/cls_resnet_to_mixer.py'
#: A pair that says more than which networks it has.
CHOSEN = """
_base_ = 'sfkd::mini/cls_resnet_to_mixer.py'
mine = dict(student='backbone.layers.0', teacher='backbone.layer1')
model = dict(every=2, until=70, share=0.5, stages=[-1], spatial_weight=0.5, logit_weight=1.0, pairs=[
    'auto', mine, dict(mine, losses=[dict(type='ChannelWiseDivergence')]), dict(mine, connector=dict(type='Align'))])
"""


def test_options_for_all_methods_come_before_a_methods_own():
    options = {'model.student.backbone.patch_size': 16, 'model.task_weight': 0.5, 'train_cfg.max_epochs': 2}
    stock, untouched = model_of(PAIR, 'alone'), dict(options)
    alone, kd, own = (model_of(PAIR, method, options) for method in ('alone', 'kd', 'kd+task_weight=0.25'))
    assert options == untouched
    assert [model.backbone.patch_size for model in (stock, alone, kd.student, own.student)] == [8, 16, 16, 16]
    assert 'task_weight' not in alone and (kd.task_weight, own.task_weight) == (0.5, 0.25)
    assert kd.logits[0].type == 'KLDivergence'


@pytest.fixture
def pair(tmp_path):
    (tmp_path / 'pair.py').write_text(CHOSEN)
    return str(tmp_path / 'pair.py')


def test_another_method_is_taught_when_and_where_the_pair_says(pair):
    mine = dict(student='backbone.layers.0', teacher='backbone.layer1')
    for method, pairs, stages in ('aligned_mse', ['auto', mine], [-1]), ('ofa', 'head', None), ('kd', [], None):
        model = model_of(pair, method)
        assert (model.every, model.until, model.share) == (2, 70, 0.5), method
        assert (model.pairs, model.get('stages')) == (pairs, stages), method
        assert 'spatial_weight' not in model and 'logit_weight' not in model
    assert model_of(pair, 'mgd').stages == [-1] and model_of(PAIR, 'aligned_mse').pairs == 'auto'


def test_a_form_of_sfkd_is_the_pairs_own_but_for_what_it_says(pair):
    whole, lean = model_of(pair, 'sfkd'), model_of(pair, 'sfkd_lean')
    assert lean == dict(whole, refine=False) and (lean.logit_weight, lean.spatial_weight) == (1.0, 0.5)


def test_a_method_is_a_file_of_ones_own_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text("model = dict(type='Distiller', connector=dict(type='Align'), "
                                      "losses=[dict(type='mmdet.L1Loss', weight=2.0)])\n")
    model = model_of(PAIR, 'mine.py+losses.0.weight=3.0')
    assert model.losses == [dict(type='mmdet.L1Loss', weight=3.0)] and model.student == load_config(PAIR).model.student
    assert model_of(PAIR, 'sfkd::peers/cwd') == model_of(PAIR, 'cwd')
    assert load_config(PAIR, method='mine.py').work_dir == 'work_dirs/cls_resnet_to_mixer_mine'
    assert load_config(PAIR).work_dir == 'work_dirs/cls_resnet_to_mixer'
    (tmp_path / 'there.py').write_text(f"_base_ = '{PAIR}'\nwork_dir = 'there'\n")
    assert [load_config('there.py', *folder, method='mine.py').work_dir
            for folder in ([], ['given'])] == ['there_mine', 'given']
    with pytest.raises(ConfigError, match="--methods: there is no 'mine'; nearest are .*of a method of your own give"):
        model_of(PAIR, 'mine')
    assert model_of(PAIR, 'sfkd+pairs=[auto,head]').pairs == ['auto', 'head']
    with pytest.raises(ConfigError, match="write its options without quotes"):  # which a key in a config must not hold
        model_of(PAIR, "sfkd+pairs=['auto','head']")
    (tmp_path / 'empty.py').write_text("custom_imports = dict(imports=['sfkd'])\n")
    with pytest.raises(ConfigError, match="--method: 'empty.py' has no model with a type; write it as"):
        model_of(PAIR, 'empty.py')
    with pytest.raises(ConfigError, match="--method: there is no config file 'none.py'"):
        model_of(PAIR, 'none.py')


@pytest.mark.parametrize('method, name', [
    ('kd', 'kd'), ('sfkd+levels=1+refine=within', 'sfkd+levels=1+refine=within'), ('/home/me/mine.py', 'mine'),
    ('../mine.py+losses.0.weight=0.5', 'mine+losses.0.weight=0.5'), ('sfkd::peers/cwd', 'cwd'),
    ('kd+teacher=a/b.py', 'kd+teacher=a_b.py')])
def test_a_methods_folder_lies_in_the_runs(method, name):
    assert folder_of(method) == name


def test_what_a_method_imports_the_copy_of_the_config_imports_too(tmp_path, monkeypatch):
    """It is built from later, by the report, in the folder that the run was started in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    (tmp_path / 'my_losses.py').write_text('')
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports='my_losses')\n"
                                      "model = dict(type='Distiller', logits=[dict(type='DIST')])\n")
    config = load_config(PAIR, method='mine.py')
    assert config.custom_imports.imports == ['sfkd', 'my_losses']
    (tmp_path / 'run').mkdir()
    config.dump(tmp_path / 'run/copy.py')
    sys.modules.pop('my_losses')
    monkeypatch.setattr(sys, 'path', [folder for folder in sys.path if folder != str(tmp_path)])  # in another process
    assert load_config('run/copy.py').model.logits[0].type == 'DIST' and 'my_losses' in sys.modules
    (tmp_path / 'mine.py').write_text("custom_imports = dict(imports=['no_such_losses'])\n")
    with pytest.raises(ConfigError, match="--method: 'mine.py': .*no_such_losses; modules of custom_imports are"):
        load_config(PAIR, method='mine.py')
