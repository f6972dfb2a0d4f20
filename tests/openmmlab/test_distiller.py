"""The distiller: the student's own training plus weighted losses."""
import copy
import io
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS as ROOT_MODELS

from sfkd import SFKD, Distiller
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import load_config, student_config
from sfkd.ops import gaussian_frequency_loss_fft

FREQUENCY = dict(type='GaussianFrequencyLoss', name='frequency')
ALIGNED = dict(connector=dict(type='Align'), losses=[FREQUENCY], input_size=64)


def data_of(distiller, zoo, **kwargs):
    return distiller.data_preprocessor(zoo.batch(**kwargs), training=True)


def gradients(network):
    return {name: p.grad for name, p in network.named_parameters()}


# ---- modes ----

def test_outside_training_the_distiller_is_the_student(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet()).eval()
    data = data_of(distiller, zoo)
    assert torch.equal(distiller(data['inputs']), distiller.student(data['inputs']))
    ours, stock = (network(**data, mode='predict') for network in (distiller, distiller.student))
    stock = [sample.pred_score.clone() for sample in stock]
    assert all(torch.equal(sample.pred_score, score) for sample, score in zip(ours, stock, strict=True))
    tested, stock = (network.test_step(zoo.batch()) for network in (distiller, distiller.student))
    assert all(torch.equal(a.pred_score, b.pred_score) for a, b in zip(tested, stock, strict=True))
    assert zoo.hook_count(distiller) == zoo.hook_count(distiller.distillation.teacher.network) == 0


# ---- losses ----

def aligned(project, s, t):
    """Steps 2 and 3 of docs/method.md, in float64."""
    grid = [min(a, b) for a, b in zip(s.shape[2:], t.shape[2:])]
    s, t = (F.adaptive_avg_pool2d(x.double(), grid) for x in (s, t))
    s = torch.einsum('oc,nchw->nohw', project.weight.double()[:, :, 0, 0], s)
    return [(x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
            for x in (s, t)]


@pytest.mark.parametrize('options, moved', [
    (dict(refine=False), ''), ({}, 'frequency'), (dict(refine_spatial=True), 'frequency spatial'),
    (dict(frequency_weight=0), ''), (dict(frequency_weight=0, refine_spatial=True), 'spatial'),
    (dict(levels=0), 'frequency'), (dict(spatial_weight=0), 'frequency')], ids=str)
def test_ds2s_is_before_the_frequency_term_alone(zoo, options, moved):
    """It is part of the default, and there only where a term takes what it gives."""
    distiller = zoo.distil(zoo.resnet(), zoo.swin(), **options).train()
    data = data_of(distiller, zoo)
    before = distiller(**data, mode='loss')
    refinement = [weight for name, weight in distiller.distillation.named_parameters() if '.refine.' in name]
    assert bool(refinement) == bool(moved)
    with torch.no_grad():
        for weight in refinement:
            weight += 0.1
    after = distiller(**data, mode='loss')
    changed = {key.rpartition('loss_')[2] for key in before if not torch.equal(before[key], after[key])}
    assert changed == set(moved.split())


@torch.no_grad()
def test_the_preset_recomputed_by_hand(zoo):
    """At the start, where refinement is the identity: plain MSE and GFFL of aligned maps, and KL of the logits."""
    distiller = zoo.distil(zoo.resnet(), zoo.swin(to_rgb=False), spatial_weight=3.0, frequency_weight=0.7, sigma=0.4,
                           logit_weight=0.9, temperature=2.0).train()
    data = data_of(distiller, zoo)
    paths = [(f'backbone.layer{i}', f'backbone.stages.{i - 1}')
             for i in (1, 2, 3)] + [('backbone.layer4', 'backbone.norm3')]
    with zoo.recorded(distiller.student, ['head', *(s for s, _ in paths)]) as student, \
            zoo.recorded(distiller.distillation.teacher.network, ['head', *(t for _, t in paths)]) as teacher:
        losses = distiller(**data, mode='loss')
    expected = {'task.loss': distiller.student(**data, mode='loss')['loss']}
    for pair, (s, t) in zip(distiller.distillation.pairs, paths):
        tokens = teacher[t][0][0] if isinstance(teacher[t][0], tuple) else teacher[t][0]
        side = int(tokens.shape[1]**0.5)
        t = tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
        a, b = aligned(pair.connector.align.project, student[s][0], t)
        name = s.removeprefix('backbone.')
        expected[f'distill.{name}.loss_spatial'] = 3.0 * F.mse_loss(a, b)
        expected[f'distill.{name}.loss_frequency'] = 0.7 * gaussian_frequency_loss_fft(a, b, 0.4)
    p, q = ((x['head'][0].double() / 2).softmax(1) for x in (student, teacher))
    expected['distill.logits.loss_kd'] = 0.9 * 4 * (q * (q / p).log()).sum(1).mean()
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        assert losses[key].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-7), key
    total, log = distiller.parse_losses(losses)
    assert total.item() == pytest.approx(sum(value.item() for value in expected.values()), rel=1e-4)
    assert 'loss' in log and 'task.loss' in log


