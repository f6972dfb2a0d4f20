"""A student whose convolutions lie channels last: the same training up to rounding, and a stock checkpoint."""
import copy

import pytest
import torch
from mmengine.registry import MODELS

from sfkd.checkpoint import stock_checkpoint
from sfkd.errors import ConfigError


def lies_channels_last(x):
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def convolutions(network):
    """Those of which both layouts differ."""
    weights = {name: weight for name, weight in network.named_parameters() if weight.dim() == 4}
    return {name: weight for name, weight in weights.items() if weight[0, 0].numel() > 1}


def trained(distiller, zoo):
    """Losses and gradients of a step in float64."""
    data = distiller.data_preprocessor(zoo.batch(), training=True)
    distiller.double().train()
    losses = distiller(data['inputs'].double(), data['data_samples'], mode='loss')
    sum(losses.values()).backward()
    return losses, {name: p.grad for name, p in distiller.named_parameters() if p.grad is not None}


@pytest.mark.parametrize('student, teacher', [('resnet', 'mixer'), ('convnext', 'resnet'), ('mixer', 'resnet')])
def test_the_training_is_the_same(zoo, student, teacher):
    student, teacher = getattr(zoo, student)(), getattr(zoo, teacher)()
    plain, ours = (zoo.distil(student, teacher, logit_weight=1.0, channels_last=layout) for layout in (False, True))
    ours.load_state_dict(plain.state_dict())
    ours.distillation.teacher.network.load_state_dict(plain.distillation.teacher.network.state_dict())
    losses, gradients = trained(plain, zoo)
    others, others_gradients = trained(ours, zoo)
    assert losses.keys() == others.keys() and gradients.keys() == others_gradients.keys()
    for expected, found in ((losses, others), (gradients, others_gradients)):
        for name, value in expected.items():
            assert torch.allclose(value, found[name], rtol=1e-9, atol=1e-12), name


def test_gradients_lie_as_their_weights(zoo):
    """DDP warns where they do not, and copies; of 1x1 kernels both layouts are contiguous."""
    distiller = zoo.distil(zoo.resnet(), zoo.mixer(), channels_last=True).train()
    data = distiller.data_preprocessor(zoo.batch(), training=True)
    sum(distiller(**data, mode='loss').values()).backward()
    weights = {name: p for name, p in distiller.named_parameters() if p.dim() == 4}
    assert {name: p.stride() for name, p in weights.items()} == {name: p.grad.stride() for name, p in weights.items()}


def test_maps_lie_so_in_the_student_and_as_ever_in_the_losses(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.mixer(), channels_last=True).train()
    assert all(map(lies_channels_last, convolutions(distiller.student).values()))
    assert not any(map(lies_channels_last, distiller.distillation.parameters()))
    data = distiller.data_preprocessor(zoo.batch(), training=True)
    taps = distiller.distillation.taps
    with zoo.recorded(distiller, taps.modules) as outputs, taps.capture((64, 64)) as features:
        distiller.student.extract_feat(data['inputs'])
    assert len(features) == 4
    for path, feature in features.items():
        output, = outputs[path]
        assert lies_channels_last(output) and feature.is_contiguous() and torch.equal(output, feature)


def test_the_exported_student_lies_as_ever(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.mixer(), channels_last=True)
    exported = stock_checkpoint(dict(state_dict=distiller.state_dict()))['state_dict']
    assert exported.keys() == distiller.student.state_dict().keys()
    assert all(weight.is_contiguous() for weight in exported.values())
    assert all(map(torch.equal, exported.values(), distiller.student.state_dict().values()))


def test_the_same_seed_gives_the_same_weights(zoo):
    """In memory the numbers of a convolution lie in another order, and random ones come in that."""
    plain, ours = (zoo.distil(zoo.resnet(), zoo.mixer(), channels_last=layout) for layout in (False, True))
    for distiller in (plain, ours):
        torch.manual_seed(1)
        distiller.init_weights()
    assert all(map(torch.equal, plain.state_dict().values(), ours.state_dict().values()))
    assert all(map(lies_channels_last, convolutions(ours.student).values()))


def test_a_copy_and_loaded_weights_stay_so(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.mixer(), channels_last=True)
    copied = copy.deepcopy(distiller)
    distiller.load_state_dict({key: value.contiguous() for key, value in distiller.state_dict().items()})
    for network in (copied, distiller):
        assert all(map(lies_channels_last, convolutions(network.student).values()))


def test_a_student_that_does_not_run_so_is_named_and_left_as_it_was(zoo):
    """mmcv's ConvWS takes a view of its weights that needs the usual layout."""
    student = zoo.resnet()
    student['backbone']['conv_cfg'] = dict(type='ConvWS')
    built = MODELS.build(dict(student, _scope_='mmpretrain'))
    with pytest.raises(ConfigError, match=r"model.channels_last: 'ImageClassifier' does not run so \(view size is not "
                                          r'compatible .*\); leave it out'):
        zoo.distil(built, zoo.mixer(), channels_last=True)
    assert not any(map(lies_channels_last, convolutions(built).values()))
    zoo.distil(built, zoo.mixer())
