"""Detectors of mmdet teach each other: levels by stride, padding that does not teach, heads that rest."""
import copy
from collections import Counter

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmdet')
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from sfkd import SFKD, Distiller  # noqa: E402
from sfkd.distillation.pair import common_grid  # noqa: E402
from sfkd.errors import ConfigError  # noqa: E402
from sfkd.features.matching import match, match_class_maps  # noqa: E402
from sfkd.features.padding import TaughtCells, on_grid  # noqa: E402
from sfkd.features.probe import probe, random_pictures  # noqa: E402
from sfkd.features.taps import Taps  # noqa: E402
from sfkd.openmmlab import Cohort  # noqa: E402
from sfkd.openmmlab.building import build_model, read_config  # noqa: E402
from sfkd.openmmlab.masks import picture_mask  # noqa: E402

SHAPES = [(96, 128), (128, 90)]  # padded to 128x128
OTHER = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)  # as the 'caffe' weights want it
CWD, MSE = dict(type='ChannelWiseDivergence', name='cwd'), dict(type='FeatureMSE', name='mse')
CLASS_MAPS = [f'bbox_head.retina_cls[{i}]' for i in range(3)]


def detector(path, classes, preprocessor):
    """A stock config with a ResNet-18 of 8 base channels and necks and heads of 16."""
    model = read_config(f'mmdet::{path}', 'test').model
    model.type = f'mmdet.{model.type}'
    model.data_preprocessor.update(preprocessor)
    model.backbone.update(depth=18, stem_channels=8, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    head = model.get('bbox_head') or model.roi_head.bbox_head
    head.update(num_classes=classes, in_channels=16)
    model.test_cfg.get('rcnn', model.test_cfg).score_thr = 0.0  # boxes of an untrained network are boxes too
    return model


def retinanet(classes=3, **preprocessor):
    """Its pyramid has strides 8 to 128."""
    model = detector('retinanet/retinanet_r50_fpn_1x_coco.py', classes, preprocessor)
    model.bbox_head.update(feat_channels=16, stacked_convs=1)
    return model


def faster_rcnn(classes=3, **preprocessor):
    """Its pyramid has strides 4 to 64."""
    model = detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', classes, preprocessor)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.fc_out_channels = 16
    return model


def one_level(**kwargs):
    """A RetinaNet whose neck gives the deepest stage only, as YOLOF's does."""
    model = retinanet(**kwargs)
    model.backbone.out_indices = (3, )
    model.neck = dict(type='ChannelMapper', in_channels=[64], out_channels=16, num_outs=1)
    model.bbox_head.anchor_generator.strides = [32]
    return model


def batch(shapes=SHAPES, boxes=([[4, 5, 60, 70], [30, 10, 80, 90]], [[10, 20, 70, 80]]), seed=0):
    """What a data loader gives: raw pictures of different shapes, and their boxes."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for shape, found in zip(shapes, boxes):
        truth = InstanceData(bboxes=torch.tensor(found, dtype=torch.float32).view(-1, 4),
                             labels=torch.arange(len(found)) % 3)
        samples.append(DetDataSample(gt_instances=truth,
                                     metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))))
    pictures = [torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    return dict(inputs=pictures, data_samples=samples)


def cells(mask, maps):
    return TaughtCells(mask, [common_grid(*maps)])


def distil(student, teacher, teacher_ckpt='init', kind=SFKD, **kwargs):
    """A distiller in train mode whose networks and connectors have generic weights, biases and batch statistics."""
    torch.manual_seed(0)
    distiller = kind(student, teacher, teacher_ckpt, **dict(dict(input_size=128, teacher_precision='fp32'), **kwargs))
    with torch.no_grad():
        for tensor in (*distiller.distillation.teacher.network.state_dict().values(), *distiller.parameters()):
            if tensor.is_floating_point():
                tensor += 0.02 * torch.randn_like(tensor)
    return distiller.train()


def class_maps(losses, levels=CLASS_MAPS[:2]):
    return dict(kind=Distiller,
                pairs=[dict(student=level, teacher=level, connector=None, losses=losses) for level in levels])


def distilled(losses):
    return {key: value for key, value in losses.items() if key.startswith('distill.')}


# ---- pairing ----

def paths(zoo, student, teacher):
    networks = [zoo.build(config) for config in (student, teacher)]
    return [(s.path, t.path) for s, t in match(*networks, *(probe(network, (256, 320)) for network in networks))]


def test_levels_of_two_pyramids_pair_by_stride(zoo):
    shifted = [(f'neck[{i}]', f'neck[{i + 1}]') for i in range(4)]
    assert paths(zoo, retinanet(), faster_rcnn()) == shifted  # 8 to 128 and 4 to 64
    assert paths(zoo, faster_rcnn(), retinanet()) == [(s, t) for t, s in shifted]


def test_the_order_of_a_necks_outputs_does_not_matter(zoo):
    student, teacher = zoo.build(retinanet()), zoo.build(faster_rcnn())
    teacher.neck.register_forward_hook(lambda module, inputs, output: output[::-1])
    pairs = match(student, teacher, probe(student, (256, 256)), probe(teacher, (256, 256)))
    assert [(s.path, t.path) for s, t in pairs] == [(f'neck[{i}]', f'neck[{3 - i}]') for i in range(4)]
    assert all(s.stride == t.stride for s, t in pairs)


def test_class_maps_are_found_by_stride(zoo):
    """The first of what a one-stage detector's head returns, level by level."""
    student, teacher = (zoo.build(config) for config in (retinanet(), one_level()))
    probes = [probe(network, (256, 320), head=True) for network in (student, teacher)]
    (ours, theirs), = match_class_maps(*probes)
    assert (ours.path, theirs.path) == ('bbox_head.retina_cls[2]', 'bbox_head.retina_cls')
    assert ours.stride == theirs.stride == 32
    with Taps(student, [ours.path]).capture((256, 320)) as found:
        scores = student.eval()(random_pictures(student, (256, 320)))[0]
    assert torch.equal(found[ours.path], scores[2]) and scores[2].shape[1] == 27  # 9 anchors of 3 classes
    assert len(match_class_maps(probes[0], probes[0])) == 5


def test_necks_that_share_one_level_or_none_fall_back_to_backbone_stages(zoo):
    stages = [(f'backbone.layer{i}', f'backbone.layer{i}') for i in range(1, 5)]
    assert paths(zoo, one_level(), faster_rcnn()) == stages
    assert paths(zoo, faster_rcnn(), one_level()) == stages
    shallow = faster_rcnn()
    shallow.neck.update(end_level=1, num_outs=2)  # strides 4 and 8
    assert paths(zoo, retinanet(), shallow) == stages


# ---- indices in taps ----

def test_indices_give_what_an_independent_hook_records(zoo):
    pairs = [dict(student='neck[1]', teacher='neck[2]'),
             dict(student='bbox_head.retina_cls[2]', teacher='bbox_head.retina_reg[0]')]
    distiller = distil(retinanet(), retinanet(), pairs=pairs)
    data = distiller.data_preprocessor(batch(), True)
    taps = distiller.distillation.taps
    with zoo.recorded(distiller.student, ['neck', 'bbox_head.retina_cls']) as seen, taps.capture((128, 128)) as found:
        distiller.student(**data, mode='loss')
    assert len(seen['bbox_head.retina_cls']) == 5 and found.keys() == {'neck[1]', 'bbox_head.retina_cls[2]'}
    assert found['neck[1]'] is seen['neck'][0][1] and found['neck[1]'].shape == (2, 16, 8, 8)
    assert found['bbox_head.retina_cls[2]'] is seen['bbox_head.retina_cls'][2]
    with zoo.recorded(distiller.distillation.teacher.network,
                      ['neck', 'bbox_head.retina_reg', 'bbox_head.retina_cls']) as seen:
        found = distiller.distillation.teacher(data['inputs'])
    assert len(seen['bbox_head.retina_cls']) == 1  # it stopped inside the head
    assert torch.equal(found['neck[2]'], seen['neck'][0][2]) and found['neck[2]'].shape == (2, 16, 4, 4)
    assert torch.equal(found['bbox_head.retina_reg[0]'], seen['bbox_head.retina_reg'][0])


def test_a_module_that_runs_once_a_level_needs_an_index(zoo):
    network = zoo.build(retinanet())
    with pytest.raises(RuntimeError, match=r"ran more than once .* 'bbox_head.retina_cls\[0\]'"), torch.no_grad():
        with Taps(network, ['bbox_head.retina_cls']).capture((128, 128)):
            network(torch.randn(1, 3, 128, 128), mode='tensor')
    with pytest.raises(ConfigError, match=r"no module 'bbox_head.retina_cls' gives an output; nearest: "
                       r"'bbox_head.retina_cls\[\d\]'"):
        distil(retinanet(), retinanet(), **class_maps([MSE], ['bbox_head.retina_cls']))


# ---- padding ----

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


# ---- the teacher's head rests ----

PARTS = ('bbox_head', 'bbox_head.loss_cls', 'bbox_head.assigner', 'rpn_head', 'rpn_head.assigner', 'roi_head',
         'roi_head.bbox_head', 'roi_head.bbox_assigner')


def counted(network):
    """Counts the calls of a detector's heads, losses and assigners."""
    calls = Counter()
    for path in PARTS:
        part = network
        for name in path.split('.'):
            part = getattr(part, name, None)
        for method in ('forward', 'loss', 'loss_by_feat', 'predict', 'loss_and_predict', 'assign'):
            original = getattr(part, method, None)
            if original is not None:
                def count(*args, key=f'{path}.{method}', original=original, **kwargs):
                    calls[key] += 1
                    return original(*args, **kwargs)
                setattr(part, method, count)
    return calls


@pytest.mark.parametrize('config', [retinanet, faster_rcnn])
def test_no_step_of_the_teachers_head_runs(zoo, config):
    student, teacher = zoo.build(config()), zoo.build(config())
    calls = counted(teacher)
    distiller = distil(student, teacher, teacher_ckpt=None)  # the dry run counts too
    own = counted(student)
    losses = distiller.loss(**distiller.data_preprocessor(batch(), True))
    assert distilled(losses) and not calls
    wanted = {'bbox_head.loss': 1, 'bbox_head.forward': 1, 'bbox_head.assigner.assign': 2} if config is retinanet else {
        'rpn_head.loss_and_predict': 1, 'roi_head.loss': 1, 'rpn_head.assigner.assign': 2,
        'roi_head.bbox_assigner.assign': 2}
    assert wanted.items() <= own.items()  # the counter sees what runs


def test_a_distilled_class_map_runs_the_heads_forward_alone(zoo):
    teacher = zoo.build(retinanet())
    calls = counted(teacher)
    distiller = distil(retinanet(), teacher, teacher_ckpt=None, **class_maps([CWD]))
    calls.clear()
    distiller.loss(**distiller.data_preprocessor(batch(), True))
    assert calls == {'bbox_head.forward': 1}


# ---- annotations and classes ----

@pytest.mark.parametrize('boxes', [([[4, 5, 60, 70]], []), ([], [])], ids=['one picture', 'whole batch'])
@pytest.mark.parametrize('student', [retinanet, faster_rcnn])
def test_pictures_without_annotations_train(student, boxes):
    distiller = distil(student(), faster_rcnn())
    total, terms = distiller.parse_losses(distiller.loss(**distiller.data_preprocessor(batch(boxes=boxes), True)))
    total.backward()
    assert len(distilled(terms)) >= 8 and all(value.isfinite() for value in terms.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.parameters())


def test_a_teacher_of_other_classes_teaches_its_features():
    distiller = distil(retinanet(classes=3), retinanet(classes=7))
    assert len(distilled(distiller.loss(**distiller.data_preprocessor(batch(), True)))) == 2 * 4


@pytest.mark.parametrize('loss', [CWD, MSE], ids=['cwd', 'mse'])
def test_class_maps_of_other_classes_are_refused(loss):
    level = CLASS_MAPS[1]
    with pytest.raises(ConfigError) as error:
        distil(retinanet(classes=3), retinanet(classes=7), **class_maps([loss], [level]))
    assert f"'{level}' 27x8x8 and '{level}' 63x8x8 cannot be compared" in str(error.value)


def test_one_class_is_not_broadcast_over_all():
    level, single = CLASS_MAPS[1], retinanet(classes=1)
    single.bbox_head.anchor_generator.update(scales_per_octave=1, ratios=[1.0])
    with pytest.raises(ConfigError, match='27x8x8 and .* 1x8x8 cannot be compared'):
        distil(retinanet(classes=3), single, **class_maps([MSE], [level]))


# ---- the student is the stock detector ----

@pytest.mark.parametrize('config', [retinanet, faster_rcnn])
def test_losses_and_predictions_are_the_stock_detectors(zoo, config):
    distiller = distil(config(), faster_rcnn(**OTHER))
    stock = zoo.build(config(), seed=1)
    stock.load_state_dict(distiller.student.state_dict())
    found = []
    for network in (distiller, stock.train()):
        torch.manual_seed(0)  # Faster R-CNN draws its samples
        found.append(network(**network.data_preprocessor(batch(), True), mode='loss'))
    ours, theirs = found
    assert set(ours) - set(distilled(ours)) == set(theirs) and distilled(ours)
    for key, value in theirs.items():
        ours[key], value = (torch.stack(x) if isinstance(x, list) else x for x in (ours[key], value))
        assert torch.equal(ours[key], value), key
    # statistics too
    assert all(torch.equal(value, distiller.student.state_dict()[key]) for key, value in stock.state_dict().items())
    for a, b in zip(distiller.eval().test_step(batch()), stock.eval().test_step(batch())):
        assert len(a.pred_instances) > 10
        assert all(torch.equal(a.pred_instances[key], b.pred_instances[key]) for key in ('bboxes', 'scores', 'labels'))


# ---- cohort ----

def test_detectors_of_a_cohort_are_those_of_runs_alone():
    """Two steps on padded pictures: who comes second meets the same boxes and masks as in a run of its own."""
    pair = dict(student=retinanet(), teacher=faster_rcnn(), teacher_ckpt='init', input_size=128)
    members = dict(alone=retinanet(), sfkd=dict(type='SFKD', **pair), deepest=dict(type='SFKD', stages=[-1], **pair))
    each = dict(optimizer=dict(type='SGD', lr=1e-3))

    def seeded(build):
        torch.manual_seed(0)
        model = build()
        model.init_weights()
        return model.train()
    cohort = seeded(lambda: Cohort(members))
    optimizers = build_optim_wrapper(cohort, dict(constructor='CohortOptimizers', each=each))
    for seed in range(2):
        cohort.train_step(batch(seed=seed), optimizers)
    assert not cohort.dropped
    for (name, config), member in zip(members.items(), cohort.members):
        single = seeded(lambda: build_model(copy.deepcopy(config), 'test'))
        optimizer = build_optim_wrapper(single, copy.deepcopy(each))
        for seed in range(2):
            single.train_step(batch(seed=seed), optimizer)
        for key, value in single.state_dict().items():
            assert torch.equal(member.state_dict()[key], value), (name, key)
