"""The teacher is absent from all that trains, frozen, and sees what it was trained on."""
import copy
import shutil

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from torch import nn

from sfkd.distillation import Distillation, Normalisation, Teacher
from sfkd.errors import ConfigError
from sfkd.features.taps import Taps

SIZE = (64, 64)


@pytest.fixture(params=['resnet', 'swin', 'vit'])
def distiller(request, zoo):
    kwargs = dict(resnet={}, swin=dict(drop=0.5), vit=dict(drop=0.5, layers=8))[request.param]
    return zoo.distil(zoo.mixer(), getattr(zoo, request.param)(**kwargs))


def loss_of(distiller, zoo):
    data = distiller.data_preprocessor(zoo.batch(), training=True)
    return distiller(**data, mode='loss')


def storages(tensors):
    return {t.untyped_storage().data_ptr() for t in tensors}


# ---- absent ----

def test_nothing_of_the_teacher_is_in_the_module(distiller):
    teacher = distiller.distillation.teacher.network
    for listing in (distiller.state_dict().items, distiller.named_parameters, distiller.named_buffers,
                    distiller.named_modules):
        names = dict(listing())
        assert names and not [name for name in names if 'teacher' in name]
    assert not storages(distiller.state_dict(keep_vars=True).values()) & storages(teacher.state_dict().values())
    assert not set(distiller.modules()) & set(teacher.modules())


def test_the_optimizer_has_student_and_connectors_alone(distiller):
    wrapper = build_optim_wrapper(distiller, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
    trained = {id(p) for group in wrapper.param_groups for p in group['params']}
    assert trained == {id(p) for p in (*distiller.student.parameters(), *distiller.distillation.pairs.parameters())}
    assert not trained & {id(p) for p in distiller.distillation.teacher.network.parameters()}


def test_copies_share_one_teacher(distiller, zoo):
    before = len(distiller.state_dict())
    ema = ExponentialMovingAverage(distiller)
    for twin in (copy.deepcopy(distiller), ema.module):
        assert twin.distillation.teacher is distiller.distillation.teacher
        assert twin.distillation.taps.network is twin is not distiller and type(twin) is type(distiller)
        assert len(twin.state_dict()) == before
        for key, value in loss_of(twin.train(), zoo).items():
            torch.testing.assert_close(value, loss_of(distiller.train(), zoo)[key])
    assert not [key for key in ema.state_dict() if 'teacher' in key]


# ---- frozen ----

def test_every_module_is_in_eval_mode_whatever_the_distiller_does(distiller, zoo):
    network, modes = distiller.distillation.teacher.network, []
    for module in network.modules():
        module.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    for mode in (True, False, True):
        distiller.train(mode)
        assert distiller.student.training is mode
        loss_of(distiller, zoo)
        assert not any(module.training for module in network.modules())
    assert len(modes) > 30 and not any(modes)


def test_training_changes_the_student_and_never_the_teacher(distiller, zoo):
    before = {key: value.clone() for key, value in distiller.distillation.teacher.network.state_dict().items()}
    weight = distiller.student.backbone.patch_embed.projection.weight
    first = weight.detach().clone()
    wrapper = build_optim_wrapper(distiller, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
    distiller.train()
    for _ in range(2):
        distiller.train_step(zoo.batch(), wrapper)
    assert not torch.equal(weight, first)
    assert all(torch.equal(value, before[key])
               for key, value in distiller.distillation.teacher.network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in distiller.distillation.teacher.network.parameters())


def test_the_teacher_is_deterministic_and_gives_no_gradients(distiller):
    distiller.train()
    inputs = torch.randn(2, 3, *SIZE, requires_grad=True)
    first, second = distiller.distillation.teacher(inputs), distiller.distillation.teacher(inputs)
    assert first.keys() == {pair.teacher_path for pair in distiller.distillation.pairs}
    for path, value in first.items():
        assert torch.equal(value, second[path]) and not value.requires_grad


# ---- moved along ----

@pytest.mark.parametrize('cast, dtype', [
    (lambda m: m.to(torch.float64), torch.float64), (lambda m: m.half(), torch.float16),
    (lambda m: m.bfloat16(), torch.bfloat16)])
def test_casts_reach_the_teacher(zoo, cast, dtype):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(mean=(100., 110, 120), to_rgb=False))
    single = distiller.distillation.teacher(torch.ones(2, 3, *SIZE))
    cast(distiller)
    teacher = distiller.distillation.teacher
    assert {t.dtype for t in teacher.network.state_dict().values() if t.is_floating_point()} == {dtype}
    assert [t.dtype for t in teacher.affine[:2]] == [dtype, dtype] and teacher.affine[2] is True
    for path, value in teacher(torch.ones(2, 3, *SIZE, dtype=dtype)).items():
        assert value.dtype == dtype
        torch.testing.assert_close(value.double(), single[path].double(), rtol=0,
                                   atol=1e-5 if dtype == torch.float64 else 0.1)


def test_moves_reach_the_teacher(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(mean=(100., 110, 120))).to('meta')
    teacher = distiller.distillation.teacher
    assert {t.device.type for t in (*teacher.network.state_dict().values(), *teacher.affine[:2])} == {'meta'}


# ---- its own pictures ----

def seen_by(teacher, inputs):
    seen = []
    hook = teacher.network.backbone.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        teacher(inputs)
    finally:
        hook.remove()
    return seen[0]


OTHER = dict(mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))


