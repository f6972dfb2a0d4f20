"""The companion by itself: torchvision's networks, a plain training loop, no model of mmengine's."""
import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision

from sfkd import Distillation
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


def test_a_weight_of_zero_watches_nothing(zoo):
    student, teacher = networks()
    distillation = Distillation(student, teacher, losses=[dict(type='FeatureMSE', weight=0)], input_size=SIZE)
    with distillation(batch()[0]) as taught:
        assert zoo.hook_count(student) == 0
    assert taught.losses == {} and taught.loss == 0.0