def test_the_distillation_gradient_adds_to_the_students_own(zoo):
    """With a weight of 1e-6 next to nothing is added; with two weights, in their proportion."""
    def grad(weight):
        distiller = zoo.distil(zoo.mixer(), zoo.resnet(), spatial_weight=weight, frequency_weight=weight).train()
        distiller.parse_losses(distiller(**data_of(distiller, zoo), mode='loss'))[0].backward()
        return distiller.student.backbone.patch_embed.projection.weight.grad
    none, one, two = grad(0), grad(1.0), grad(2.0)
    assert (one - none).norm() > 0.1 * none.norm()
    torch.testing.assert_close(two - none, 2 * (one - none), rtol=1e-3, atol=1e-6)


def test_weights_of_zero_build_nothing(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), frequency_weight=0.0)
    losses = distiller(**data_of(distiller, zoo), mode='loss')
    assert set(losses) == {'task.loss', *(f'distill.layers_{i}.loss_spatial' for i in range(4))}
    pairs = [dict(student='backbone.layers.1', teacher='backbone.layer2', losses=[dict(FREQUENCY, weight=0)]),
             dict(student='backbone.layers.2', teacher='backbone.layer3')]
    distiller = Distiller(zoo.mixer(), zoo.resnet(), 'init', pairs=pairs, **ALIGNED)
    assert [pair.name for pair in distiller.distillation.pairs] == ['layers_2']


def test_with_all_weights_zero_training_is_the_students_own(zoo):
    torch.manual_seed(0)
    distiller = SFKD(zoo.mixer(), zoo.resnet(classes=7), 'init', spatial_weight=0, frequency_weight=0, logit_weight=0)
    stock = zoo.build(zoo.mixer(), seed=0)
    assert len(distiller.distillation.pairs) == 0
    assert [name for name, _ in distiller.named_parameters()] == [name for name, _ in stock.named_parameters()]
    ours, alone = (network.train()(**data_of(distiller, zoo), mode='loss') for network in (distiller, stock))
    assert ours.keys() == alone.keys() == {'loss'}
    assert torch.equal(ours['loss'], alone['loss'])
    ours['loss'].backward(), alone['loss'].backward()
    for name, gradient in gradients(stock).items():
        assert torch.equal(gradients(distiller.student)[name], gradient), name


def test_pairs_with_their_own_connector_and_losses(zoo):
    pairs = [dict(student='backbone.layers.0', teacher='backbone.layer1'),
             dict(student='backbone.layers.3', teacher='backbone.layer4',
                  connector=dict(type='WaveletConnector', levels=1),
                  losses=[dict(type='BandMSE', weight=2), dict(type='sfkd.BandInfoNCE', name='contrast')])]
    distiller = Distiller(zoo.mixer(), zoo.resnet(), 'init', pairs, **ALIGNED)
    losses = distiller(**data_of(distiller, zoo), mode='loss')
    assert set(losses) == {'task.loss', 'distill.layers_0.loss_frequency', 'distill.layers_3.loss_BandMSE',
                           'distill.layers_3.loss_contrast'}
    assert all(value.isfinite() for value in losses.values())
    assert distiller.distillation.pairs[1].weights == {'BandMSE': 2.0, 'contrast': 1.0}


def loss_count(distiller, zoo):
    return sum('distill.' in key for key in distiller(**data_of(distiller, zoo), mode='loss'))


def test_one_student_stage_learns_from_two_teacher_stages(zoo):
    """Neither loss may replace the other under one name."""
    pairs = [dict(student='backbone.layers.1', teacher=f'backbone.layer{i}') for i in (2, 3)]
    assert loss_count(Distiller(zoo.mixer(), zoo.resnet(), 'init', pairs, **ALIGNED), zoo) == 2


