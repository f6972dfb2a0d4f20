"""The companion in other people's loops: accumulation, mixed precision, compiled students, data-parallel processes."""
import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from sfkd import Distillation
from sfkd.features.probe import unwrapped

ROOT = Path(__file__).resolve().parents[2]
SIZE, CLASSES = 64, 5


def networks(student='resnet10t', teacher='convnext_atto'):
    torch.manual_seed(0)
    return [timm.create_model(name, num_classes=CLASSES) for name in (student, teacher)]


def companion(student, teacher, **options):
    torch.manual_seed(1)
    return Distillation(student, teacher, input_size=SIZE, **options)


def batch(n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, SIZE, SIZE, generator=generator), torch.arange(n) % CLASSES


def loss_of(student, distillation, images, labels):
    with distillation(images) as taught:
        loss = F.cross_entropy(student(images), labels)
    return loss + taught.loss, taught


def gradients(*modules):
    return [p.grad.clone() for module in modules for p in module.parameters() if p.grad is not None]


# ---- accumulation ----

def accumulated(per_step: int, images, **options):
    """Gradients of eight pictures, so many at a time, of a student in eval mode: its batch normalisation rests."""
    student, teacher = networks()
    distillation = companion(student.eval(), teacher, **options)
    for part, labels in zip(images.split(per_step), batch(8)[1].split(per_step)):
        (loss_of(student, distillation, part, labels)[0] * per_step / 8).backward()
    return torch.cat([g.flatten() for g in gradients(student, distillation)])


def test_accumulated_gradients_are_the_big_batchs_for_losses_that_are_means_over_pictures():
    options = dict(connector=dict(type='ConvModuleConnector'), losses=[dict(type='CosineDistance')],
                   pairs=[dict(student='layer4', teacher='stages.3')])
    whole, parts = (accumulated(n, batch(8)[0], **options) for n in (8, 2))
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


def test_standardisation_takes_each_parts_own_statistics():
    """So the default's accumulated gradients are the big batch's where the parts have the same statistics, and near
    them elsewhere.
    """
    alike = batch(4)[0].repeat(2, 1, 1, 1)
    torch.testing.assert_close(accumulated(4, alike), accumulated(8, alike), rtol=1e-3, atol=1e-4)
    whole, parts = (accumulated(n, batch(8)[0]) for n in (8, 4))
    assert not torch.allclose(parts, whole, rtol=1e-2, atol=1e-3)
    assert 0.9 < torch.cosine_similarity(parts, whole, dim=0) < 0.999


# ---- mixed precision, checkpointing, modes ----

