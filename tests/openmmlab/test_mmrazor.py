"""mmrazor's configs, written by hand from its documented keys, run as ours: the losses are what mmrazor's formulas
give.
"""
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS as ROOT_MODELS

from sfkd import Distiller
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.mmrazor import from_mmrazor, translate


def outputs(**sources):
    return {name: dict(type='ModuleOutputs', source=source) for name, source in sources.items()}


def both(recorder, arguments=('preds_S', 'preds_T'), **where):
    return {argument: dict(from_student=i == 0, recorder=recorder, **where) for i, argument in enumerate(arguments)}


def algorithm(student, teacher, **distiller):
    return dict(_scope_='mmrazor', type='SingleTeacherDistill', architecture=student, teacher=teacher,
                teacher_ckpt='init', teacher_trainable=False, teacher_norm_eval=True, student_trainable=True,
                calculate_student_loss=True, distiller=dict(type='ConfigurableDistiller', **distiller))


def logits(loss, mapping=('preds_S', 'preds_T')):
    recorders = outputs(fc='head.fc')
    return dict(student_recorders=recorders, teacher_recorders=recorders, distill_losses=dict(loss_kl=loss),
                loss_forward_mappings=dict(loss_kl=both('fc', mapping)))


def maps(loss, path='backbone.layer3', mapping=('preds_S', 'preds_T')):
    recorders = outputs(bb=path)
    return dict(student_recorders=recorders, teacher_recorders=recorders, distill_losses=dict(loss_map=loss),
                loss_forward_mappings=dict(loss_map=both('bb', mapping)))


def bottlenecks(zoo):
    """A teacher whose blocks end in the third call of one ReLU; a BasicBlock's in the second."""
    config = zoo.resnet()
    config['backbone']['depth'] = 50
    config['head']['in_channels'] = 256
    return config


@torch.no_grad()
def term(zoo, model, student, teacher):
    """Our loss, and what hooks of the test's own saw: each side's calls of a module."""
    torch.manual_seed(0)
    distiller = ROOT_MODELS.build(dict(from_mmrazor(model), teacher_precision='fp32'))
    assert isinstance(distiller, Distiller)
    for tensor in distiller.distillation.teacher.network.parameters():
        tensor += 0.02 * torch.rand_like(tensor)
    data = distiller.train().data_preprocessor(zoo.batch(), training=True)
    network = distiller.distillation.teacher.network
    with zoo.recorded(distiller.student, [student]) as seen, zoo.recorded(network, [teacher]) as shown:
        losses = {key: value for key, value in distiller(**data, mode='loss').items() if key.startswith('distill.')}
    assert len(losses) == 1
    return distiller, next(iter(losses.values())).item(), seen[student], shown[teacher]


def test_kd(zoo):
    model = algorithm(zoo.mixer(), zoo.resnet(), **logits(dict(type='KLDivergence', tau=2, loss_weight=3)))
    _, loss, (s, ), (t, ) = term(zoo, model, 'head.fc', 'head.fc')
    s, t = (F.log_softmax(x / 2, 1) for x in (s, t))
    assert loss == pytest.approx(3 * 4 * (t.exp() * (t - s)).sum(1).mean().item(), rel=1e-4)
    model['distiller']['distill_losses']['loss_kl']['reduction'] = 'mean'  # over the five classes too
    assert term(zoo, model, 'head.fc', 'head.fc')[1] == pytest.approx(loss / 5, rel=1e-4)


def test_kd_of_maps_sums_their_cells(zoo):
    model = algorithm(zoo.resnet(), zoo.resnet(), **maps(dict(type='KLDivergence', tau=2)))
    _, loss, (s, ), (t, ) = term(zoo, model, 'backbone.layer3', 'backbone.layer3')
    expected = 4 * F.kl_div(F.log_softmax(s / 2, 1), F.softmax(t / 2, 1), reduction='batchmean')
    assert loss == pytest.approx(expected.item(), rel=1e-4)
    model['distiller']['distill_losses']['loss_map']['reduction'] = 'sum'
    with pytest.raises(ConfigError, match="reduction: 'sum' has no counterpart"):
        from_mmrazor(model)


def test_dist(zoo):
    model = algorithm(zoo.mixer(), zoo.resnet(), **logits(
        dict(type='DISTLoss', inter_loss_weight=1.5, intra_loss_weight=0.5, tau=2, loss_weight=2),
        ('logits_S', 'logits_T')))
    _, loss, (s, ), (t, ) = term(zoo, model, 'head.fc', 'head.fc')
    s, t = ((x.double() / 2).softmax(1) for x in (s, t))

    def distance(a, b):
        a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
        return 1 - ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean()
    assert loss == pytest.approx((2 * 4 * (1.5 * distance(s, t) + 0.5 * distance(s.T, t.T))).item(), rel=1e-3)