def test_chosen_stages_of_the_automatic_pairs(zoo):
    every = [pair.name for pair in zoo.distil(zoo.mixer(), zoo.resnet()).distillation.pairs]
    assert len(every) > 2
    assert [pair.name for pair in zoo.distil(zoo.mixer(), zoo.resnet(),
                                             stages=[-1, 0]).distillation.pairs] == [every[-1], every[0]]
    with pytest.raises(ConfigError, match=r'model.stages: \[9\] of \d automatic pairs'):
        zoo.distil(zoo.mixer(), zoo.resnet(), stages=[0, 9])
    with pytest.raises(ConfigError, match="model.pairs: 'heads' is neither"):
        zoo.distil(zoo.mixer(), zoo.resnet(), pairs='heads')


def test_every_stage_against_the_teachers_class_scores(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), kind=Distiller, pairs='head',
                           connector=dict(type='LogitProjector'), losses=[dict(type='KLDivergence', name='kd')],
                           input_size=64).train()
    assert {pair.teacher_path for pair in distiller.distillation.pairs} == {'head'}
    assert len(distiller.distillation.pairs) == 4
    losses = distiller(**data_of(distiller, zoo), mode='loss')
    sum(losses.values()).backward()
    assert sum('loss_kd' in key for key in losses) == 4
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for pair in distiller.distillation.pairs
               for p in pair.parameters() if p.dim() > 1)


def test_two_losses_of_one_type_need_names(zoo):
    losses = [dict(type='GaussianFrequencyLoss', sigma=0.5), dict(type='GaussianFrequencyLoss', sigma=0.25)]
    pairs = [dict(student='backbone.layers.1', teacher='backbone.layer2')]
    with pytest.raises(ConfigError, match=r"pairs\[0\].losses: two are called 'GaussianFrequencyLoss'; .*name='...'"):
        Distiller(zoo.mixer(), zoo.resnet(), 'init', pairs, **dict(ALIGNED, losses=losses))
    losses[1]['name'] = 'narrow'
    distiller = Distiller(zoo.mixer(), zoo.resnet(), 'init', pairs, **dict(ALIGNED, losses=losses))
    assert set(distiller(**data_of(distiller, zoo), mode='loss')) == {
        'task.loss', 'distill.layers_1.loss_GaussianFrequencyLoss', 'distill.layers_1.loss_narrow'}


# ---- built beside the student ----

def random_draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), [random.random() for _ in range(3)]


def seed_all():
    torch.manual_seed(3), np.random.seed(3), random.seed(3)


@pytest.mark.parametrize('teacher', ('resnet', 'swin'))
def test_the_teacher_and_connectors_take_no_random_numbers(zoo, teacher):
    seed_all()
    with ROOT_MODELS.switch_scope_and_registry('mmpretrain') as registry:
        stock = registry.build(zoo.mixer())
    draws = random_draws()
    stock.init_weights()
    seed_all()
    distiller = SFKD(zoo.mixer(), getattr(zoo, teacher)(), 'init', logit_weight=1.0, input_size=64)
    assert random_draws() == draws
    distiller.init_weights()  # as mmengine's runner does
    assert random_draws() != draws
    for name, value in stock.state_dict().items():
        assert torch.equal(distiller.student.state_dict()[name], value), name


CONFIG = """
default_scope = '{scope}'
custom_imports = dict(imports=['sfkd'])
model = dict(
    type='SFKD',
    student='{folder}/student.py',
    teacher='{folder}/teacher.py',
    teacher_ckpt='{folder}/teacher.pth')
"""


@pytest.mark.parametrize('scope', ('sfkd', 'mmpretrain'))
def test_a_short_config_names_stock_configs(zoo, tmp_path, scope):
    for name, model in dict(student=zoo.mixer(mean=(1., 2, 3)), teacher=zoo.resnet(mean=(4., 5, 6))).items():
        model = dict(model, type='ImageClassifier')
        preprocessor = model.pop('data_preprocessor')  # beside the model, as in mmpretrain's own configs
        Config(dict(default_scope='mmpretrain', model=model,
                    data_preprocessor=preprocessor)).dump(tmp_path / f'{name}.py')
    teacher = zoo.build(zoo.resnet(), seed=5)
    torch.save(teacher.state_dict(), tmp_path / 'teacher.pth')
    (tmp_path / 'config.py').write_text(CONFIG.format(scope=scope, folder=tmp_path.as_posix()))
    config = Config.fromfile(tmp_path / 'config.py')
    with ROOT_MODELS.switch_scope_and_registry(scope) as registry:
        distiller = registry.build(config.model)
    assert isinstance(distiller, SFKD) and type(distiller).__name__ == 'ImageClassifier'
    assert [(p.student_path, p.teacher_path) for p in distiller.distillation.pairs] == [
        (f'backbone.layers.{i}', f'backbone.layer{i + 1}') for i in range(4)]
    assert distiller.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert distiller.distillation.teacher.network.data_preprocessor.mean.flatten().tolist() == [4, 5, 6]
    assert torch.equal(distiller.distillation.teacher.network.backbone.conv1.weight, teacher.backbone.conv1.weight)
    assert all(value.isfinite() for value in distiller(**data_of(distiller, zoo), mode='loss').values())


