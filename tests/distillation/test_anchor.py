"""The anchor: what the rest of the teacher makes of the student's maps, and how large its gradient is."""
import copy
import gc
import weakref

import pytest
import timm
import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import nn

from sfkd.distillation import Distillation, Teacher
from sfkd.distillation.anchor import Anchor, as_teachers, class_scores
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.distiller import Distiller
from sfkd.ops import standardise


def anchored(zoo, student='mixer', teacher='resnet', **options):
    options = dict(dict(anchor=dict(weight=2.0), refine=True), **options)
    return zoo.distil(getattr(zoo, student)(), getattr(zoo, teacher)(), **options)


def losses_of(distiller, data):
    return distiller(**distiller.data_preprocessor(copy.deepcopy(data), True), mode='loss')


@torch.no_grad()
@pytest.mark.parametrize('teacher', ['resnet', 'swin'])
def test_by_hand(zoo, teacher):
    """KL of the teacher's scores of its own deepest map and of the aligned one, given the teacher's mean and spread."""
    distiller, data = anchored(zoo, teacher=teacher).train(), zoo.batch()
    network, pair = distiller.distillation.teacher.network, distiller.distillation.pairs[-1]
    with zoo.recorded(distiller.student, [pair.student_path]) as student, \
            zoo.recorded(network, [pair.teacher_path, 'head']) as seen:
        losses = losses_of(distiller, data)
    map, = seen[pair.teacher_path][:1]
    map = map[0] if isinstance(map, tuple) else map
    tokens = map.dim() == 3
    side = int(map.shape[1]**0.5)
    map = map.transpose(1, 2).unflatten(2, (side, side)) if tokens else map
    tokens_of_student, = student[pair.student_path]
    h = int(tokens_of_student.shape[1]**0.5)
    grid = (min(h, map.shape[2]), ) * 2
    ours = F.adaptive_avg_pool2d(tokens_of_student.transpose(1, 2).unflatten(2, (h, h)), grid)
    ours = pair.connector.align.project(ours)
    mean, std = map.mean((0, 2, 3), keepdim=True), map.var((0, 2, 3), correction=0, keepdim=True)
    ours = (ours - ours.mean((0, 2, 3), keepdim=True)) / (ours.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    ours = ours * (std + 1e-5).sqrt() + mean
    assert ours.shape == map.shape
    scores = network.head(network.neck((ours, )))
    expected = 2 * F.kl_div(scores.log_softmax(1), seen['head'][0].softmax(1), reduction='batchmean')
    assert expected > 1e-6
    assert losses['distill.anchor.loss'].item() == pytest.approx(expected.item(), rel=2e-3)


@pytest.mark.parametrize('masked', [False, True])
def test_a_map_gets_the_scale_that_the_connector_took(masked):
    own = torch.randn(3, 5, 8, 8).double() * torch.rand(5, 1, 1).double() * 9 + torch.randn(5, 1, 1).double()
    pooled = F.avg_pool2d(own, 2)
    mask = torch.ones(3, 1, 4, 4, dtype=torch.float64)
    if masked:
        mask[:, :, :, 3:] = 0
    theirs, = standardise(pooled, mask=mask if masked else None)
    back = as_teachers(theirs, theirs, pooled)
    torch.testing.assert_close(back, pooled, rtol=1e-9, atol=1e-9)
    larger = as_teachers(theirs, theirs, own)
    torch.testing.assert_close(larger, F.interpolate(pooled, (8, 8), mode='bilinear'), rtol=1e-9, atol=1e-9)
    other = torch.randn_like(theirs) * mask
    moved = as_teachers(other, theirs, pooled)
    assert torch.equal(moved[:, :, :, 3:], pooled[:, :, :, 3:]) == masked


def test_it_teaches_the_student_and_the_refinement_and_not_the_teacher(zoo):
    distiller = anchored(zoo, spatial_weight=0, frequency_weight=1e-12).train()
    before = copy.deepcopy(distiller.distillation.teacher.network.state_dict())
    losses_of(distiller, zoo.batch())['distill.anchor.loss'].backward()
    touched = {name for name, p in distiller.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any('.refine.' in name for name in touched) and any('.align.' in name for name in touched)
    assert any(name.startswith('backbone.layers.0') for name in touched)
    assert not any(p.requires_grad or p.grad is not None for p in distiller.distillation.teacher.network.parameters())
    for key, value in distiller.distillation.teacher.network.state_dict().items():
        assert torch.equal(before[key], value)


def test_the_weight_makes_the_gradient_the_wanted_share(zoo):
    distiller, data = anchored(zoo, anchor=dict(share=0.25)).train(), zoo.batch()
    anchor, path = distiller.distillation.anchor, distiller.distillation.pairs[-1].student_path
    for _ in range(2):
        losses = losses_of(distiller, data)
        sum(losses.values()).backward()
    with zoo.recorded(distiller.student, [path]) as seen:
        losses = losses_of(distiller, data)
    tap, = seen[path]
    task, ours = (torch.autograd.grad(losses[key], tap, retain_graph=True)[0].norm() for key in
                  ('task.loss', 'distill.anchor.loss'))
    assert (ours / task).item() == pytest.approx(0.25, rel=1e-3)
    assert anchor.steps.done == 3 and anchor.weight != 1


def test_the_share_is_measured_alike_with_autocast_within_the_block_and_around_it():
    """Within, a tap in half precision is a float32 copy in another layout than the student's own map."""
    images, labels, norms = torch.randn(4, 3, 64, 64), torch.arange(4), []
    images = images.to(memory_format=torch.channels_last)
    for within in False, True:
        torch.manual_seed(0)
        student, teacher = (timm.create_model(name, num_classes=5) for name in ('resnet10t', 'resnet14t'))
        student.eval().to(memory_format=torch.channels_last)
        distillation = Distillation(student, teacher, input_size=64, anchor=dict(share=0.1))
        with (torch.autocast('cpu', torch.bfloat16, enabled=not within), distillation(images) as taught,
              torch.autocast('cpu', torch.bfloat16, enabled=within)):
            loss = F.cross_entropy(student(images), labels)
        (loss + taught.loss).backward()
        norms.append(distillation.anchor.norms.clone())
    torch.testing.assert_close(*norms, rtol=0.5, atol=0)  # of squares; in the copy's layout it was 16,000 times as much


def test_a_task_loss_that_goes_back_by_itself_is_not_measured():
    torch.manual_seed(0)
    student, teacher = (timm.create_model(name, num_classes=5) for name in ('resnet10t', 'resnet14t'))
    distillation = Distillation(student, teacher, input_size=64, anchor=dict(share=0.1))
    images = torch.randn(4, 3, 64, 64)
    for _ in range(2):
        with distillation(images) as taught:
            loss = F.cross_entropy(student(images), torch.arange(4))
        loss.backward(retain_graph=True)
        taught.loss.backward()
    assert distillation.anchor.weight == 1 and not distillation.anchor.norms[0]


def test_what_was_measured_is_let_go():
    torch.manual_seed(0)
    student, teacher = (timm.create_model(name, num_classes=5) for name in ('resnet10t', 'resnet14t'))
    distillation = Distillation(student, teacher, input_size=64, anchor=dict(share=0.1))
    distillation.anchor.INTERVAL = 1
    images, maps = torch.randn(4, 3, 64, 64), []
    student.layer4.register_forward_hook(lambda _, __, output: maps.append(weakref.ref(output)))
    for _ in range(2):
        with distillation(images) as taught:
            loss = student(images).square().mean()
        (loss + taught.loss).backward()
        assert (distillation.anchor.norms > 0).all()
    del taught, loss
    gc.collect()
    assert len(maps) == 2 and not [map for map in maps if map() is not None]


def test_measuring_changes_no_gradient(zoo):
    gradients = []
    for interval in (1, 10**9):
        distiller = anchored(zoo, anchor=dict(share=0.1)).train()
        distiller.distillation.anchor.INTERVAL = interval
        distiller.distillation.anchor.steps.done.fill_(5)
        sum(losses_of(distiller, zoo.batch()).values()).backward()
        assert bool(distiller.distillation.anchor.norms.all()) == (interval == 1)
        gradients.append({name: p.grad for name, p in distiller.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('steps', [1, 4], ids=['after a measurement', 'between two'])
def test_a_resumed_run_goes_on_as_the_other_would(zoo, steps):
    first, data = anchored(zoo, anchor=dict(share=0.1)).train(), zoo.batch()
    for _ in range(steps):
        sum(losses_of(first, data).values()).backward()
    second = anchored(zoo, anchor=dict(share=0.1)).train()
    sum(losses_of(second, data).values()).backward()
    second.load_state_dict(first.state_dict())
    for distiller in (first, second):
        losses_of(distiller, data)
    assert first.distillation.anchor.steps.done == second.distillation.anchor.steps.done == steps + 1
    assert first.distillation.anchor.weight != 1
    assert torch.equal(first.distillation.anchor.weight, second.distillation.anchor.weight)


def test_after_the_first_a_measurement_moves_the_weight_half_the_way():
    """By geometric mean: 2 becomes 1.5 at once where 1.5 is wanted, later the root of 3."""
    for step, expected in (1, 1.5), (11, 3**0.5):
        anchor = Anchor([0], torch.nn.Identity(), weight=2.0, share=0.25)
        anchor.steps.done.fill_(step)
        anchor.norms.copy_(torch.tensor([9.0, 1.0]))
        tap = torch.randn(1, requires_grad=True) * 1
        anchor.split([(tap, tap)], [tap])
        assert anchor.weight.item() == pytest.approx(expected)


def test_its_dry_run_draws_nothing(zoo):
    states = []
    for anchor in (None, dict(weight=1.0)):
        torch.manual_seed(0)
        Distillation(zoo.build(zoo.mixer()), zoo.build(zoo.resnet()), input_size=64, anchor=anchor, stages=[-1],
                     connector=dict(type='MaskedGeneration', ratio=0.5), losses=[dict(type='FeatureMSE')])
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize('pairs', [(1, 3), (3, 1), (3, 3, 1)], ids=str)
def test_it_is_at_the_map_that_the_teacher_makes_last(pairs):
    student, teacher = (torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)),
                                            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()) for _ in range(2))
    distillation = Distillation(student, teacher, [dict(student=str(n), teacher=str(i)) for n, i in enumerate(pairs)],
                                input_size=32, anchor={})
    where, = distillation.anchor.where
    assert distillation.pairs[where].teacher_path == distillation.teacher.rest.module == '3'
    assert where == max(n for n, i in enumerate(pairs) if i == 3)


@pytest.mark.parametrize('dead', [0, 16])
def test_srrl_gives_the_teachers_head_the_connectors_own_map(zoo, dead):
    """As the authors' code does, where a channel of the teacher is 0 in the whole batch too."""
    peer = Config.fromfile('configs/peers/srrl.py').model
    options = {key: value for key, value in peer.items() if key != 'type'}
    distiller = zoo.distil(zoo.resnet(), zoo.resnet(), kind=Distiller, **options).train()
    network, (pair, *_) = distiller.distillation.teacher.network, distiller.distillation.pairs
    norm = [m for m in network.backbone.layer4.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    with torch.no_grad():
        norm.bias.fill_(3.0)
        norm.bias[:dead] = -1e3  # before the last ReLU
    connector = copy.deepcopy(pair.connector)
    with zoo.recorded(distiller.student, [pair.student_path]) as ours, zoo.recorded(network, ['head']) as theirs:
        losses = losses_of(distiller, zoo.batch())
    map, = ours[pair.student_path]
    expected = F.mse_loss(network.head(network.neck((connector.conv(map), ))), theirs['head'][0])
    assert losses['distill.anchor.loss'].item() == pytest.approx(expected.item(), rel=1e-4) != 0


class GatedByThePicture(torch.nn.Sequential):
    def forward(self, x):
        return (super().forward(x) * x[:, :1]).mean((2, 3))


def test_a_teacher_that_comes_back_to_the_picture_behind_the_tap():
    """Pictures of inference mode could not be multiplied with what takes a gradient."""
    student = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Conv2d(4, 4, 1))
    teacher = GatedByThePicture(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 1))
    distillation = Distillation(student, teacher, [dict(student='1', teacher='1')], input_size=32,
                                anchor=dict(weight=1.0), student_mean=[0.5] * 3, student_std=[0.5] * 3,
                                teacher_mean=[0.4] * 3, teacher_std=[0.25] * 3)
    with distillation(torch.randn(2, 3, 32, 32)) as taught:
        student(torch.randn(2, 3, 32, 32))
    taught.losses['distill.anchor.loss'].backward()
    assert student[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize('teacher', ['resnet', 'swin'])
def test_in_the_teachers_precision(zoo, teacher):
    """The rest of the teacher computes in bfloat16 as its recorded pass has; the loss and the gradient stay near."""
    found = []
    for precision in ('fp32', 'bf16'):
        distiller = anchored(zoo, teacher=teacher, teacher_precision=precision).train()
        loss = losses_of(distiller, zoo.batch())['distill.anchor.loss']
        loss.backward()
        found.append((loss.detach(), distiller.backbone.layers[0].token_mix.layers[0][0].weight.grad))
        assert loss.dtype == torch.float32
    (loss, gradient), (half_loss, half_gradient) = found
    assert not torch.equal(loss, half_loss)
    torch.testing.assert_close(half_loss, loss, rtol=0.1, atol=1e-4)
    assert F.cosine_similarity(gradient.flatten(), half_gradient.flatten(), dim=0) > 0.9


@pytest.mark.parametrize('name', ['det_swin_to_resnet8', 'seg_swin_to_resnet8'])
def test_detectors_and_segmentors(name):
    from mmengine.config import Config
    config = Config.fromfile(f'configs/mini/{name}.py')
    model = build_model(dict(config.model, teacher_ckpt='init', anchor=dict(share=0.1), _scope_=config.default_scope),
                        'here', config.get('data_preprocessor'))
    distillation = model.distillation
    levels = len(distillation.pairs) if name.startswith('det') else 1
    assert len(distillation.anchor.where) == levels
    pictures = torch.randn(2, 3, 128, 128)
    teacher = distillation.teacher(pictures)
    with distillation.taps.capture((128, 128)) as student:
        model.student(pictures)
    losses = distillation.compare(student, teacher)
    assert losses['distill.anchor.loss'] > 0
    losses['distill.anchor.loss'].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_class_scores():
    from types import SimpleNamespace
    plain, maps = SimpleNamespace(), torch.randn(2, 6, 3, 4)
    assert class_scores(maps, plain)[0].shape == (24, 6)
    assert torch.equal(class_scores(maps, plain)[0][5], maps[0, :, 1, 1])
    sigmoid = SimpleNamespace(bbox_head=torch.nn.Identity())
    pairs, = class_scores(([maps], None), sigmoid)
    torch.testing.assert_close(pairs.softmax(1)[:, 0], maps.sigmoid().flatten())
    softmax = SimpleNamespace(bbox_head=torch.nn.Identity())
    softmax.bbox_head.use_sigmoid_cls, softmax.bbox_head.cls_out_channels = False, 3
    rows, = class_scores(([maps], None), softmax)  # two anchors of three classes
    assert rows.shape == (48, 3) and torch.equal(rows[12], maps[0, 3:, 0, 0])
    with pytest.raises(ConfigError, match='gives no class scores'):
        class_scores(dict(), plain)


@pytest.mark.parametrize('options, message', [
    (dict(anchor=dict(weight=0)), 'anchor.weight: 0 is no number above 0'),
    (dict(anchor=dict(share=-1)), 'anchor.share: -1 is no number above 0'),
    (dict(anchor=dict(type='KLDivergense')), "cannot build 'KLDivergense'"),
    (dict(anchor=dict(weight=1), pairs=[], logit_weight=1.0), 'there is no pair of maps'),
    (dict(kind=Distiller, refine=None, connector=dict(type='EmbeddingProjector'), anchor=dict(weight=1),
          losses=[dict(type='RedundancySuppression')]), r'gives a tensor \(2, 64\), which cannot take the place'),
], ids=str)
def test_mistakes(zoo, options, message):
    options = {key: value for key, value in dict(dict(refine=True), **options).items() if value is not None}
    with pytest.raises(ConfigError, match=message):
        zoo.distil(zoo.mixer(), zoo.resnet(), **options)


def test_no_gradient_comes_back_in_float16(monkeypatch):
    """Where nobody scales the loss; a teacher that only shows its maps may compute in it."""
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'fp16')
    pairs = [dict(student='2', teacher='2')]

    def distillation(precision='auto', **options):
        def network():
            return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1),
                                 nn.Flatten(), nn.Linear(4, 5))
        return Distillation(network(), Teacher(network(), precision=precision), pairs, input_size=32, **options)
    for options, half in (({}, True), (dict(anchor=dict(weight=1.0)), False)):
        teacher = distillation(**options).teacher
        with teacher.computing():
            assert torch.is_autocast_enabled('cpu') == half
        with torch.autocast('cpu', torch.float16), teacher.computing():  # a scaler is expected beside it
            assert torch.is_autocast_enabled('cpu')
    with pytest.raises(ConfigError, match="teacher_precision: 'fp16' beside an anchor"):
        distillation('fp16', anchor=dict(weight=1.0))