def test_cwd(zoo):
    model = algorithm(zoo.resnet(), zoo.resnet(), **maps(dict(type='ChannelWiseDivergence', tau=2, loss_weight=5)))
    _, loss, (s, ), (t, ) = term(zoo, model, 'backbone.layer3', 'backbone.layer3')
    s, t = (F.log_softmax(x.flatten(2).flatten(0, 1) / 2, 1) for x in (s, t))
    assert loss == pytest.approx(5 * 4 * (t.exp() * (t - s)).sum().item() / len(s), rel=1e-4)


def test_pkd(zoo):
    model = algorithm(zoo.resnet(), zoo.resnet(), **maps(dict(type='PKDLoss', loss_weight=6)))
    distiller, loss, (s, ), (t, ) = term(zoo, model, 'backbone.layer3', 'backbone.layer3')
    s, t = (x.double().permute(1, 0, 2, 3).flatten(1) for x in (s, t))
    s, t = ((x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + 1e-6) for x in (s, t))
    # eps and 1/n of the variance differ, see the module
    assert loss == pytest.approx((6 * F.mse_loss(s, t) / 2).item(), rel=0.03)
    assert not list(distiller.distillation.pairs.parameters())


@pytest.mark.parametrize('name', ['ConvModuleConncetor', 'ConvModuleConnector'])  # mmrazor's own spelling first
def test_fitnets(zoo, name):
    """The last of the calls of a block's ReLU, and a learned connector on the student's side."""
    path = 'backbone.layer3.1.relu'
    model = algorithm(zoo.resnet(), bottlenecks(zoo), student_recorders=outputs(bb=path),
                      teacher_recorders=outputs(bb=path),
                      connectors=dict(sfeat=dict(type=name, in_channel=32, out_channel=128, norm_cfg=dict(type='BN'))),
                      distill_losses=dict(loss_s3=dict(type='L2Loss', loss_weight=10)),
                      loss_forward_mappings=dict(loss_s3=dict(
                          s_feature=dict(from_student=True, recorder='bb', record_idx=1, connector='sfeat'),
                          t_feature=dict(from_student=False, recorder='bb', record_idx=2))))
    distiller, loss, s, t = term(zoo, model, path, path)
    assert [(p.student_path, p.teacher_path) for p in distiller.distillation.pairs] == [(f'{path}[1]', f'{path}[2]')]
    assert (len(s), len(t)) == (2, 3)
    with torch.no_grad():
        s, t = (F.normalize(x.flatten(1), dim=1) for x in (distiller.distillation.pairs[0].connector.conv(s[1]), t[2]))
    assert loss == pytest.approx((10 * (s - t).square().sum() / len(s)).item(), rel=1e-3)
    weights = dict(distiller.distillation.pairs[0].connector.named_parameters())
    assert set(weights) == {'conv.conv.weight', 'conv.bn.weight', 'conv.bn.bias'}


def test_levels_of_a_neck_and_a_plain_mean():
    """data_idx picks a level; record_idx 0 is the only call."""
    fpn = outputs(fpn='neck')
    model = algorithm(dict(cfg_path='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', pretrained=False,
                           bbox_head=dict(num_classes=7)),
                      dict(cfg_path='mmdet::retinanet/retinanet_r101_fpn_2x_coco.py', pretrained=True),
                      student_recorders=fpn, teacher_recorders=fpn,
                      distill_losses=dict(loss_fpn0=dict(type='PKDLoss', loss_weight=6), loss_fpn3=dict(
                          type='L2Loss', normalize=False, div_element=True)), loss_forward_mappings=dict(
                              loss_fpn0=both('fpn', record_idx=0, data_idx=0),
                              loss_fpn3=both('fpn', ('s_feature', 't_feature'), data_idx=3)))
    found = from_mmrazor(model)
    assert [(p.student, p.teacher, p.connector.type, p.losses[0].type, p.losses[0].weight, p.losses[0].name)
            for p in found.pairs] == [
        ('neck[0]', 'neck[0]', 'CommonGrid', 'FeatureMSE', 3.0, 'fpn0'),
        ('neck[3]', 'neck[3]', 'CommonGrid', 'FeatureMSE', 1.0, 'fpn3')]
    assert found.student.type == 'RetinaNet' and found.student._scope_ == 'mmdet'
    assert found.student.bbox_head.num_classes == 7
    assert (found.student.backbone.depth, found.teacher.backbone.depth) == (50, 101)


CONFIG = """
_base_ = ['mmcls::_base_/schedules/imagenet_bs256.py', 'mmcls::_base_/default_runtime.py']
model = dict(
    _scope_='mmrazor', type='SingleTeacherDistill',
    data_preprocessor=dict(type='ImgDataPreprocessor', mean={mean}, std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    architecture=dict(cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py', pretrained=False),
    teacher=dict(cfg_path='mmcls::resnet/resnet34_8xb32_in1k.py', pretrained=False), teacher_ckpt='init',
    distiller=dict(
        type='ConfigurableDistiller', student_recorders=dict(fc=dict(type='ModuleOutputs', source='head.fc')),
        teacher_recorders=dict(fc=dict(type='ModuleOutputs', source='head.fc')),
        distill_losses=dict(loss_kl=dict(type='KLDivergence', tau=1, loss_weight=3)),
        loss_forward_mappings=dict(loss_kl=dict(
            preds_S=dict(from_student=True, recorder='fc'), preds_T=dict(from_student=False, recorder='fc')))))
find_unused_parameters = True
val_cfg = dict(_delete_=True, type='mmrazor.SingleTeacherDistillValLoop')
"""


