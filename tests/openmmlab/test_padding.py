"""What fills a batch of detectors up to one size does not teach."""
import copy

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmdet')

from small_detectors import CWD, MSE, OTHER, SHAPES, batch, cells, class_maps, distil, distilled, faster_rcnn, retinanet

from sfkd import Distiller  # noqa: E402
from sfkd.errors import ConfigError  # noqa: E402
from sfkd.features.padding import on_grid  # noqa: E402
from sfkd.openmmlab.masks import picture_mask  # noqa: E402


class Noise:
    """Adds noise to what a module gives outside of the pictures: ``noise`` collects what was added, with its
    gradient.
    """

    def __init__(self, module, mask, seed):
        self.mask, self.noise, self.generator = mask, [], torch.Generator().manual_seed(seed)
        self.hook = module.register_forward_hook(lambda module, inputs, output: self.add(output))

    def add(self, output):
        if isinstance(output, tuple):
            return tuple(map(self.add, output))
        noise = (100 * torch.randn(output.shape, generator=self.generator)).requires_grad_()
        self.noise.append(noise)
        return output + noise * (1 - on_grid(self.mask, output.shape[2:]))


@pytest.mark.parametrize('module, options', [
    ('neck', dict(refine=True)),
    ('backbone.layer2', dict(pairs=[dict(student='backbone.layer2', teacher='backbone.layer2')])),
    ('bbox_head.retina_cls', class_maps([CWD, MSE])),
], ids=['levels', 'stage', 'class maps'])
def test_what_lies_outside_of_the_pictures_does_not_teach(module, options):
    distiller = distil(retinanet(**OTHER), retinanet(), **options)
    data = distiller.data_preprocessor(batch(), True)
    mask = picture_mask(**data)
    assert mask.sum() == sum(h * w for h, w in SHAPES)

    def losses(noisy):
        networks = [distiller.student, distiller.distillation.teacher.network]
        hooks = [Noise(network.get_submodule(module), mask, seed)
                 for seed, network in enumerate(networks)] if noisy else []
        found = distilled(distiller.loss(**copy.deepcopy(data)))
        for noise in hooks:
            noise.hook.remove()
        return found, hooks
    (quiet, _), (loud, (student, teacher)) = losses(False), losses(True)
    assert quiet.keys() == loud.keys() and len(teacher.noise) >= 1
    for key in quiet:
        torch.testing.assert_close(loud[key], quiet[key], msg=lambda text: f'{key}: {text}')
    sum(loud.values()).backward()
    assert all(noise.grad is None or not noise.grad.any() for noise in student.noise)
    assert any(noise.grad is not None for noise in student.noise)  # it was part of what was compared
    weights = [p for name, p in distiller.student.named_parameters() if name.startswith('backbone.layer1')]
    assert any(p.grad.any() for p in weights)


def test_an_anchor_is_judged_by_the_proposals_of_a_teacher_in_two_stages():
    """All levels together, with the teacher's own map where a picture has ended."""
    distiller = distil(retinanet(), faster_rcnn(), anchor=dict(weight=2.0))
    distillation, data = distiller.distillation, distiller.data_preprocessor(batch(), True)
    rest, network = distillation.teacher.rest, distillation.teacher.network
    assert rest.module == 'neck' and len(distillation.anchor.where) == len(distillation.pairs) > 2
    asked = []
    judged = rest.run
    rest.run = lambda pictures: asked.append(judged(pictures)) or asked[-1]
    loss = distiller.loss(**copy.deepcopy(data))['distill.anchor.loss']
    own, given = (torch.cat([level.flatten() for level in output[0]]).sigmoid().double() for output in asked)
    expected = sum(p * (p / q).log() for p, q in ((own, given), (1 - own, 1 - given))).mean()
    assert loss.item() == pytest.approx(2 * expected.item(), rel=1e-3) and expected > 0
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in distiller.student.backbone.parameters())
    mask = picture_mask(**data)
    with torch.no_grad():
        levels = network.neck(network.backbone(rest._inputs))
    seen = []
    hook = network.neck.register_forward_hook(lambda _, __, output: seen.append(output))
    distiller.loss(**copy.deepcopy(data))
    hook.remove()
    padded = 0
    for pair, indices in zip(distillation.pairs, rest.indices):
        ours, theirs = (output[indices[0]] for output in (seen[-1], levels))
        grid = tuple(map(min, pair.student_stage.grid, pair.teacher_stage.grid))
        outside = F.interpolate(1 - on_grid(mask, grid), theirs.shape[2:]) if theirs.shape[2:] == grid else None
        if outside is not None and outside.any():
            torch.testing.assert_close(ours * outside, theirs * outside)
            assert not torch.allclose(ours * (1 - outside), theirs * (1 - outside))
            padded += 1
    assert padded


