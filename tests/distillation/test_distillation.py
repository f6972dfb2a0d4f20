"""The companion by itself: torchvision's networks, a plain training loop, no model of mmengine's."""
import copy
import gc
import math
import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch.multiprocessing.reductions import StorageWeakRef

from sfkd import Distillation
from sfkd.distillation import Teacher
from sfkd.errors import ConfigError

SIZE = 64


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 3, SIZE, SIZE, generator=generator), torch.arange(4)


def networks():
    torch.manual_seed(0)
    student, teacher = (getattr(torchvision.models, name)(num_classes=5) for name in ('resnet18', 'regnet_y_400mf'))
    return student, teacher


def test_ten_lines_train_a_student_that_stays_what_it_was(zoo):
    student, teacher = networks()
    keys, kind, frozen = list(student.state_dict()), type(student), copy.deepcopy(teacher.state_dict())
    distillation = Distillation(student, teacher, input_size=SIZE)
    optimizer = torch.optim.SGD([*student.parameters(), *distillation.parameters()], lr=1e-2)
    images, labels = batch()
    values = []
    for _ in range(8):
        with distillation(images) as taught:
            loss = F.cross_entropy(student(images), labels)
        optimizer.zero_grad()
        (loss + taught.loss).backward()
        optimizer.step()
        values.append(float(taught.loss.detach()))
    assert values[-1] < 0.9 * values[0]
    assert type(student) is kind and list(student.state_dict()) == keys and zoo.hook_count(student) == 0
    assert zoo.hook_count(teacher) == 0
    assert all(torch.equal(value, frozen[key]) for key, value in teacher.state_dict().items())


class Named(torch.nn.Module):
    """Gives its scores by name, as a model of transformers does."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return dict(logits=self.network(images))


@pytest.mark.parametrize('names', [('resnet18', 'regnet_y_400mf'), ('mobilenet_v3_small', 'vgg11')])
def test_logits_are_what_the_networks_return_wherever_it_comes_from(names):
    """A ResNet's ``fc``, the last layer of a ``classifier``: not every network has a ``head``."""
    torch.manual_seed(0)
    student, teacher = (getattr(torchvision.models, name)(num_classes=5) for name in names)
    taught_by = Distillation(student, Named(teacher), [], logits=[dict(type='KLDivergence')], input_size=SIZE)
    assert [pair.teacher_path.partition('.')[0] for pair in taught_by.pairs] == ['network']
    distillation = Distillation(student, teacher, [], logits=[dict(type='KLDivergence', temperature=2.0)],
                                input_size=SIZE)
    images, _ = batch()
    with distillation(images) as taught:
        scores = student(images)
    with torch.no_grad():
        expected = teacher(images)
    kl = F.kl_div((scores / 2).log_softmax(1), (expected / 2).log_softmax(1), reduction='batchmean', log_target=True)
    torch.testing.assert_close(taught.losses['distill.logits.loss_KLDivergence'], 4 * kl)


def test_a_loss_of_maps_is_refused_for_scores_of_pictures():
    with pytest.raises(ConfigError, match='logits: .*fc.* cannot be compared .*give other losses'):
        Distillation(*networks(), [], logits=[dict(type='ChannelWiseDivergence')], input_size=SIZE)


def test_timms_notes_of_two_normalisations_are_a_warning():
    """A ViT's pictures are not normalised as a ResNet's, and nobody said so."""
    student, teacher = networks()
    student.pretrained_cfg = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    teacher.pretrained_cfg = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with pytest.warns(UserWarning, match=r'mean and std \[\(0.5, 0.5, 0.5\), .* \[\(0.485, .*student_mean='):
        Distillation(student, teacher, input_size=SIZE)
    said = {f'{role}_{key}': value for role, network in (('student', student), ('teacher', teacher))
            for key, value in network.pretrained_cfg.items()}
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        Distillation(student, teacher, input_size=SIZE, **said)
        teacher.pretrained_cfg = {key: list(value) for key, value in student.pretrained_cfg.items()}  # from its hub
        Distillation(student, teacher, input_size=SIZE)