TEN_LINES = '''
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['sfkd'])
model = dict(
    _delete_=True, type='SFKD',
    student={{_base_.model}},
    student_options=dict(backbone=dict(depth=18, init_cfg=None), neck=dict(in_channels=[64, 128, 256, 512]),
                         bbox_head=dict(num_classes=10)),
    teacher='TEACHER', teacher_ckpt='init', input_size=128)
'''
SLIM_TEACHER = '''
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(backbone=dict(stem_channels=8, base_channels=8, init_cfg=None), neck=dict(in_channels=[8, 16, 32, 64]))
'''


def test_other_classes_fit_into_the_ten_lines(tmp_path):
    """``{{_base_.model}}`` is a placeholder until the config is read whole: nothing in it can be set in the file."""
    (tmp_path / 'teacher.py').write_text(SLIM_TEACHER)
    (tmp_path / 'pair.py').write_text(TEN_LINES.replace('TEACHER', str(tmp_path / 'teacher.py')))
    config = load_config(str(tmp_path / 'pair.py'))
    with ROOT_MODELS.switch_scope_and_registry('mmdet') as registry:
        distiller = registry.build(config.model).train()
    assert type(distiller).__name__ == 'RetinaNet' and distiller.bbox_head.retina_cls.out_channels == 9 * 10
    assert distiller.backbone.depth == 18
    assert [pair.name for pair in distiller.distillation.pairs][:2] == ['neck_0', 'neck_1']
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    truth = InstanceData(bboxes=torch.tensor([[4., 5., 60., 70.]]), labels=torch.tensor([9]))  # the tenth class
    sample = DetDataSample(gt_instances=truth, metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128)))
    raw = dict(inputs=[torch.randint(256, (3, 128, 128), dtype=torch.uint8)], data_samples=[sample])
    total, log = distiller.parse_losses(distiller(**distiller.data_preprocessor(raw, True), mode='loss'))
    total.backward()
    assert total.isfinite() and {'loss_cls', 'loss_bbox', 'distill.neck_0.loss_spatial'} <= set(log)
    alone = student_config(config).model  # as `--methods alone` and the stock tools see it
    assert (alone.type, alone.bbox_head.num_classes, alone.backbone.depth) == ('RetinaNet', 10, 18)
    assert config.model.student.bbox_head.num_classes == 80  # what was written stays


def test_the_configs_given_are_not_changed(zoo):
    student, teacher, pairs = zoo.mixer(), zoo.resnet(), [dict(student='backbone.layers.1', teacher='backbone.layer2')]
    Distiller(student, teacher, 'init', pairs, **ALIGNED)
    assert (student, teacher) == (zoo.mixer(), zoo.resnet())
    assert pairs == [dict(student='backbone.layers.1', teacher='backbone.layer2')]
    assert FREQUENCY == dict(type='GaussianFrequencyLoss', name='frequency')


def test_pictures_of_another_shape_than_probed(zoo):
    distiller = zoo.distil(zoo.resnet(), zoo.swin())
    losses = distiller(**data_of(distiller, zoo, size=(96, 64)), mode='loss')
    assert all(value.isfinite() for value in losses.values()) and len(losses) == 9


def test_bf16_autocast(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), logit_weight=1.0).train()
    exact = distiller(**data_of(distiller, zoo), mode='loss')
    with torch.autocast('cpu', torch.bfloat16):
        rounded = distiller(**data_of(distiller, zoo), mode='loss')
    for key, value in exact.items():
        assert rounded[key].dtype == torch.float32
        assert rounded[key].item() == pytest.approx(value.item(), rel=0.05, abs=0.01), key