def test_a_config_file_as_the_tools_read_it(tmp_path):
    file = tmp_path / 'kd.py'
    file.write_text(CONFIG.format(mean=[123.675, 116.28, 103.53]))
    config = load_config(str(file))
    assert config.model.type == 'Distiller' and config.val_cfg == {} and config.default_scope == 'mmpretrain'
    assert config.model.student.data_preprocessor.mean == [123.675, 116.28, 103.53]
    distiller = ROOT_MODELS.build(dict(config.model, input_size=64))
    assert [(pair.student_path, pair.teacher_path, pair.weights)
            for pair in distiller.distillation.pairs] == [('head.fc', 'head.fc', {'kl': 3.0})]
    assert {type(net.head).__name__
            for net in (distiller.student, distiller.distillation.teacher.network)} == {'LinearClsHead'}
    file.write_text(CONFIG.format(mean=[0, 0, 0]))
    with pytest.raises(ConfigError,
                       match=r'model.data_preprocessor: mean is \[0, 0, 0\], the student.s own config has \[123.675'):
        load_config(str(file))


def change(model, path, value):
    *parents, last = path.split('.')
    for key in parents:
        model = model[key]
    model[last] = value


@pytest.mark.parametrize('path, value, message', [
    ('teacher_trainable', True, 'model.teacher_trainable: True cannot be expressed; only False can'),
    ('calculate_student_loss', False, 'model.calculate_student_loss: False cannot'),
    ('teacher_nrom_eval', True, "model.teacher_nrom_eval: no such key; nearest: 'teacher_norm_eval'"),
    ('distiller.type', 'BYOTDistiller', "model.distiller.type: 'BYOTDistiller' has no counterpart"),
    ('distiller.distill_deliveries', dict(rand=dict(type='MethodOutputs')), 'model.distiller.distill_deliveries'),
    ('distiller.student_recorders.bb.type', 'ModuleInputs',
     "student_recorders.bb.type: 'ModuleInputs' cannot be expressed"),
    ('distiller.distill_losses.loss_map', dict(type='ABLoss'),
     "distill_losses.loss_map.type: 'ABLoss' has no counterpart here"),
    ('distiller.distill_losses.loss_map.weight', 3,
     "distill_losses.loss_map.weight: no argument of PKDLoss; nearest: 'loss_weight'"),
    ('distiller.distill_losses.loss_map', dict(type='L2Loss', div_element=True),
     'distill_losses.loss_map.normalize, div_element and dist'),
    ('distiller.distill_losses.loss_b', dict(type='PKDLoss'),
     'distill_losses.loss_b: has no entry in loss_forward_mappings'),
    ('distiller.loss_forward_mappings.loss_map.preds_S.recorder', 'b',
     "loss_map.preds_S.recorder: 'b' is not in student_recorders"),
    ('distiller.loss_forward_mappings.loss_map.preds_T.connector', 'c',
     "loss_map.preds_T.connector: 'c' would learn on the teacher's side"),
    ('distiller.loss_forward_mappings.loss_map.preds_S.connector', 'c',
     'model.distiller.connectors.c: there is no such connector'),
    ('distiller.loss_forward_mappings.loss_map.preds_T.from_student', True,
     'loss_forward_mappings.loss_map: both arguments are from the student'),
    ('distiller.loss_forward_mappings.loss_map', {},
     'loss_forward_mappings.loss_map: PKDLoss takes preds_S and preds_T'),
    ('architecture', dict(cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py', pretrained=True),
     'model.architecture.pretrained: True would download'),
], ids=lambda value: value if isinstance(value, str) and len(value) < 60 else '')
def test_what_cannot_be_expressed_is_named(zoo, path, value, message):
    model = algorithm(zoo.resnet(), zoo.resnet(), **maps(dict(type='PKDLoss')))
    from_mmrazor(model)
    change(model, path, value)
    with pytest.raises(ConfigError) as caught:
        from_mmrazor(model)
    assert message in str(caught.value) and len(caught.value.problems) == 1, str(caught.value)


def test_problems_come_together_and_hooks_are_named(zoo):
    model = algorithm(zoo.resnet(), zoo.resnet(), **maps(dict(type='ABLoss')))
    model.update(student_trainable=False)
    with pytest.raises(ConfigError) as caught:
        from_mmrazor(model)
    assert len(caught.value.problems) == 2
    model = algorithm(zoo.resnet(), zoo.resnet(), **maps(dict(type='PKDLoss')))
    with pytest.raises(ConfigError, match="custom_hooks: 'mmrazor.DistillationLossDetachHook'"):
        translate(Config(dict(model=model, custom_hooks=[dict(type='mmrazor.DistillationLossDetachHook')])))