def test_its_parameters_are_the_connectors(zoo):
    student, teacher = networks()
    distillation = Distillation(student, teacher, input_size=SIZE)
    owned = {id(p) for network in (student, teacher) for p in network.parameters()}
    own = dict(distillation.named_parameters())
    assert own and not owned & {id(p) for p in own.values()}
    assert all(name.startswith('pairs.') and '.connector.' in name for name in own)
    assert list(distillation.state_dict()) == list(own)


def test_what_is_taught_is_there_after_the_block():
    student, teacher = networks()
    distillation = Distillation(student, teacher, input_size=SIZE)
    images, _ = batch()
    with distillation(images) as taught:
        student(images)
        with pytest.raises(RuntimeError, match='after its with block'):
            _ = taught.losses
    assert taught.losses.keys() == {f'distill.{pair.name}.loss_{key}' for pair in distillation.pairs
                                    for key in ('spatial', 'frequency')}
    assert taught.loss == sum(taught.losses.values())


def test_what_a_pair_compares_is_free_before_the_next():
    """At once, not when Python looks for cycles: else all pairs' maps lie beside each other."""
    student, teacher = networks()
    distillation = Distillation(student, teacher, input_size=SIZE)
    images, _ = batch()
    seen, left = [], []

    def look(module, inputs):
        left.append(sum(not storage.expired() for storage in seen))

    def note(module, inputs, compared):
        ours, theirs = compared
        maps = [inputs[1], theirs.map, ours.refined.map, *ours.refined.bands.details]  # no gradient needs them
        seen.extend(StorageWeakRef(x.untyped_storage()) for x in maps)
    for pair in distillation.pairs:
        pair.connector.register_forward_pre_hook(look)
        pair.connector.register_forward_hook(note)
    gc.disable()
    try:
        with distillation(images) as taught:
            student(images)
        look(None, None)
    finally:
        gc.enable()
    assert left == [0] * 5 and len(seen) == 19
    taught.loss.backward()


def test_without_a_forward_pass_of_the_student_no_hook_stays(zoo):
    student, teacher = networks()
    distillation = Distillation(student, teacher, input_size=SIZE)
    with pytest.raises(RuntimeError, match='did not run'), distillation(batch()[0]):
        pass
    with pytest.raises(ZeroDivisionError), distillation(batch()[0]):
        student(batch()[0])
        raise ZeroDivisionError
    assert zoo.hook_count(student) == zoo.hook_count(teacher) == 0 and not distillation.watching


def test_pairs_by_path_with_losses_of_their_own():
    student, teacher = networks()
    pairs = [dict(student='layer3', teacher='trunk_output.block3', losses=[dict(type='FeatureMSE', weight=2.0)])]
    distillation = Distillation(student, teacher, pairs, connector=dict(type='Align'), input_size=SIZE)
    images, _ = batch()
    with distillation(images) as taught:
        student(images)
    value, = taught.losses.values()
    assert list(taught.losses) == ['distill.layer3.loss_FeatureMSE'] and value > 0
    with pytest.raises(ConfigError, match="no module 'layer5' gives an output; nearest: 'layer4'"):
        Distillation(student, teacher, [dict(student='layer5', teacher='trunk_output.block3')], input_size=SIZE)


def test_every_pair_has_a_name_of_its_own():
    """Also where a module's path is what a number would make of another's."""
    student, teacher = (torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, 2, 1), torch.nn.ReLU())
                                              for _ in range(3))) for _ in range(2))
    pairs = [('1', '1'), ('1', '2'), ('1.1', '2'), ('1', '1.0')]
    distillation = Distillation(student, teacher, [dict(student=ours, teacher=theirs) for ours, theirs in pairs],
                                input_size=SIZE)
    assert [pair.name for pair in distillation.pairs] == ['1_0', '1_1_', '1_1', '1_3']
    images, _ = batch()
    with distillation(images) as taught:
        student(images)
    assert len(taught.losses) == 2 * len(pairs)


def test_classifiers_have_no_class_maps():
    with pytest.raises(ConfigError, match=r"'classes' found no maps .*\(0 in the student and 0 in the teacher\)"):
        Distillation(*networks(), pairs='classes', losses=[dict(type='FeatureMSE')], input_size=SIZE)


