"""Detectors of mmdet teach each other: levels by stride, heads that rest."""
import copy
from collections import Counter

import pytest
import torch

pytest.importorskip('mmdet')
from mmengine.optim import build_optim_wrapper  # noqa: E402
from small_detectors import (
    CLASS_MAPS,
    CWD,
    MSE,
    OTHER,
    batch,
    class_maps,
    distil,
    distilled,
    faster_rcnn,
    one_level,
    retinanet,
)

from sfkd.errors import ConfigError  # noqa: E402
from sfkd.features.matching import match, match_class_maps  # noqa: E402
from sfkd.features.probe import probe, random_pictures  # noqa: E402
from sfkd.features.taps import Taps  # noqa: E402
from sfkd.openmmlab import Cohort  # noqa: E402
from sfkd.openmmlab.building import build_model  # noqa: E402

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


def test_logits_of_one_stage_detectors_are_class_maps():
    """A term for each level that both have; levels too small to compare are none."""
    distiller = distil(retinanet(), retinanet(), logit_weight=2.0, logit_loss='ChannelWiseDivergence')
    logits = [pair for pair in distiller.distillation.pairs if pair.name.startswith('logits')]
    assert [pair.student_path for pair in logits] == [f'bbox_head.retina_cls[{i}]' for i in range(4)]  # 16 to 2 cells
    losses = distilled(distiller.loss(**distiller.data_preprocessor(batch(), True)))
    assert sum(key.startswith('distill.logits') and value > 0 for key, value in losses.items()) == 4
    with pytest.raises(ConfigError, match="heads of 'FasterRCNN' do not run on pictures alone.* its backbone and neck"):
        distil(retinanet(), faster_rcnn(), logit_weight=1.0)


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
