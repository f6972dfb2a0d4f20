"""The measurements behind docs/ablation.md."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule

from sfkd import SFKD, Distiller
from sfkd.analysis import linear_cka, report_terms
from sfkd.analysis.trial import initialise
from sfkd.ops import standardise

RESNET = dict(type='mmpretrain.ImageClassifier',
              backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
              neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=5, in_channels=64))


def test_cka_is_the_normalised_product_of_centred_gram_matrices():
    torch.manual_seed(0)
    x, y = torch.randn(30, 4).double(), torch.randn(30, 50).double()
    centre = torch.eye(30).double() - 1 / 30
    k, l = (centre @ m @ m.T @ centre for m in (x, y))
    assert linear_cka(x, y) == pytest.approx(float((k * l).sum() / (k.norm() * l.norm())), rel=1e-10)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), rel=1e-10)
    rotation = torch.linalg.qr(torch.randn(4, 4).double())[0]
    assert linear_cka(x, 3 * x @ rotation + 7) == pytest.approx(1)
    assert linear_cka(x.repeat(3, 1), x.repeat(3, 1)[:, :1]) < 0.9


@pytest.fixture(scope='module')
def report():
    from mmpretrain.structures import DataSample
    torch.manual_seed(0)
    distiller = SFKD(RESNET, RESNET, 'init', input_size=64, refine=False, spatial_weight=3.0, frequency_weight=2.0,
                     logit_weight=1.0)
    images, samples = torch.randn(8, 3, 64, 64), [DataSample().set_gt_label(i % 5) for i in range(8)]
    before = {key: value.clone() for key, value in distiller.named_parameters()}
    found = report_terms(distiller.eval(), images, samples)
    assert all(torch.equal(value, before[key]) and value.grad is None for key, value in distiller.named_parameters())
    return distiller, images, samples, found


def test_report_names_every_feature_pair_and_term(report):
    _, _, _, found = report
    assert [r.name for r in found] == ['layer1', 'layer2', 'layer3', 'layer4']
    assert all(set(r.losses) == {'spatial', 'frequency'} and set(r.gradients) == {'spatial', 'frequency', 'task'}
               for r in found)


def test_bands_hold_all_the_energy(report):
    distiller, images, _, found = report
    features = distiller.distillation.teacher(images)
    for r in found:
        teacher, residual, ratio = zip(*r.bands.values())
        assert sum(teacher) == pytest.approx(1, abs=1e-5) and sum(residual) == pytest.approx(1, abs=1e-5)
        # Parseval: all bands' residual energy over all bands' teacher energy is the MSE of the standardised maps
        mse = r.losses['spatial'] / 3.0
        pair = next(pair for pair in distiller.distillation.pairs if pair.name == r.name)
        energy = standardise(features[pair.teacher_path])[0].square().mean()
        assert sum(t * q for t, q in zip(teacher, ratio)) == pytest.approx(mse / float(energy), rel=1e-3)
        assert 0 < r.kept[0] < 1 and r.losses['frequency'] / 2.0 == pytest.approx(r.kept[1] * mse, rel=1e-3)
    assert list(found[0].bands) == ['LL2', 'LH1', 'HL1', 'HH1', 'LH2', 'HL2', 'HH2']


def test_gradient_norms_are_those_of_a_backward_pass(report):
    distiller, images, samples, found = report
    with distiller.distillation.taps.capture((64, 64)) as taps:
        task = distiller.student(images, samples, mode='loss')['loss']
    pair = distiller.distillation.pairs[2]
    terms = pair(taps[pair.student_path], distiller.distillation.teacher(images)[pair.teacher_path])
    weights = list(distiller.student.parameters())

    def flat(loss):
        grads = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return torch.cat([(torch.zeros_like(w) if g is None else g).flatten() for w, g in zip(weights, grads)])
    spatial, frequency = (flat(terms[f'distill.layer3.loss_{key}']) for key in ('spatial', 'frequency'))
    assert found[2].gradients['spatial'] == pytest.approx(float(spatial.norm()), rel=1e-3)
    assert found[2].gradients['task'] == pytest.approx(float(flat(task).norm()), rel=1e-3)
    assert found[2].cosine == pytest.approx(float(F.cosine_similarity(flat(task), spatial + frequency, dim=0)),
                                            abs=1e-3)


def test_weights_left_as_the_memory_was_are_drawn_anew():
    network = BaseModule()
    network.left, network.given = (torch.nn.Parameter(torch.tensor(values))
                                   for values in ([1.0, float('nan')], [1.0, -2.0]))
    initialise(network)
    assert network.left.abs().max() < 1 and network.given.tolist() == [1.0, -2.0]


# ---- detectors and class scores ----

def detector_batch():
    """Two pictures of which one is padded to 96x128."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    torch.manual_seed(0)
    shapes, samples = [(96, 128), (64, 80)], []
    for shape in shapes:
        truth = InstanceData(bboxes=torch.tensor([[4., 5., 50., 60.]]), labels=torch.tensor([1]))
        meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))
        samples.append(DetDataSample(gt_instances=truth, metainfo=meta))
    return dict(inputs=[torch.randint(256, (3, *shape), dtype=torch.uint8) for shape in shapes], data_samples=samples)


def retinanet():
    from sfkd.openmmlab.building import read_config
    model = read_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', 'test').model
    model.type = 'mmdet.RetinaNet'
    model.backbone.update(depth=18, stem_channels=8, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    model.bbox_head.update(num_classes=3, in_channels=16, feat_channels=16, stacked_convs=1)
    return model


def test_terms_of_a_detector_leave_the_padding_out():
    """Its task losses are lists, a level each; terms are those of a training step, which masks what is padded."""
    torch.manual_seed(0)
    distiller = SFKD(retinanet(), retinanet(), 'init', input_size=(96, 128)).eval()
    data = distiller.data_preprocessor(detector_batch(), True)
    found = report_terms(distiller, **data)
    assert [r.name for r in found][:2] == ['neck_0', 'neck_1'] and all(r.gradients['task'] > 0 for r in found)
    assert all(set(r.losses) == {'spatial', 'frequency'} and r.bands and 0 < r.cka < 1 for r in found)
    step = distiller(**data, mode='loss')
    for r in found:
        expected = {key: step[f'distill.{r.name}.loss_{key}'].item() for key in r.losses}
        assert r.losses == pytest.approx(expected, rel=1e-5)
    for sample in data['data_samples']:
        sample.set_metainfo(dict(img_shape=(96, 128)))
    assert report_terms(distiller, **data)[0].cka != pytest.approx(found[0].cka, rel=1e-6)  # all cells count


def test_terms_against_the_teachers_class_scores():
    from mmpretrain.structures import DataSample
    torch.manual_seed(0)
    distiller = Distiller(RESNET, RESNET, 'init', pairs='head', connector=dict(type='LogitProjector'),
                          losses=[dict(type='KLDivergence', name='kd', weight=2.0)], input_size=64).eval()
    images, samples = torch.randn(8, 3, 64, 64), [DataSample().set_gt_label(i % 5) for i in range(8)]
    found = report_terms(distiller, images, samples)
    assert [r.name for r in found] == ['layer1', 'layer2', 'layer3', 'layer4']
    losses = distiller(images, samples, mode='loss')
    for r in found:
        assert r.losses['kd'] == pytest.approx(losses[f'distill.{r.name}.loss_kd'].item(), rel=1e-5)
        assert r.gradients['kd'] > 0 and r.cka is None and r.kept is None and r.bands == {}