@pytest.mark.parametrize('student, teacher', [
    (dict(to_rgb=True), dict(OTHER, to_rgb=True)),
    (dict(to_rgb=True), dict(OTHER, to_rgb=False)),
    (dict(OTHER, to_rgb=False), dict(mean=(10., 120., 240.), std=(1., 64., 255.), to_rgb=True)),
    (dict(OTHER, to_rgb=True), dict(OTHER, to_rgb=False)),
    (dict(OTHER, to_rgb=False), dict(OTHER, to_rgb=False)),
    (dict(mean=None, to_rgb=False), dict(OTHER, to_rgb=True)),
    (dict(mean=None, to_rgb=True), dict(OTHER, to_rgb=True)),
], ids=lambda kwargs: '-'.join(f'{key}={value}' for key, value in kwargs.items() if key != 'std').replace(' ', ''))
def test_the_teacher_sees_what_its_own_preprocessor_makes_of_the_raw_pictures(zoo, student, teacher):
    distiller = zoo.distil(zoo.mixer(**student), zoo.resnet(**teacher))
    inputs = distiller.data_preprocessor(zoo.batch(), training=True)['inputs']
    own = distiller.distillation.teacher.network.data_preprocessor(zoo.batch())['inputs']
    torch.testing.assert_close(seen_by(distiller.distillation.teacher, inputs), own, rtol=0,
                               atol=1e-3 if teacher['mean'][0] == 10 else 1e-5)


def test_equal_normalisation_is_skipped(zoo):
    teacher = zoo.distil(zoo.mixer(**OTHER), zoo.resnet(**OTHER)).distillation.teacher
    inputs = torch.randn(2, 3, *SIZE)
    assert teacher.affine is None
    assert seen_by(teacher, inputs).data_ptr() == inputs.data_ptr()