@pytest.mark.parametrize('grids', [((32, 32), (16, 16)), ((16, 16), (32, 32))])
def test_grids_that_differ_are_compared_inside_the_pictures(grids):
    distiller = distil(retinanet(), faster_rcnn(), stages=[0], refine=True)
    mask = picture_mask(**distiller.data_preprocessor(batch(), True))
    outside = 1 - on_grid(mask, (16, 16))
    maps = [torch.randn(2, 16, *grid).requires_grad_() for grid in grids]
    losses = distiller.distillation.pairs[0](*maps, cells(mask, maps))
    covered = [F.interpolate(outside, x.shape[2:]) for x in maps]
    for gradient, cover in zip(torch.autograd.grad(sum(losses.values()), maps), covered):
        assert cover.any() and gradient.any() and not (gradient * cover).any()
    louder = [x + 100 * torch.randn_like(x) * cover for x, cover in zip(maps, covered)]
    for key, value in distiller.distillation.pairs[0](*louder, cells(mask, maps)).items():
        torch.testing.assert_close(value, losses[key])


def test_losses_that_pool_maps_of_different_networks_leave_the_padding_out():
    pairs = [dict(student='neck[0]', teacher='backbone.layer3', connector=None,
                  losses=[dict(type='CorrelationCongruence')])]
    distiller = distil(retinanet(), retinanet(), kind=Distiller, pairs=pairs)
    mask = picture_mask(**distiller.data_preprocessor(batch(), True))
    maps = [torch.randn(2, 16, 16, 16), torch.randn(2, 32, 8, 8)]
    quiet, = distiller.distillation.pairs[0](*maps, cells(mask, maps)).values()
    loud, = distiller.distillation.pairs[0](*(x + 100 * (1 - on_grid(mask, x.shape[2:])) for x in maps),
                                            cells(mask, maps)).values()
    assert torch.equal(quiet, loud)
    assert not torch.equal(quiet, *distiller.distillation.pairs[0](*(x + 1 for x in maps), cells(mask, maps)).values())


@pytest.mark.parametrize('student, teacher', [(OTHER, {}), ({}, OTHER), (dict(bgr_to_rgb=False), {})])
def test_the_teacher_sees_what_its_own_preprocessing_would_show_it(zoo, student, teacher):
    distiller = distil(retinanet(**student), faster_rcnn(**teacher))
    network, data = distiller.distillation.teacher.network, distiller.data_preprocessor(batch(), True)
    with zoo.recorded(network, ['backbone.conv1']) as seen:
        inputs = []
        hook = network.backbone.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        found = distiller.distillation.teacher(data['inputs'], picture_mask(**data))
        hook.remove()
    assert len(seen['backbone.conv1']) == 1
    own = network.data_preprocessor(batch(), False)['inputs']
    torch.testing.assert_close(inputs[0], own, rtol=1e-4, atol=1e-4)
    assert not inputs[0][0, :, 96:].any() and not inputs[0][1, :, :, 90:].any()
    with torch.no_grad():
        levels = network.extract_feat(own)
    assert len(found) == 4
    for i in range(4):
        torch.testing.assert_close(found[f'neck[{i + 1}]'], levels[i + 1], rtol=1e-4,
                                   atol=1e-4 * levels[i + 1].abs().max().item())


def test_a_batch_of_one_picture():
    distiller = distil(retinanet(), faster_rcnn())
    for shape, padded in (((96, 128), False), ((100, 90), True)):
        data = distiller.data_preprocessor(batch([shape]), True)
        assert (picture_mask(**data) is not None) == padded
        losses = distiller.loss(**data)
        assert len(distilled(losses)) == 8 and all(value.isfinite() for value in distilled(losses).values())


def test_a_batch_too_small_for_a_level_says_so():
    distiller = distil(retinanet(), retinanet(), input_size=256)  # its deepest level is 1x1 at 128 px
    with pytest.raises(ConfigError, match=r"'neck\[4\]' gives \(.*, 1, 1\) and the teacher's 'neck\[4\]' .*grid of 1x1 "
                       r'.* input_size'):
        distiller.loss(**distiller.data_preprocessor(batch(), True))


def test_nothing_is_masked_where_nothing_is_padded(zoo):
    network = zoo.build(retinanet())
    assert picture_mask(**network.data_preprocessor(batch([(128, 96)] * 2), True)) is None
    assert picture_mask(**network.data_preprocessor(batch([(128, 95)] * 2), True)).sum() == 2 * 128 * 95
    pictures = zoo.build(zoo.resnet()).data_preprocessor(zoo.batch(), True)
    assert picture_mask(**pictures) is None
    for sample in pictures['data_samples']:
        sample.set_metainfo(dict(img_shape=(64, 64)))  # as mmpretrain's PackInputs does
    assert picture_mask(**pictures) is None and picture_mask(pictures['inputs'], None) is None