def test_autocast_and_a_scaler_train_as_float32_nearly_does():
    images, labels = batch()
    values = {}
    for dtype in (torch.float32, torch.bfloat16):
        student, teacher = networks()
        distillation = companion(student, teacher)
        scaler = torch.amp.GradScaler('cpu', enabled=False)
        optimizer = torch.optim.SGD([*student.parameters(), *distillation.parameters()], lr=1e-3)
        with torch.autocast('cpu', dtype, enabled=dtype is not torch.float32):
            loss, taught = loss_of(student, distillation, images, labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        assert all(value.dtype is torch.float32 for value in taught.losses.values())
        assert all(g.dtype is torch.float32 and g.isfinite().all() for g in gradients(student, distillation))
        values[dtype] = torch.stack(list(taught.losses.values())).detach()
    torch.testing.assert_close(values[torch.bfloat16], values[torch.float32], rtol=0.05, atol=0.02)
    assert not torch.equal(values[torch.bfloat16], values[torch.float32])


def test_autocast_within_the_block_is_as_good_as_around_it():
    images, labels = batch()
    student, teacher = networks()
    distillation = companion(student.eval(), teacher)
    expected = loss_of(student, distillation, images, labels)[1].losses
    with distillation(images) as taught, torch.autocast('cpu', torch.bfloat16):
        loss = F.cross_entropy(student(images), labels)
    (loss + taught.loss).backward()
    assert all(value.dtype is torch.float32 for value in taught.losses.values())
    torch.testing.assert_close(taught.losses, expected, rtol=0.05, atol=0.02)
    for name, parameter in distillation.named_parameters():
        # a residual of DS2S begins with zeros in its last layer, so that nothing reaches those before it
        begins = '.refine.' in name and ('.down.' in name or '.depthwise.' in name)
        assert parameter.grad.isfinite().all() and parameter.grad.any() == (not begins), name


def test_a_student_that_recomputes_its_activations_gets_the_same_gradients():
    found = []
    for checkpointing in (False, True):
        student, teacher = networks()
        student.set_grad_checkpointing(checkpointing)
        distillation = companion(student, teacher)
        loss_of(student, distillation, *batch())[0].backward()
        found.append(gradients(student, distillation))
    torch.testing.assert_close(*found)


def test_an_eval_student_and_a_block_without_gradients_give_values():
    student, teacher = networks()
    distillation = companion(student.eval(), teacher).eval()
    with torch.no_grad():
        first, second = (loss_of(student, distillation, *batch())[1].losses for _ in range(2))
    assert first == second and len(first) == 8 and not any(value.requires_grad for value in first.values())
    assert loss_of(student, distillation, *batch())[0].requires_grad


# ---- what goes wrong ----

def test_a_student_that_ran_otherwise_than_once_on_the_blocks_pictures_is_an_error():
    student, teacher = networks()
    distillation = companion(student, teacher)
    images, _ = batch()
    with pytest.raises(RuntimeError, match="'layer1' of ResNet did not run in this forward pass. Run the network once"):
        with distillation(images):
            pass
    with pytest.raises(RuntimeError, match='ran more than once in one forward pass: run the network once in a with'):
        with distillation(images):
            student(images)
            student(images)
    with pytest.raises(RuntimeError, match="student ran on 2 pictures .tap 'layer1'., the with block's are 4"):
        with distillation(images):
            student(images[:2])
    with pytest.raises(RuntimeError, match='the student ran without gradients'):
        with distillation(images), torch.no_grad():
            student(images)
    loss_of(student, distillation, *batch())[0].backward()  # and it is none the worse for it


class Pyramid(torch.nn.Module):
    """A backbone, a neck that gives two maps, and a classifier."""

    def __init__(self, width=8):
        super().__init__()
        self.backbone = timm.create_model('resnet10t', features_only=True, out_indices=(2, 3))
        self.neck = Neck(self.backbone.feature_info.channels(), width)
        self.fc = torch.nn.Linear(width, CLASSES)

    def forward(self, images):
        return self.fc(self.neck(self.backbone(images))[-1].mean((2, 3)))


class Neck(torch.nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.convs = torch.nn.ModuleList([torch.nn.Conv2d(c, width, 1) for c in channels])

    def forward(self, maps):
        return tuple(conv(x) for conv, x in zip(self.convs, maps))


def test_a_student_taught_at_a_necks_levels_may_not_run_twice_either():
    student, (images, _) = Pyramid(), batch()
    pairs = [dict(student=f'neck[{i}]', teacher=f'neck[{i}]') for i in (0, 1)]
    distillation = companion(student, Pyramid(16), pairs=pairs)
    with pytest.raises(RuntimeError, match="tap 'neck.0.' ran more than once in one forward pass: run"):
        with distillation(images):
            student(images.flip(0))
            student(images)


def test_what_follows_a_backbone_can_be_named():
    student, teacher = Pyramid(), Pyramid(16)
    logits = dict(student='fc', teacher='fc', connector=None, losses=[dict(type='KLDivergence')])
    losses = loss_of(student, companion(student, teacher, pairs=['auto', logits]), *batch())[1].losses
    assert losses['distill.fc.loss_KLDivergence'] > 0 and len(losses) > 2


# ---- torch.compile ----

@pytest.fixture
def compiler():
    torch._dynamo.reset()
    counters.clear()
    yield lambda network: torch.compile(network, backend='aot_eager')
    torch._dynamo.reset()


@pytest.mark.parametrize('how', ['before', 'after', 'in place before', 'in place after'])
def test_a_compiled_student_is_tapped_and_compiled_once(compiler, how):
    student, teacher = networks()
    plain = copy.deepcopy(student)
    expected, running = companion(plain, copy.deepcopy(teacher)), student
    if how == 'before':
        running = compiler(student)
    if how == 'in place before':
        student.compile(backend='aot_eager')
    distillation = companion(running, teacher)
    assert not counters['frames'], 'the dry run was compiled'
    if how == 'after':
        running = compiler(student)
    if how == 'in place after':
        student.compile(backend='aot_eager')
    assert [pair.student_path for pair in distillation.pairs] == [f'layer{i}' for i in (1, 2, 3, 4)]
    graphs = []
    for seed in range(3):
        loss, taught = loss_of(running, distillation, *batch(seed=seed))
        loss.backward()
        same, also = loss_of(plain, expected, *batch(seed=seed))
        same.backward()
        torch.testing.assert_close(taught.losses, also.losses, rtol=1e-4, atol=1e-5)
        graphs.append(counters['stats']['unique_graphs'])
    torch.testing.assert_close(gradients(student, distillation), gradients(plain, expected), rtol=1e-3, atol=1e-4)
    assert graphs[0] == graphs[2] <= 7, graphs  # one more than there are taps, and the head


def test_a_student_compiled_by_a_run_outside_of_a_block_is_an_error_that_says_what_to_do(compiler):
    student, teacher = networks()
    distillation = companion(student, teacher)
    running = torch.compile(student, backend='eager')
    running(batch()[0])
    with pytest.raises(RuntimeError, match=r'must not have run before outside of it.*torch\.compiler\.reset'):
        loss_of(running, distillation, *batch())
    torch.compiler.reset()
    loss_of(running, distillation, *batch())[0].backward()
    running.eval()(batch()[0])  # validation between the steps is other code
    running.train()
    loss_of(running, distillation, *batch())[0].backward()


def test_a_compiled_student_that_begins_with_a_step_of_rest_is_tapped_in_the_next(compiler):
    student, teacher = networks()
    distillation = companion(student, teacher, every=2)
    distillation.steps.next()  # as resumed
    running = torch.compile(student, backend='eager')
    losses = [set(loss_of(running, distillation, *batch())[1].losses) for _ in range(2)]
    assert losses[0] == {'distill.rest.loss'} and len(losses[1]) == 8


@pytest.mark.long
@pytest.mark.parametrize('name, options', [('resnet10t', dict(dynamic=False)), ('resnet18', {})])
def test_inductor_gives_what_eager_mode_gives(name, options):
    timm = pytest.importorskip('timm')
    found = []
    for compiled in (False, True):
        torch.compiler.reset()
        torch.manual_seed(0)
        student, teacher = timm.create_model(name, num_classes=4), timm.create_model('convnext_atto')
        running = torch.compile(student, **options) if compiled else student
        distillation = Distillation(running, teacher, input_size=64)
        optimizer = torch.optim.SGD([*student.parameters(), *distillation.parameters()], lr=1e-2)
        losses = []
        for seed in range(3):
            images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
            with distillation(images) as taught:
                loss = F.cross_entropy(running(images), torch.arange(4))
            optimizer.zero_grad()
            (loss + taught.loss).backward()
            optimizer.step()
            losses += [loss.item(), taught.loss.item()]
        found.append(losses)
    torch.compiler.reset()
    assert found[1] == pytest.approx(found[0], rel=1e-3) and len(set(found[0])) == 6


# ---- wrappers ----

def test_wrappers_are_taken_off(compiler):
    network = networks()[0]
    fabric = pytest.importorskip('lightning').fabric.Fabric(accelerator='cpu', devices=1)
    assert unwrapped(compiler(network)) is network and unwrapped(torch.nn.DataParallel(network)) is network
    assert unwrapped(fabric.setup_module(network)) is network
    assert unwrapped(compiler(torch.nn.DataParallel(network))) is network and unwrapped(network) is network


# ---- data-parallel ----

@pytest.fixture(scope='module')
def one_and_two(tmp_path_factory) -> tuple[dict, list[dict]]:
    """What one process found, and each of two."""
    found = []
    for processes in (1, 2):
        out = tmp_path_factory.mktemp('loops')
        command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}',
                   Path(__file__).with_name('loop_worker.py'), out]
        subprocess.run(command, check=True, timeout=400,
                       env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
        found.append([torch.load(out / f'{rank}.pth') for rank in range(processes)])
    return found[0][0], found[1]


@pytest.mark.parametrize('mode', ['both', 'joint'])
def test_two_processes_train_what_one_trains_on_the_joined_batch(mode, one_and_two):
    one, first, second = (found[mode] for found in (one_and_two[0], *one_and_two[1]))
    assert first['weights'].keys() == one['weights'].keys()
    for key, value in first['weights'].items():
        assert torch.equal(value, second['weights'][key]), key
        assert not torch.equal(value, first['start'][key]), key
        torch.testing.assert_close(value, one['weights'][key], rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(first['validation'], one['validation'], rtol=1e-7, atol=0)


def test_connectors_that_nobody_reduces_are_an_error_in_every_process(one_and_two):
    for found in one_and_two[1]:
        assert found['forgotten']['step'] == 1
        assert 'distillation = DistributedDataParallel(distillation)' in found['forgotten']['error']
    assert 'error' not in one_and_two[0]['forgotten']


def test_a_mask_in_some_processes_alone_is_an_error_in_every_one(one_and_two):
    for found in one_and_two[1]:
        assert found['masks of some']['step'] == 0
        assert '1 of 2 processes have given a taught_mask' in found['masks of some']['error']
    assert 'error' not in one_and_two[0]['masks of some']