@pytest.mark.parametrize('size', [(96, 96), (48, 80)])
def test_another_input_size(zoo, size):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(**OTHER, to_rgb=False), teacher_input_size=size)
    inputs = distiller.data_preprocessor(zoo.batch(), training=True)['inputs']
    own = distiller.distillation.teacher.network.data_preprocessor(zoo.batch())['inputs']
    expected = F.interpolate(own, size, mode='bilinear', antialias=True)
    torch.testing.assert_close(seen_by(distiller.distillation.teacher, inputs), expected, rtol=0, atol=1e-5)
    assert distiller.distillation.teacher(inputs)['backbone.layer2'].shape[2:] == (size[0] // 8, size[1] // 8)
    assert distiller.distillation.pairs[1].stages[1].grid == (size[0] // 8, size[1] // 8)


def test_a_built_module_becomes_the_teacher(zoo):
    network = zoo.build(zoo.resnet()).train()
    weight = network.backbone.conv1.weight.clone()
    distiller = zoo.distil(zoo.mixer(), network, teacher_ckpt=None)
    assert distiller.distillation.teacher.network is network and not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert (network.backbone.conv1.weight - weight).abs().max() < 0.03  # zoo.distil's noise, no initialisation


# ---- weights ----

def saved(network, path, drop=lambda key: False):
    torch.save(dict(state_dict={key: value for key, value in network.state_dict().items() if not drop(key)}), path)
    return str(path)


@torch.no_grad()
def test_the_checkpoint_is_in_the_teacher(zoo, tmp_path):
    trained = zoo.build(zoo.resnet(), seed=7)
    trained.backbone.bn1.running_mean += 0.3
    teacher = Teacher(zoo.build(zoo.resnet()), precision='fp32')
    teacher.tap(Taps(teacher.network, ['backbone.layer4'], stop=True), SIZE)
    teacher.load(saved(trained, tmp_path / 'a.pth'))
    for key, value in trained.state_dict().items():
        assert torch.equal(teacher.network.state_dict()[key], value), key
    inputs = torch.randn(2, 3, *SIZE)
    stock, = trained.eval().extract_feat(inputs, stage='backbone')
    assert stock.any() and torch.equal(teacher(inputs)['backbone.layer4'], stock)


def test_a_partial_load_is_reported(zoo, tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr('sfkd.distillation.teacher.print_log', lambda text, logger: lines.append(text))
    trained = zoo.build(zoo.resnet())
    trained.extra = nn.Linear(1, 1)
    zoo.distil(zoo.mixer(), zoo.resnet(), saved(trained, tmp_path / 'a.pth', lambda key: key == 'head.fc.weight'))
    text = '\n'.join(lines)
    assert "not loaded (no tap needs them): ['head.fc.weight']" in text
    assert "in the file but not in the model: ['extra.weight', 'extra.bias']" in text


@pytest.mark.parametrize('missing, needed', [
    ('head.', False), ('backbone.layer4.', False), ('backbone.layer3.1.bn2.running_var', True),
    ('backbone.conv1', True)])
def test_only_weights_before_the_deepest_tap_are_needed(zoo, tmp_path, missing, needed):
    file = saved(zoo.build(zoo.resnet(), seed=7), tmp_path / 'a.pth', lambda key: key.startswith(missing))

    def build():
        return zoo.distil(zoo.mixer(), zoo.resnet(), file,
                          pairs=[dict(student='backbone.layers.1', teacher='backbone.layer3')])
    if needed:
        with pytest.raises(ConfigError, match=missing):
            build()
    else:
        build()


def test_weights_used_without_calling_their_module_are_needed(zoo, tmp_path):
    """Class token and position embedding belong to the backbone itself."""
    file = saved(zoo.build(zoo.vit(layers=8)), tmp_path / 'a.pth', lambda key: key == 'backbone.cls_token')
    with pytest.raises(ConfigError, match='backbone.cls_token'):
        zoo.distil(zoo.resnet(), zoo.vit(layers=8), file)


def test_the_teachers_own_init_cfg(zoo):
    config = zoo.resnet()
    config['backbone']['init_cfg'] = dict(type='Constant', layer='Conv2d', val=0.25)
    weight = zoo.distil(zoo.mixer(), config).distillation.teacher.network.backbone.conv1.weight
    assert weight.min() >= 0.25 and weight.max() < 0.28  # with zoo.distil's noise


def test_weights_that_a_parent_uses_without_calling_its_child_are_needed():
    """nn.MultiheadAttention reads out_proj's weights and never calls it."""
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 4, stride=4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.tap, self.after = nn.Identity(), nn.Linear(8, 8)

        def forward(self, inputs):
            tokens = self.stem(inputs).flatten(2).transpose(1, 2)
            return self.after(self.tap(self.attention(tokens, tokens, tokens)[0]))

    teacher = Teacher(Network())
    teacher.tap(Taps(teacher.network, ['tap'], stop=True), (32, 32))
    assert teacher._runs('attention.out_proj.weight') and teacher._runs('stem.weight')
    assert not teacher._runs('after.weight')


# ---- compiled ----

@pytest.mark.long
@pytest.mark.skipif(shutil.which('g++') is None, reason='torch.compile needs a compiler')
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_compiled_it_shows_the_same(zoo, precision):
    network = zoo.build(zoo.swin())
    taps = dict(paths=['backbone.stages.1', 'backbone.norm3'], stop=True)
    found, inputs = [], torch.randn(4, 3, *SIZE)
    for compiled in (False, True):
        teacher = Teacher(copy.deepcopy(network), precision=precision, compiled=compiled)
        teacher.tap(Taps(teacher.network, **taps), SIZE)
        found.append(teacher(inputs))
    tolerance = dict(fp32=1e-4, bf16=0.05)[precision]
    for path, features in found[0].items():
        assert features.any() and features.dtype == found[1][path].dtype == torch.float32
        torch.testing.assert_close(found[1][path], features, rtol=tolerance, atol=tolerance)
    again = teacher(inputs)
    assert all(torch.equal(again[path], features) for path, features in found[1].items())


class WantsSamples(nn.Module):
    """As TridentNet: it looks at the samples before anything else, in a mere forward pass too."""

    def __init__(self, channels):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1), nn.ReLU(),
                                      nn.Conv2d(channels, channels, 3, 2, 1))

    def extract_feat(self, inputs):
        return self.backbone(inputs)

    def forward(self, inputs, samples=None):
        copies = len(samples * 2)
        return self.extract_feat(inputs) * copies


@pytest.mark.parametrize('compiled', [False, True])
def test_what_follows_the_backbone_may_want_more_than_pictures(compiled):
    student, teacher = WantsSamples(4), WantsSamples(6)
    images = torch.randn(2, 3, 32, 32)
    with torch.compiler.set_stance('force_eager'):
        distillation = Distillation(student, Teacher(teacher, precision='fp32', compiled=compiled), input_size=32)
        path = distillation.pairs[0].stages[1].path
        assert path.startswith('backbone')
        with distillation(images) as taught:
            student(images, [0, 1])
        assert taught.loss > 0
        torch.testing.assert_close(distillation.teacher(images)[path], teacher.backbone[:int(path[-1]) + 1](images))


def test_compiled_it_notes_its_own_passes_alone():
    """What else runs the network, such as a second companion over it, leaves nothing behind in its hooks."""
    network, images = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)), torch.randn(2, 3, 16, 16)
    teacher = Teacher(network, compiled=True)
    with torch.compiler.set_stance('force_eager'):
        teacher.tap(Taps(network, ['1'], stop=True), (16, 16))
        expected = teacher(images)['1']
        network(images + 1)
        assert torch.equal(teacher(images)['1'], expected)


