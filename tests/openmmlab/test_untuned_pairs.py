"""Pairs that nobody tuned: sizes, resolutions, normalisations, batches of one, bf16, and layouts, each from one line
without a connector.
"""
import math

import pytest
import torch
from torch import nn

from sfkd import SFKD
from sfkd.analysis.trial import training_step, works
from sfkd.errors import ConfigError
from sfkd.features.layouts import LayoutError
from sfkd.features.matching import pair_stages
from sfkd.features.probe import probe
from sfkd.features.stages import stages

KINDS = ('resnet', 'vit', 'swin', 'mixer')
SIZES = [(32, 32), (224, 224), (333, 500)]
PAIRS = [(s, t, size) for s in KINDS for t in KINDS for size in SIZES
         if s != t and (size[0] == size[1] or 'mixer' not in (s, t))]  # MLPs: square


def network(zoo, kind, size=(64, 64)):
    config = getattr(zoo, kind)(**dict(size=size) if kind in ('vit', 'deit') else {})
    config['backbone'].update(dict(mixer=dict(img_size=size[0]), swin=dict(pad_small_map=True)).get(kind, {}))
    return config


def distil(zoo, student, teacher, size=(64, 64)):
    return zoo.distil(network(zoo, student, size), network(zoo, teacher, size), input_size=size)


@pytest.mark.parametrize('student, teacher, size', PAIRS, ids=str)
def test_any_size(zoo, student, teacher, size):
    distiller = distil(zoo, student, teacher, size)
    found = training_step(distiller)
    assert works(found), found
    assert len(distiller.distillation.pairs) >= 2
    # a stage pairs with one that sees as much of the picture, or lies as deep
    for pair in distiller.distillation.pairs:
        s, t = pair.stages
        assert s.grid[0] * s.stride == pytest.approx(size[0], rel=0.35)
        assert t.grid[1] * t.stride == pytest.approx(size[1], rel=0.35)


@pytest.mark.parametrize('student, teacher', [('resnet', 'vit'), ('vit', 'swin'), ('swin', 'resnet')])
@pytest.mark.parametrize('own', [96, 128])
def test_a_teacher_of_another_resolution(zoo, student, teacher, own):
    """It sees the picture resized; strides are of its own picture, so that the pairs are those of one resolution."""
    config = network(zoo, teacher, (own, own))
    distiller = zoo.distil(network(zoo, student), config, input_size=64, teacher_input_size=own)
    same = zoo.distil(network(zoo, student), network(zoo, teacher), input_size=64)
    assert [(p.student_path, p.teacher_path) for p in distiller.distillation.pairs] == [
        (p.student_path, p.teacher_path) for p in same.distillation.pairs]
    assert distiller.distillation.pairs[0].stages[1].grid[0] * 64 == same.distillation.pairs[0].stages[1].grid[0] * own
    assert works(training_step(distiller))