def test_the_size_of_the_dry_run(zoo):
    def size(student, teacher, **kwargs):
        return SFKD(student, teacher, 'init', **kwargs).distillation.input_size
    assert size(zoo.resnet(), zoo.vit(size=(64, 96), layers=8)) == (64, 96)
    assert size(zoo.resnet(), zoo.resnet()) == (224, 224)
    assert size(zoo.resnet(), zoo.swin(), input_size=96) == (96, 96)


def test_a_whole_distillation_checkpoint_serves_as_teacher(zoo, tmp_path):
    """Its weights bear the stock names; those of its companion are nobody's."""
    first = zoo.distil(zoo.resnet(), zoo.swin())
    torch.save(dict(state_dict=first.state_dict()), tmp_path / 'a.pth')
    second = zoo.distil(zoo.mixer(), zoo.resnet(), str(tmp_path / 'a.pth'), kind=SFKD)
    weights = Distiller(zoo.mixer(), zoo.resnet(), str(tmp_path / 'a.pth'),
                        **ALIGNED).distillation.teacher.network.state_dict()
    assert len(second.distillation.pairs) == 4
    for key, value in first.student.state_dict().items():
        assert torch.equal(weights[key], value), key


# ---- copies of a distilled model ----

def pickled(distiller):
    return pickle.loads(pickle.dumps(distiller))


def saved(distiller):
    file = io.BytesIO()
    torch.save(distiller, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize('copied', [copy.deepcopy, pickled, saved])
def test_a_copy_is_a_distilled_model_of_its_own(zoo, copied):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet()).train()
    data = data_of(distiller, zoo)
    twin = copied(distiller)
    assert type(twin) is type(distiller) and isinstance(twin, SFKD) and list(twin.state_dict()) == list(
        distiller.state_dict())
    expected, found = (network(**data, mode='loss') for network in (distiller, twin))
    assert expected.keys() == found.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    sum(found.values()).backward()
    assert all(p.grad is None for p in distiller.parameters()) and twin.backbone.norm1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        twin.head.fc.weight.zero_()
    assert distiller.head.fc.weight.abs().sum() > 0
    assert twin.distillation.taps.network is twin  # not the one that it was copied from
    assert zoo.hook_count(distiller) == zoo.hook_count(twin) == 0


def test_copies_share_the_frozen_teacher_and_pickles_bring_it_along(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet())
    assert copy.deepcopy(distiller).distillation.teacher is distiller.distillation.teacher
    network = pickled(distiller).distillation.teacher.network
    expected = distiller.distillation.teacher.network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in network.state_dict().items())


def test_an_ema_averages_student_and_connectors(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet())
    average = ExponentialMovingAverage(distiller, momentum=0.5)
    before = {key: value.clone() for key, value in distiller.state_dict().items()}
    average.update_parameters(distiller)  # the first takes the weights as they are
    with torch.no_grad():
        for parameter in distiller.parameters():
            parameter += 1
    average.update_parameters(distiller)
    found = average.module.state_dict()
    assert list(found) == list(before) and any(key.startswith('distillation.pairs.') for key in found)
    for key in dict(distiller.named_parameters()):
        torch.testing.assert_close(found[key], before[key] + 0.5)
    assert average.module.distillation.teacher is distiller.distillation.teacher


def test_the_student_is_a_view_of_the_stock_class(zoo):
    distiller = zoo.distil(zoo.mixer(), zoo.resnet())
    stock = zoo.build(zoo.mixer())
    assert type(distiller.student) is type(stock) and isinstance(distiller, type(stock))
    assert list(distiller.student.state_dict()) == list(stock.state_dict())
    own = [name for name in distiller.state_dict() if not name.startswith('distillation.')]
    assert own == list(stock.state_dict())
    assert distiller.student.head is distiller.head and not hasattr(distiller.student, 'distillation')


@pytest.mark.filterwarnings('ignore:Dynamo detected a call')  # it traces through what is cached
def test_compiled_it_teaches_the_same(zoo):
    """Taps and the with block break the graph; what is computed stays, but for the order of the sums that loops and
    PyTorch's operations take.
    """
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), stages=[0, 3]).train()
    data = data_of(distiller, zoo)
    expected = distiller(**data, mode='loss')
    compiled = torch.compile(distiller, backend='eager')
    found = compiled(**data, mode='loss')
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert zoo.hook_count(distiller) == 0