def test_compiled_with_an_anchor_is_refused(zoo):
    with pytest.raises(ConfigError, match='teacher_compile: the anchor asks for the rest'):
        zoo.distil(zoo.mixer(), zoo.resnet(), anchor=dict(weight=1.0), teacher_compile=True)


# ---- what else may hold it ----

def test_whoever_else_holds_it_cannot_wake_it(zoo):
    """Such as a LightningModule with the teacher as an attribute, whose train() reaches its children."""
    network, inputs = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), torch.randn(2, 3, 16, 16)
    teacher = Teacher(network)
    teacher.tap(Taps(network, ['1'], stop=True), (16, 16))
    before, state = teacher(inputs)['1'], copy.deepcopy(network.state_dict())
    nn.ModuleList([network]).train()
    assert torch.equal(teacher(inputs)['1'], before)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_student_that_holds_a_part_of_it_cannot_wake_that():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3))
    student = nn.Sequential(*network[:2], nn.Conv2d(8, 8, 3))
    distillation = Distillation(student, network, [dict(student='2', teacher='2')], input_size=16)
    inputs, state = torch.randn(2, 3, 16, 16), copy.deepcopy(network.state_dict())
    expected = distillation.teacher(inputs)['2']
    student.train()
    with distillation(inputs):
        student(inputs)
    student.train()
    assert torch.equal(distillation.teacher(inputs)['2'], expected)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_network_that_is_on_a_device_already_gets_its_normalisation_there():
    network = nn.Sequential(nn.Conv2d(3, 8, 3)).to('meta')  # 'meta', as there is no GPU: torch tells it from the CPU
    own, student = (Normalisation(torch.full((3, ), value), torch.ones(3)) for value in (0.4, 0.5))
    scale, shift, _ = Teacher(network, own, student).affine
    with pytest.raises(ConfigError, match='nothing how the student.s are, which it is shown; give student='):
        Teacher(network, own)
    assert scale.device == shift.device == torch.device('meta')


def test_a_copy_that_is_cast_or_moved_leaves_the_teacher_alone(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet())
    expected, teacher = loss_of(distiller, zoo), distiller.distillation.teacher
    copied = copy.deepcopy(distiller)
    assert copied.distillation.teacher is teacher
    copied.float()  # which changes nothing
    assert copied.distillation.teacher is teacher
    copied.double()
    assert {p.dtype for p in teacher.network.parameters()} == {torch.float32}
    torch.testing.assert_close(loss_of(distiller, zoo), expected, rtol=0, atol=0)
    own = copied.distillation.teacher
    assert own is not teacher and {p.dtype for p in own.network.parameters()} == {torch.float64}
    images = copied.data_preprocessor(zoo.batch(), True)['inputs'].double()
    assert own(images).keys() == teacher(images.float()).keys()
    for path, found in own(images).items():
        torch.testing.assert_close(found.float(), teacher(images.float())[path], rtol=1e-3, atol=1e-3)
    distiller.double()  # the first one's own goes with it
    assert next(teacher.network.parameters()).dtype == torch.float64


def test_two_companions_may_have_one_teacher():
    torch.manual_seed(0)
    teacher = Teacher(timm.create_model('resnet10t', num_classes=5))
    images, losses = torch.randn(2, 3, 64, 64), []
    students = [timm.create_model('resnet10t', num_classes=5).eval() for _ in range(2)]
    companions = []
    for student, options in zip(students, (dict(anchor=dict(weight=1.0)), dict(stages=[0]))):
        companions.append(Distillation(student, teacher, input_size=64, **options).eval())
    for i in (0, 1, 0):
        with companions[i](images) as taught:
            students[i](images)
        losses.append(taught.loss.item())
    assert losses[0] == losses[2] and 'distill.anchor.loss' in taught.losses
    assert companions[0].teacher.network is companions[1].teacher.network


def test_what_wraps_it_is_taken_off():
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    assert Teacher(nn.DataParallel(network)).network is network
    assert Teacher(torch.compile(network, backend='eager')).network is network