@pytest.mark.parametrize('student, teacher', [('resnet', 'vit'), ('vit', 'resnet')])
def test_a_teacher_of_another_normalisation(zoo, student, teacher):
    """Distillation is that of a teacher of the student's normalisation who got the pictures in her own."""
    size, other = (64, 64), dict(mean=(10., 20., 30.), std=(5., 6., 7.), to_rgb=False)
    options = dict(size=size) if teacher == 'vit' else {}
    distiller = zoo.distil(network(zoo, student), getattr(zoo, teacher)(**options, **other))
    data = distiller.data_preprocessor(zoo.batch(), training=True)
    assert works(training_step(distiller))
    raw = zoo.batch()['inputs'].float()                      # BGR, as this teacher wants it
    wanted = (raw - torch.tensor(other['mean']).view(1, 3, 1, 1)) / torch.tensor(other['std']).view(1, 3, 1, 1)
    seen = []
    hook = distiller.distillation.teacher.network.backbone.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0]))
    distiller.distillation.teacher(data['inputs'])
    hook.remove()
    torch.testing.assert_close(seen[0], wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('student', KINDS)
@pytest.mark.parametrize('teacher', ['resnet', 'swin'])
def test_a_batch_of_one(zoo, student, teacher):
    found = training_step(distil(zoo, student, teacher), count=1)
    assert works(found), found


@pytest.mark.parametrize('student, teacher',
                         [('resnet', 'swin'), ('vit', 'resnet'), ('mixer', 'vit'), ('swin', 'mixer')])
def test_bf16_is_near_fp32(zoo, student, teacher):
    exact = training_step(distil(zoo, student, teacher))
    distiller = distil(zoo, student, teacher)
    with torch.autocast('cpu', torch.bfloat16):
        rounded = training_step(distiller)
    assert works(exact) and works(rounded) and exact != rounded
    for key, value in exact.items():
        assert rounded[key] == pytest.approx(value, rel=0.1, abs=0.02), key


# ---- layouts that stages come in ----

def stages_of(backbone, size=64, learns=False):
    net = Shell(backbone)
    return [(stage.path, stage.channels, stage.grid[0])
            for stage in stages(net, probe(net, (size, size), learns=learns))]


class Shell(nn.Module):
    """A model around a backbone, as the libraries' are."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


def conv(i, o, stride=1):
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1), nn.BatchNorm2d(o), nn.ReLU())


class Branches(nn.Module):
    """HRNet's layout: parallel maps in a list, and no module that gives only one of them in the end."""

    def __init__(self):
        super().__init__()
        self.stem, self.split = conv(3, 8, 4), nn.ModuleList([conv(8, 8), conv(8, 16, 2)])
        self.stage = Both()

    def forward(self, x):
        x = self.stem(x)
        return self.stage([layer(x) for layer in self.split])


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(conv(8, 8), conv(8, 8)), nn.Sequential(conv(16, 16), conv(16, 16))])

    def forward(self, maps):
        return [layer(x) for layer, x in zip(self.layers, maps)]


class Wrapped(nn.Module):
    """timm's models in mmpretrain: an only child that gives one map."""

    def __init__(self):
        super().__init__()
        self.timm_model = nn.Sequential(conv(3, 8, 4), conv(8, 8), conv(8, 16, 2), conv(16, 16))

    def forward(self, x):
        return (self.timm_model(x), )


class InPlace(nn.Module):
    """TNT's layout: blocks give a tuple, and each works in place on the tokens of the one before."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, pixels, tokens):
            tokens[:, 1:] += self.linear(tokens[:, 1:])
            return pixels, tokens + 0

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.layers = nn.ModuleList(self.Block() for _ in range(8))

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        pixels, tokens = tokens.flatten(0, 1), torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        for layer in self.layers:
            pixels, tokens = layer(pixels, tokens)
        return tokens[:, 0]


class Reversible(nn.Module):
    """RevViT's layout: in training, its blocks run without gradients."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 8, 16, 16), nn.LayerNorm(8)
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = first = self.patches(x).flatten(2).transpose(1, 2)
        with torch.set_grad_enabled(not self.training and torch.is_grad_enabled()):
            for layer in self.layers:
                x = layer(x)
        return self.norm(x + first)


def test_maps_of_parallel_branches(zoo):
    assert stages_of(Branches()) == [('backbone.stage[0]', 8, 16), ('backbone.stage[1]', 16, 8)]


def test_a_wrapped_network(zoo):
    assert stages_of(Wrapped()) == [('backbone.timm_model.1', 8, 16), ('backbone.timm_model', 16, 8)]


def test_a_network_for_which_gradients_do_not_pass_its_blocks(zoo):
    blocks = [(f'backbone.layers.{i}', 8, 4) for i in range(4)]
    assert stages_of(Reversible()) == blocks
    assert stages_of(Reversible(), learns=True)[-1] == ('backbone.norm', 8, 4)
    assert not set(stages_of(Reversible(), learns=True)) & set(blocks)


def test_a_frozen_stage_is_not_taught(zoo):
    config = zoo.resnet()
    config['backbone']['frozen_stages'] = 2
    pairs = zoo.distil(config, zoo.swin()).distillation.pairs
    assert [pair.student_path for pair in pairs] == ['backbone.layer3', 'backbone.layer4']
    with pytest.raises(ConfigError, match="'backbone.layer2' gives .* no gradient leaves"):
        zoo.distil(config, zoo.swin(), pairs=[dict(student='backbone.layer2', teacher='backbone.stages.1')])
    config['backbone']['frozen_stages'] = 4
    with pytest.raises(ConfigError, match='no stage of the student that a loss could teach: no gradient leaves [1-9]'):
        zoo.distil(config, zoo.swin())