def test_a_weight_of_zero_watches_nothing(zoo):
    student, teacher = networks()
    distillation = Distillation(student, teacher, losses=[dict(type='FeatureMSE', weight=0)], input_size=SIZE)
    with distillation(batch()[0]) as taught:
        assert zoo.hook_count(student) == 0
    assert taught.losses == {} and taught.loss == 0.0


# ---- less to do ----

def steps_that_teach(**options):
    """A companion, and a function that takes a step and says whether it teaches."""
    images, _ = batch()
    student, teacher = networks()
    runs = []
    teacher.register_forward_pre_hook(lambda *_: runs.append(1))

    def step(companion) -> bool:
        before = len(runs)
        with companion(images) as taught:
            student(images)
        assert len(runs) - before == (set(taught.losses) != {'distill.rest.loss'})
        gradients = torch.autograd.grad(taught.loss, list(companion.parameters()))
        assert any(gradient.any() for gradient in gradients) == (len(runs) > before)
        return len(runs) > before
    return lambda: Distillation(student, teacher, input_size=SIZE, **options).train(), step


@pytest.mark.parametrize('options, first, then', [
    (dict(every=3), [True, False, False, True, False], [False, True, False]),
    (dict(until=6), [True] * 5, [True, False, False]),
    (dict(every=3, until=6), [True, False, False, True, False], [False, False, False])])
def test_some_steps_alone_teach_and_a_resumed_run_goes_on_counting(options, first, then):
    make, step = steps_that_teach(**options)
    distillation, resumed = make(), make()
    assert [step(distillation) for _ in first] == first
    assert step(resumed)  # which has counted before its checkpoint comes
    resumed.load_state_dict(distillation.state_dict())
    assert [step(resumed) for _ in then] == then
    assert [step(resumed.eval()) for _ in range(2)] == [True, True]


def test_a_validation_is_no_step():
    student, teacher = networks()
    distillation, (images, _) = Distillation(student, teacher, input_size=SIZE, every=2, stages=[-1]), batch()
    for _ in range(3):
        with torch.no_grad(), distillation(images) as taught:
            student(images)
        assert taught.loss > 0 and distillation.steps.done == 0


def test_a_part_of_the_batch_teaches_as_that_part_alone_would(zoo):
    images, _ = batch()
    student, teacher = networks()
    student.eval()  # without the statistics of the others
    whole, part = (Distillation(student, teacher, share=share, input_size=SIZE) for share in (1.0, 0.4))
    part.load_state_dict(whole.state_dict())
    seen = []
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    count = math.ceil(0.4 * len(images))
    assert 1 < count < len(images)
    with part(images) as taught:
        student(images)
    with whole(images[:count]) as expected:
        student(images[:count])
    assert seen == [count, count] and taught.losses.keys() == expected.losses.keys()
    for key, value in taught.losses.items():
        torch.testing.assert_close(value, expected.losses[key], rtol=1e-5, atol=1e-7)


def test_every_until_and_share_that_cannot_be():
    for options, message in ((dict(every=0), 'every: 0 is no whole number from 1'),
                             (dict(every=2.5), 'every: 2.5 is no whole'),
                             (dict(until=0.5), 'until: 0.5 is no whole number of steps'), (dict(until=0), 'until: 0'),
                             (dict(share=0), 'share: 0 is no number'),
                             (dict(share=1.5, every=-1), 'every: -1 .*\n.*share: 1.5 is no number above 0')):
        with pytest.raises(ConfigError, match=message):
            Distillation(*networks(), input_size=SIZE, **options)


# ---- normalisation ----

IMAGENET = dict(student_mean=(0.485, 0.456, 0.406), student_std=(0.229, 0.224, 0.225))


def test_a_teacher_of_another_normalisation_sees_its_own_pictures():
    student, teacher = networks()
    distillation = Distillation(student, teacher, input_size=SIZE, **IMAGENET, teacher_mean=[0.5] * 3,
                                teacher_std=[0.25] * 3)
    pictures = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in IMAGENET.values())
    seen = []
    teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with distillation((pictures - mean) / std) as taught:
        student((pictures - mean) / std)
    torch.testing.assert_close(seen[0], (pictures - 0.5) / 0.25, rtol=1e-5, atol=1e-5)
    assert taught.loss > 0


