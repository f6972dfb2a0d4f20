"""What stock recipes ask of a model by the names of its parts: compared without training, then in short real ones."""
import copy
import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from sfkd import SFKD
from sfkd.analysis.matrix import seam
from sfkd.analysis.trainings import small
from sfkd.analysis.trainings.rows import ALL
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model

ROOT = Path(__file__).resolve().parents[2]
#: Frozen first, then by depth: as layer decay does, by the names of parts.
RECIPE = dict(optimizer=dict(type='SGD', lr=0.1, weight_decay=0.01), paramwise_cfg=dict(
    norm_decay_mult=0.0, custom_keys={'backbone.layers.0': dict(lr_mult=0.25), 'head': dict(decay_mult=0.5)}))


class Wrapped(nn.Module):
    """What a distilled model must not be: a student under a prefix."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student


@pytest.fixture
def pair(zoo):
    stock = zoo.build(zoo.mixer(), seed=1)
    return stock, SFKD(zoo.mixer(), zoo.resnet(), 'init', input_size=64)


# ---- the comparison, and that it can fail ----

def test_a_distilled_model_is_the_stock_one_to_whoever_looks_for_parts(pair):
    stock, distilled = pair
    assert isinstance(distilled, type(stock))
    assert list(seam.name_problems(stock, distilled)) == []
    assert list(seam.group_problems(stock, distilled, RECIPE)) == []
    assert list(seam.checkpoint_problems(stock, distilled)) == []
    rates = {name: options['lr'] for name, options in seam.options_of_weights(
        distilled, seam.optim_wrapper(distilled, RECIPE).optimizer).items()}
    assert rates['backbone.layers.0.ln1.weight'] == pytest.approx(0.025)
    assert rates['backbone.layers.1.ln1.weight'] == 0.1
    assert rates['distillation.pairs.0.connector.align.project.weight'] == 0.1


def test_a_prefix_is_seen_in_names_groups_and_checkpoints(pair):
    stock, distilled = pair
    wrapped = Wrapped(distilled)
    assert any('other parameters' in problem for problem in seam.name_problems(stock, wrapped))
    assert any('in one optimiser only' in problem for problem in seam.group_problems(stock, wrapped, RECIPE))
    assert list(seam.checkpoint_problems(stock, wrapped)) == [
        '54 of 54 tensors did not arrive, such as backbone.patch_embed.projection.weight']


def test_one_weight_too_few_or_otherwise_is_seen(pair):
    stock, distilled = pair
    other = copy.deepcopy(RECIPE)
    other['paramwise_cfg']['custom_keys']['backbone.layers.3'] = dict(lr_mult=2.0)
    ours, theirs = (seam.options_of_weights(distilled, seam.optim_wrapper(distilled, recipe).optimizer)
                    for recipe in (RECIPE, other))
    assert {name for name in ours if ours[name] != theirs[name]} == {
        name for name in ours if name.startswith('backbone.layers.3.')}
    stock.head.of_another_model = nn.Parameter(torch.ones(1))
    assert list(seam.checkpoint_problems(stock, distilled)) == [
        '1 of 55 tensors did not arrive, such as head.of_another_model']


def test_a_model_dict_can_be_built_twice():
    """mmseg's constructor hands ``pretrained`` on to the backbone's dict, which may be the config's own."""
    model = Config.fromfile(ROOT / 'configs/mini/seg_fcn_resnet8.py').model
    model.pretrained = None
    spec = dict(model, pretrained='nowhere.pth')
    for _ in range(2):
        assert build_model(spec, 'test', scope='mmseg').backbone.init_cfg['checkpoint'] == 'nowhere.pth'


# ---- --amp ----

@OPTIM_WRAPPERS.register_module()
class SteppingTwice(OptimWrapper):
    """Some user's own."""


@OPTIM_WRAPPERS.register_module()
class OwnMixedPrecision(AmpOptimWrapper):
    """Another user's."""


@pytest.mark.parametrize('gpu', [True, False])
def test_amp_replaces_the_plain_wrapper_alone(gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    use = runpy.run_path(str(ROOT / 'tools/train.py'))['use_mixed_precision']

    def replaced(**options) -> dict:
        config = Config(dict(default_scope='mmpretrain', optim_wrapper=options))
        use(config)
        return dict(config.optim_wrapper)
    assert replaced() == replaced(type='OptimWrapper') == dict(type='AmpOptimWrapper' if gpu else 'CPUAmpOptimWrapper')
    assert replaced(type='CPUAmpOptimWrapper') == dict(type='CPUAmpOptimWrapper')
    for own in (dict(type='AmpOptimWrapper', loss_scale=512.), dict(type='OwnMixedPrecision')):
        if gpu:
            assert replaced(**own) == own
        else:
            with pytest.raises(ConfigError, match='works on GPUs only, and this machine shows none; leave --amp out'):
                replaced(**own)
    for named in ('SteppingTwice', SteppingTwice, 'NoWrapper'):
        with pytest.raises(ConfigError, match=r'--amp: optim_wrapper.type is .*leave --amp out'):
            replaced(type=named)


def test_without_a_gpu_mixed_precision_is_bfloat16(zoo):
    """Losses near float32's and not it; weights, gradients and the optimizer's states stay in float32."""
    found = {}
    for kind in ('OptimWrapper', 'CPUAmpOptimWrapper'):
        distiller = zoo.distil(zoo.mixer(), zoo.resnet(), teacher_precision='auto').train()
        wrapper = build_optim_wrapper(distiller, dict(type=kind, optimizer=dict(type='AdamW', lr=1e-3)))
        dtypes = []
        hook = distiller.backbone.layers[0].register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
        losses = [float(distiller.train_step(zoo.batch(seed=i), wrapper)['loss']) for i in range(3)]
        hook.remove()
        states = [value for state in wrapper.optimizer.state.values() for value in state.values() if value.dim()]
        assert {x.dtype for x in (*distiller.parameters(), *states)} == {torch.float32}
        found[kind] = losses, set(dtypes)
    (full, of_full), (half, of_half) = found.values()
    assert of_full == {torch.float32} and torch.bfloat16 in of_half
    assert full != half and half == pytest.approx(full, rel=0.02)


# ---- trainings ----

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return small.make_data(tmp_path_factory.mktemp('digits_wild'))


QUICK = ('beit', 'accumulation', 'amp_bfloat16', 'sync_bn', 'save_best_list')


@pytest.mark.parametrize('name', [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in ALL])
def test_a_short_training(name, data, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    findings = ALL[name](tmp_path, data)
    assert findings and not {what: found for what, (passes, found) in findings.items() if not passes}


def test_what_a_training_says_when_nothing_is_taught(data, tmp_path, monkeypatch):
    """The record can tell: no distillation, a loss that is not finite."""
    monkeypatch.chdir(ROOT)
    config = small.without_validation(small.configured(small.ALONE['cls'], tmp_path, data, batch=60))
    _, record = small.trained(config)
    assert len(record.losses) == 2 and not record.distils()
    record.losses = [{'loss': 1.0, 'distill.x.loss_y': value} for value in (1.0, float('nan'))]
    assert not record.distils() and torch.isfinite(torch.tensor(record.losses[0]['loss']))