def test_what_a_later_layer_overwrites_is_tapped_as_it_was(zoo):
    from sfkd.features.taps import Taps
    net, images = Shell(InPlace()).eval(), torch.randn(2, 3, 64, 64)
    found = [stage for stage in stages(net, probe(net, (64, 64)))]
    assert [stage.path for stage in found] == [f'backbone.layers.{i}[1]' for i in (1, 3, 5, 7)]
    assert [stage.overwritten for stage in found] == [True, True, True, False]
    expected = []
    hook = net.backbone.layers[3].register_forward_hook(lambda _, __, output: expected.append(output[1].clone()))
    taps = Taps(net, [stage.path for stage in found], copied=[stage.path for stage in found if stage.overwritten])
    with torch.no_grad(), taps.capture((64, 64)) as seen:
        net(images)
    hook.remove()
    assert torch.equal(seen['backbone.layers.3[1]'].flatten(2).transpose(1, 2), expected[0][:, 1:])


def test_a_convolutional_stem_makes_no_stages(zoo):
    """ViG's: strides 2 to 16 in a few layers, then blocks of one stride, which are cut by depth."""
    stem = nn.Sequential(*conv(3, 4, 2), *conv(4, 8, 2), *conv(8, 16, 2), *conv(16, 16, 2))
    blocks = nn.Sequential(*(nn.Sequential(*(conv(16, 16) for _ in range(6))) for _ in range(16)))
    net = nn.Sequential()
    net.add_module('stem', stem), net.add_module('blocks', blocks)
    assert [path for path, *_ in stages_of(net, 128)] == [f'backbone.blocks.{i}' for i in (3, 7, 11, 15)]


def test_timm_models(zoo):
    pytest.importorskip('timm')
    from mmpretrain.models import TIMMBackbone
    assert stages_of(TIMMBackbone('resnet18')) == [
        ('backbone.timm_model.layer1', 64, 16), ('backbone.timm_model.layer2', 128, 8),
        ('backbone.timm_model.layer3', 256, 4), ('backbone.timm_model', 512, 2)]
    vit = stages_of(TIMMBackbone('vit_tiny_patch16_224', img_size=64))
    assert vit == [(f'backbone.timm_model.blocks.{i}', 192, 4) for i in (2, 5, 8, 11)]


# ---- messages ----

def test_a_batch_that_does_not_fit_names_pair_shapes_and_remedy(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.resnet(), input_size=64)
    data = distiller.data_preprocessor(zoo.batch(size=(32, 32)), training=True)
    with pytest.raises(ConfigError) as caught:
        distiller.loss(**data)
    for part in ("pair 'layer4': the student's 'backbone.layer4' gives (4, 64, 1, 1) and the teacher's "
                 "'backbone.layer4' (4, 64, 1, 1)", 'input_size=', 'pairs=', 'stages='):
        assert part in str(caught.value), str(caught.value)


def test_a_layout_that_changes_names_the_tap(zoo):
    from sfkd.features.taps import Taps
    net = zoo.build(zoo.resnet())
    taps, message = Taps(net, ['neck']), "tap 'neck' of ImageClassifier: .*tap another module"
    with pytest.raises(LayoutError, match=message), taps.capture((64, 64)):
        net(torch.randn(2, 3, 64, 64))


def test_a_model_without_a_backbone_is_named(zoo):
    class Bare(nn.Linear):
        data_preprocessor = None
    with pytest.raises(ConfigError, match="model.teacher: 'Bare' has no backbone"):
        SFKD(zoo.build(zoo.resnet()), Bare(2, 2), input_size=64)


def test_isotropic_networks_of_other_patches_pair_by_depth(zoo):
    student, teacher = (zoo.build(network(zoo, 'vit', size)) for size in ((64, 64), (96, 96)))
    pairs = pair_stages(*(stages(net, probe(net, size)) for net, size in ((student, (64, 64)), (teacher, (96, 96)))))
    assert [(s.path, t.path) for s, t in pairs] == [(f'backbone.layers.{i}', ) * 2 for i in range(4)]
    assert not math.isclose(pairs[0][0].grid[0], pairs[0][1].grid[0])