@pytest.mark.parametrize('options, message', [
    (IMAGENET, 'teacher_mean: None beside other means and stds; give all four'),
    (dict(IMAGENET, teacher_mean=[0.5] * 3, teacher_std=[0.5, 0.5, 0]), 'teacher_std: .* no list of numbers above 0'),
    (dict(IMAGENET, teacher_mean=[0.5], teacher_std=[0.5] * 3), r'teacher_mean: \[0.5\] is no list of numbers, one a'),
    (dict(IMAGENET, teacher_mean='half', teacher_std=[0.5] * 3), "teacher_mean: 'half' is no list of numbers, one"),
], ids=str)
def test_normalisations_that_cannot_be(options, message):
    with pytest.raises(ConfigError, match=message):
        Distillation(*networks(), input_size=SIZE, **options)


def test_a_teacher_object_has_its_own_normalisation():
    student, teacher = networks()
    with pytest.raises(ConfigError, match='teacher_mean: a Teacher knows how its pictures are normalised'):
        Distillation(student, Teacher(teacher), input_size=SIZE, **IMAGENET, teacher_mean=[0.5] * 3,
                     teacher_std=[0.5] * 3)


def test_its_losses_are_curves_of_tensorboard_by_the_line_in_the_docs(tmp_path):
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    from torch.utils.tensorboard import SummaryWriter
    line, = (line for line in Path('docs/logging.md').read_text().splitlines() if 'writer.add_scalar' in line)
    student, teacher = networks()
    distillation = Distillation(student, teacher, input_size=SIZE, stages=[-1])
    with distillation(batch()[0]) as taught:
        student(batch()[0])
    with SummaryWriter(str(tmp_path)) as writer:
        exec(line, dict(taught=taught, writer=writer, step=7))
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()['scalars'] == ['distill/layer4.loss_spatial', 'distill/layer4.loss_frequency']
    for name, value in taught.losses.items():
        event, = events.Scalars(name.replace('distill.', 'distill/'))
        assert event.step == 7 and event.value == pytest.approx(float(value.detach()), rel=1e-6)


# ---- what cannot be, and what looks as if ----

def test_the_student_itself_is_no_teacher():
    student, _ = networks()
    with pytest.raises(ConfigError, match=r'teacher: it is the student itself.*copy.deepcopy\(student\)'):
        Distillation(student, student, input_size=SIZE)
    assert student.training and all(p.requires_grad for p in student.parameters())


@pytest.mark.parametrize('connector, loss, message', [
    ('WaveletConnector', 'FeatureMSE', 'FeatureMSE cannot compare what WaveletConnector gives'),
    ('Align', 'BandMSE', 'BandMSE cannot compare what Align gives'),
    ('Align', 'DetailL1', 'DetailL1 cannot compare what Align gives'),
    ('LogitProjector', 'FeatureMSE', 'FeatureMSE cannot compare what LogitProjector gives'),
    ('Align', 'RedundancySuppression', 'EmbeddingProjector')])
def test_a_loss_that_does_not_fit_its_connector_is_refused_at_once(connector, loss, message):
    with pytest.raises(ConfigError, match=r'pairs\[0\]: (.|\n)*' + message) as error:
        Distillation(*networks(), input_size=SIZE, connector=dict(type=connector), losses=[dict(type=loss)])
    assert 'pairs[3]' in str(error.value)  # all of them together


def test_a_student_of_half_precision_beside_a_companion_of_float32():
    student, teacher = networks()
    distillation = Distillation(student.bfloat16(), teacher, input_size=SIZE)
    images, labels = batch()
    with distillation(images.bfloat16()) as taught:
        loss = F.cross_entropy(student(images.bfloat16()).float(), labels)
    (loss + taught.loss).backward()
    assert taught.loss.isfinite() and student.conv1.weight.grad.any()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in distillation.parameters())


def test_a_teachers_size_may_be_one_number():
    student, teacher = networks()
    assert Teacher(teacher, input_size=96).input_size == (96, 96)
    distillation = Distillation(student, Teacher(teacher, input_size=96), input_size=SIZE)
    assert distillation.pairs[0].teacher_stage.grid == (24, 24)
