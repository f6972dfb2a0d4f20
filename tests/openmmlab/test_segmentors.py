"""Segmentors of mmseg teach each other: dilated stages by depth, labels that are missing do not teach, heads that
rest.
"""
import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip('mmseg')
import cv2  # noqa: E402
from mmengine.dataset import Compose  # noqa: E402
from mmengine.registry import DefaultScope  # noqa: E402
from mmengine.structures import PixelData  # noqa: E402
from mmseg.structures import SegDataSample  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from sfkd import Distiller  # noqa: E402
from sfkd.connectors import CommonGrid  # noqa: E402
from sfkd.distillation.pair import common_grid  # noqa: E402
from sfkd.errors import ConfigError  # noqa: E402
from sfkd.features.matching import match  # noqa: E402
from sfkd.features.padding import TaughtCells, on_grid  # noqa: E402
from sfkd.features.probe import probe  # noqa: E402
from sfkd.features.stages import stages  # noqa: E402
from sfkd.openmmlab.building import read_config  # noqa: E402
from sfkd.openmmlab.masks import picture_mask, taught_mask  # noqa: E402

SIZE = 64
SHAPES = [(64, 48), (56, 64)]  # padded to 64x64
OTHER = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
CWD, MSE = dict(type='ChannelWiseDivergence', name='cwd'), dict(type='FeatureMSE', name='mse')
HEAD = 'decode_head.conv_seg'
LAYERS, NORMS = [f'backbone.layer{i}' for i in range(1, 5)], [f'backbone.norm{i}' for i in range(4)]


def segmentor(path, classes, preprocessor):
    """A stock config for pictures of 64 px, with plain batch norm and nothing to download."""
    model = read_config(f'mmseg::{path}', 'test').model
    model.type, model.pretrained = f'mmseg.{model.type}', None
    model.data_preprocessor.update(dict(size=(SIZE, SIZE)), **preprocessor)
    model.backbone.pop('init_cfg', None)
    for part in (model.backbone, model.decode_head, model.get('auxiliary_head')):
        if part and 'norm_cfg' in part and part.norm_cfg.type == 'SyncBN':
            part.norm_cfg.type = 'BN'
    for head in (model.decode_head, model.get('auxiliary_head')):
        if head:
            head.update(num_classes=classes, channels=16)
    model.test_cfg = dict(mode='whole')
    return model


def pspnet(classes=3, **preprocessor):
    """Dilated: strides 4, 8, 8, 8; with an auxiliary head."""
    model = segmentor('pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py', classes, preprocessor)
    model.backbone.update(depth=18, stem_channels=8, base_channels=8)
    model.decode_head.in_channels, model.auxiliary_head.in_channels = 64, 32
    return model


def swin(classes=3, **preprocessor):
    """Strides 4 to 32."""
    model = segmentor('swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py', classes,
                      preprocessor)
    model.backbone.update(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=2, drop_path_rate=0.0)
    model.decode_head.in_channels, model.auxiliary_head.in_channels = [8, 16, 32, 64], 32
    return model


def segformer(classes=3, **preprocessor):
    """Strides 4 to 32, without an auxiliary head; its class maps have stride 4."""
    model = segmentor('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', classes, preprocessor)
    model.backbone.update(embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], drop_path_rate=0.0)
    model.decode_head.in_channels = [8, 8, 16, 16]
    return model


def vit(classes=3, **preprocessor):
    """One stride, 16; a neck makes a pyramid of it."""
    model = segmentor('vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py', classes, preprocessor)
    model.backbone.update(img_size=(SIZE, SIZE), embed_dims=16, num_layers=8, num_heads=2, out_indices=(1, 3, 5, 7),
                          drop_path_rate=0.0)
    model.neck.update(in_channels=[16] * 4, out_channels=16)
    model.decode_head.in_channels, model.auxiliary_head.in_channels = [16] * 4, 16
    return model


def mobilenet(classes=3, **preprocessor):
    """Dilated, several layers to a stage."""
    return segmentor('mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb4-160k_ade20k-512x512.py', classes, preprocessor)


def segnext(classes=3, **preprocessor):
    """Wide kernels made of dilated ones in every block, and strides 4 to 32."""
    model = segmentor('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py', classes, preprocessor)
    model.decode_head.norm_cfg.num_groups = 16
    return model


def batch(shapes=SHAPES, classes=3, unlabelled=0.5, seed=0):
    """What a data loader gives: raw pictures and label maps whose upper part (a share of the rows) has no label."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for h, w in shapes:
        labels = torch.randint(0, classes, (1, h, w), generator=generator)
        labels[:, :int(h * unlabelled)] = 255
        samples.append(SegDataSample(metainfo=dict(img_shape=(h, w), ori_shape=(h, w)),
                                     gt_sem_seg=PixelData(data=labels)))
    return dict(inputs=[torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes],
                data_samples=samples)


def distil(zoo, student, teacher, **kwargs):
    return zoo.distil(student, teacher, **dict(dict(input_size=SIZE), **kwargs)).train()


COMMON_GRID = dict(type='CommonGrid')


def class_maps(*losses, connector=COMMON_GRID):
    return dict(kind=Distiller, pairs=[dict(student=HEAD, teacher=HEAD, connector=connector, losses=list(losses))])


def distilled(losses):
    return {key: value for key, value in losses.items() if key.startswith('distill.')}


def step(distiller, data):
    """One forward and backward pass; the distillation losses."""
    total, terms = distiller.parse_losses(distiller.loss(**distiller.data_preprocessor(data, True)))
    total.backward()
    assert all(value.isfinite() for value in terms.values()), terms
    assert all(p.grad is not None and p.grad.isfinite().all() for p in distiller.parameters() if p.requires_grad)
    return distilled(terms)


# ---- pairing ----

def paths(zoo, student, teacher):
    networks = [zoo.build(config) for config in (student, teacher)]
    return [(s.path, t.path) for s, t in match(*networks, *(probe(network, (SIZE, SIZE)) for network in networks))]


def test_a_dilated_student_pairs_with_a_strided_teacher_stage_by_stage(zoo):
    found = stages(network := zoo.build(pspnet()), probe(network, (SIZE, SIZE)))
    assert [s.path for s in found] == LAYERS
    assert [s.stride for s in found] == [4, 8, 8, 8] and [s.scale for s in found] == [4, 8, 16, 32]
    assert paths(zoo, pspnet(), swin()) == list(zip(LAYERS, NORMS))
    assert paths(zoo, swin(), pspnet()) == list(zip(NORMS, LAYERS))
    assert paths(zoo, pspnet(), pspnet()) == list(zip(LAYERS, LAYERS))


def test_a_segformer_pairs_by_stride(zoo):
    ends = [f'backbone.layers.{i}.2' for i in range(4)]  # the norm behind each stage's blocks
    assert paths(zoo, segformer(), swin()) == list(zip(ends, NORMS))
    assert paths(zoo, pspnet(), segformer()) == list(zip(LAYERS, ends))


def test_a_teacher_of_one_stride_pairs_by_depth_whatever_its_neck_makes_of_it(zoo):
    assert paths(zoo, pspnet(), vit()) == list(zip(LAYERS, [f'backbone.layers.{i}' for i in (1, 3, 5, 7)]))


def test_layers_of_a_dilated_mobilenet_end_where_those_of_the_strided_one_do(zoo):
    ends = [f'backbone.layer{i}' for i in (2, 3, 5, 7)]
    assert paths(zoo, mobilenet(), swin()) == list(zip(ends, NORMS))
    strided = mobilenet()
    strided.backbone.update(strides=(1, 2, 2, 2, 1, 2, 1), dilations=(1, ) * 7)
    assert paths(zoo, strided, swin()) == list(zip(ends, NORMS))


def test_kernels_that_are_dilated_in_every_stage_are_no_dilated_stages(zoo):
    found = stages(network := zoo.build(segnext()), probe(network, (128, 128)))
    assert [s.stride for s in found] == [s.scale for s in found] == [4, 8, 16, 32]


# ---- what has no label does not teach ----

def test_the_mask_is_what_has_a_label_inside_of_the_pictures(zoo):
    data = zoo.build(pspnet()).data_preprocessor(batch(), True)
    padding = picture_mask(**data)
    assert [m.sum().item() for m in padding] == [64 * 48, 56 * 64]
    taught = taught_mask(padding, data['data_samples'])
    assert taught.shape == (2, 1, 64, 64) and [m.sum().item() for m in taught] == [32 * 48, 28 * 64]
    assert taught[0, 0, 32:, :48].all() and taught[1, 0, 28:56].all()
    assert torch.equal(taught_mask(None, data['data_samples']), taught)  # mmseg labels what it pads as ignored too


@pytest.mark.parametrize('ignored', [0, 2, 255])
def test_what_has_no_label_is_what_the_head_says(zoo, ignored):
    config = pspnet()
    config['decode_head']['ignore_index'] = ignored
    distiller, data = distil(zoo, config, pspnet()), batch()
    data = distiller.data_preprocessor(data, True)
    for sample in data['data_samples']:
        sample.gt_sem_seg.data[:] = ignored
        sample.gt_sem_seg.data[:, :8, :8] = 1
    seen = []
    compare = distiller.distillation.compare
    distiller.distillation.compare = lambda ours, theirs, mask: seen.append(mask) or compare(ours, theirs, mask)
    distiller(**data, mode='loss')
    assert seen[0].shape == (2, 1, 64, 64) and seen[0].sum() == 2 * 64 and seen[0][..., :8, :8].all()


def test_the_mask_costs_no_look_at_a_value():
    with FakeTensorMode():  # refuses whatever would have to wait for a GPU
        labels = torch.zeros(2, 1, 8, 8, dtype=torch.long)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(img_shape=(8, 6))) for label in labels]
        mask = taught_mask(picture_mask(torch.zeros(2, 3, 8, 8), samples), samples)
        assert mask.shape == (2, 1, 8, 8)
        maps = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 2, 2)
        assert [x.shape for x in CommonGrid(3, 3)(*maps, on_grid(mask, (2, 2)))] == [(2, 3, 2, 2)] * 2


def test_other_tasks_are_masked_as_before(zoo):
    pictures = zoo.build(zoo.resnet()).data_preprocessor(zoo.batch(), True)
    assert taught_mask(None, pictures['data_samples']) is None and taught_mask(None, None) is None
    panoptic = SegDataSample(gt_sem_seg=PixelData(sem_seg=torch.full((1, 8, 8), 255)))  # as mmdet's
    assert taught_mask(None, [panoptic]) is None


def test_reduced_zero_labels_do_not_teach(zoo, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    labels = np.ones((64, 64), np.uint8)
    labels[:, :24] = 0
    for name, image in dict(img=picture, seg=labels).items():
        assert cv2.imwrite(str(tmp_path / f'{name}.png'), image)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', reduce_zero_label=True),
                dict(type='PackSegInputs')]
    with DefaultScope.overwrite_default_scope('mmseg'):
        item = Compose(pipeline)(dict(img_path=str(tmp_path / 'img.png'), seg_map_path=str(tmp_path / 'seg.png'),
                                      reduce_zero_label=True, label_map=None, seg_fields=[]))
    data = zoo.build(pspnet()).data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]),
                                                 True)
    mask = taught_mask(picture_mask(**data), data['data_samples'])
    assert not mask[..., :24].any() and mask[..., 24:].all()


class Noise:
    """Adds noise to what a module gives where nothing teaches: ``noise`` collects what was added, with its gradient."""

    def __init__(self, module, mask, seed):
        self.mask, self.noise, self.generator = mask, [], torch.Generator().manual_seed(seed)
        self.hook = module.register_forward_hook(lambda module, inputs, output: self.add(output))

    def add(self, output):
        noise = (100 * torch.randn(output.shape, generator=self.generator)).requires_grad_()
        self.noise.append(noise)
        return output + noise * (1 - on_grid(self.mask, output.shape[2:]))


@pytest.mark.parametrize('module, teacher, options', [
    ('backbone.layer3', pspnet, {}),
    (HEAD, pspnet, class_maps(CWD, MSE)),
    (HEAD, pspnet, class_maps(CWD, MSE, connector=None)),
    (HEAD, segformer, class_maps(CWD, MSE)),
], ids=['stages', 'class maps', 'class maps without a connector', 'class maps of two grids'])
def test_what_has_no_label_does_not_teach(zoo, module, teacher, options):
    distiller = distil(zoo, pspnet(**OTHER), teacher(), **options)
    distiller.student.eval()  # without dropout
    data = distiller.data_preprocessor(batch([(64, 64), (64, 64)]), True)
    mask = taught_mask(picture_mask(**data), data['data_samples'])
    assert not mask[:, :, :32].any() and mask[:, :, 32:].all()

    def losses(noisy):
        networks = [distiller.student, distiller.distillation.teacher.network]
        hooks = [Noise(network.get_submodule(module), mask, seed)
                 for seed, network in enumerate(networks)] if noisy else []
        total = sum(value for key, value in distilled(distiller.loss(**copy.deepcopy(data))).items()
                    if module == HEAD or 'layer3' in key)  # later stages see the noise
        for noise in hooks:
            noise.hook.remove()
        return total, hooks
    (quiet, _), (loud, (student, teacher)) = losses(False), losses(True)
    torch.testing.assert_close(loud, quiet)
    loud.backward()
    assert teacher.noise and all(noise.grad is not None and not noise.grad.any() for noise in student.noise)
    assert any(p.grad is not None and p.grad.any() for p in distiller.student.backbone.parameters())


@pytest.mark.parametrize('teacher, options', [
    (swin, {}), (pspnet, class_maps(CWD, MSE)), (segformer, class_maps(CWD, MSE)),
    (pspnet, class_maps(CWD, MSE, connector=None))])
def test_pictures_without_a_label_train_and_teach_nothing(zoo, teacher, options):
    distiller = distil(zoo, pspnet(), teacher(), **options)
    data = batch()
    data['data_samples'][0].gt_sem_seg.data[:] = 255
    assert all(value > 0 for value in step(distiller, data).values())  # the other picture teaches
    assert all(value == 0 for value in step(distiller, batch(unlabelled=1.0)).values())


def test_the_loss_does_not_shrink_with_what_has_no_label(zoo):
    distiller = distil(zoo, pspnet(), pspnet(), **class_maps(MSE))
    maps = torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    mask = torch.ones(1, 1, 64, 64)
    whole, = distiller.distillation.pairs[0](*maps, TaughtCells(mask, [common_grid(*maps)])).values()
    mask[:, :, 16:] = 0
    part, = distiller.distillation.pairs[0](*maps, TaughtCells(mask, [common_grid(*maps)])).values()
    assert whole == 1 and part == 1


@pytest.mark.parametrize('student, teacher', [(OTHER, {}), ({}, OTHER), ({}, {})])
def test_the_teacher_sees_what_has_no_label_and_no_padding(zoo, student, teacher):
    distiller = distil(zoo, pspnet(**student), swin(**teacher))
    network, inputs = distiller.distillation.teacher.network, []
    data = distiller.data_preprocessor(batch(), True)
    hook = network.backbone.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    distiller.loss(**data)
    hook.remove()
    own = network.data_preprocessor(batch(), True)['inputs']
    assert own[0, :, :32, :48].abs().min() < own[0, :, :32, :48].abs().max()  # a picture, though without a label
    torch.testing.assert_close(inputs[0], own, rtol=1e-4, atol=1e-4)
    assert not inputs[0][0, :, :, 48:].any() and not inputs[0][1, :, 56:].any()


# ---- class maps ----

@pytest.mark.parametrize('grids', [((8, 8), (16, 16)), ((16, 16), (8, 8)), ((8, 16), (16, 8))])
def test_class_maps_meet_on_the_smaller_grid(grids):
    maps = [torch.randn(2, 3, *grid) for grid in grids]
    wanted = [F.adaptive_avg_pool2d(x, (8, 8)) for x in maps]
    for found, expected in zip(CommonGrid(3, 3)(*maps), wanted):
        assert torch.equal(found, expected)
    mask = torch.ones(2, 1, 8, 8)
    mask[:, :, :, 5:] = 0
    student, teacher = CommonGrid(3, 3)(*maps, mask)
    assert torch.equal(student[..., :5], wanted[0][..., :5]) and torch.equal(teacher[..., :5], wanted[1][..., :5])
    assert not student[..., 5:].any() and not teacher[..., 5:].any()


def test_class_maps_beside_the_stages(zoo):
    cwd = dict(student=HEAD, teacher=HEAD, connector=dict(type='CommonGrid'), losses=[CWD])
    distiller = distil(zoo, pspnet(), segformer(), pairs=['auto', cwd])
    names = [pair.name for pair in distiller.distillation.pairs]
    assert names == ['layer1', 'layer2', 'layer3', 'layer4', 'decode_head_conv_seg']
    assert not list(distiller.distillation.pairs[-1].parameters())  # nothing is projected
    assert step(distiller, batch())['distill.decode_head_conv_seg.loss_cwd'] > 0


def test_class_maps_are_found(zoo):
    """What 'classes' stands for are the scores that the head returns, of whatever stride; and a classifier has none."""
    distiller = distil(zoo, pspnet(), segformer(), kind=Distiller, pairs='classes', connector=dict(type='CommonGrid'),
                       losses=[MSE, dict(type='KLDivergence', name='kd')])
    pair, = distiller.distillation.pairs
    assert (pair.student_path, pair.teacher_path) == (HEAD, HEAD)
    assert [stage.shape for stage in pair.stages] == [(3, 8, 8), (3, 16, 16)]
    seen = {}
    hooks = [network.get_submodule(HEAD).register_forward_hook(lambda m, a, out, role=role: seen.update({role: out}))
             for role, network in (('student', distiller), ('teacher', distiller.distillation.teacher.network))]
    losses = step(distiller, batch([(64, 64), (64, 64)], unlabelled=0.0))
    for hook in hooks:
        hook.remove()
    theirs = F.adaptive_avg_pool2d(seen['teacher'], 8).log_softmax(1)
    kl = (theirs.exp() * (theirs - seen['student'].log_softmax(1))).sum(1).mean()
    assert losses['distill.decode_head_conv_seg.loss_kd'].item() == pytest.approx(kl.item(), rel=1e-4)


def test_class_maps_of_other_classes_are_refused(zoo):
    with pytest.raises(ConfigError,
                       match=r'model.pairs\[0\].connector: .*the student has 3 classes and the teacher 7') as error:
        distil(zoo, pspnet(classes=3), segformer(classes=7), **class_maps(CWD))
    assert 'Align' in str(error.value)
    distil(zoo, pspnet(classes=3), segformer(classes=7))  # its features teach all the same


def test_logits_of_segmentors_are_class_maps(zoo):
    """On the smaller grid; by hand, each cell's divergence and each class's over the cells."""
    losses = [dict(type='KLDivergence', weight=0.5, temperature=2.0, name='kd'), dict(CWD, weight=3.0)]
    distiller = distil(zoo, pspnet(), segformer(), kind=Distiller, losses=[MSE], connector=dict(type='Align'),
                       logits=losses)
    assert [pair.name for pair in distiller.distillation.pairs] == ['layer1', 'layer2', 'layer3', 'layer4', 'logits']
    seen = {}
    for role, network in dict(student=distiller, teacher=distiller.distillation.teacher.network).items():
        network.get_submodule(HEAD).register_forward_hook(lambda m, a, out, role=role: seen.update({role: out}))
    found = step(distiller, batch([(64, 64), (64, 64)], unlabelled=0.0))
    ours, theirs = seen['student'], F.adaptive_avg_pool2d(seen['teacher'], 8)
    soft = (theirs / 2).softmax(1)
    kl = (soft * (soft.log() - (ours / 2).log_softmax(1))).sum(1).mean()
    where = theirs.flatten(2).softmax(2)
    cwd = (where * (where.log() - ours.flatten(2).log_softmax(2))).sum(2).mean()
    assert found['distill.logits.loss_kd'].item() == pytest.approx(0.5 * 4 * kl.item(), rel=1e-4)
    assert found['distill.logits.loss_cwd'].item() == pytest.approx(3.0 * cwd.item(), rel=1e-4)


def test_sfkd_of_class_maps(zoo):
    distiller = distil(zoo, pspnet(), segformer(), logit_weight=3.0, logit_loss='ChannelWiseDivergence',
                       anchor=dict(weight=1.0))
    *stages, logits = distiller.distillation.pairs
    assert len(stages) == 4 and logits.summary().endswith('3 x kd')
    assert distiller.distillation.anchor.where == [3]  # not the class map, behind which nothing judges
    assert step(distiller, batch())['distill.logits.loss_kd'] > 0


def test_logits_of_other_classes_or_losses_are_refused(zoo):
    with pytest.raises(ConfigError, match='logits: the student has 3 classes and the teacher 7 classes'):
        distil(zoo, pspnet(classes=3), segformer(classes=7), logit_weight=1.0)
    with pytest.raises(ConfigError, match=r'logits: DIST cannot compare .*compares scores of pictures'):
        distil(zoo, pspnet(), segformer(), logit_weight=1.0, logit_loss='DIST')


# ---- heads ----

def test_the_teachers_heads_rest(zoo):
    teacher = zoo.build(pspnet())
    calls = []
    for head in (teacher.decode_head, teacher.auxiliary_head):
        head.register_forward_hook(lambda module, inputs, output: calls.append(module))
        head.loss = None  # never called
    step(distil(zoo, pspnet(), teacher, teacher_ckpt=None), batch())
    assert not calls
    distiller = distil(zoo, pspnet(), teacher, teacher_ckpt=None, **class_maps(CWD))
    calls.clear()
    step(distiller, batch())
    assert not calls  # it stops at the class maps, inside of the decode head


@pytest.mark.parametrize('student, teacher',
                         [(pspnet, swin), (pspnet, vit), (segformer, pspnet), (swin, segformer), (pspnet, pspnet)])
def test_losses_and_predictions_are_the_stock_segmentors(zoo, student, teacher):
    distiller = distil(zoo, student(), teacher(**OTHER))
    stock = zoo.build(student(), seed=1)
    stock.load_state_dict(distiller.student.state_dict())
    found = []
    for network in (distiller, stock.train()):
        torch.manual_seed(0)  # dropout
        found.append(network(**network.data_preprocessor(batch(), True), mode='loss'))
    ours, theirs = found
    assert set(ours) - set(distilled(ours)) == set(theirs) and len(distilled(ours)) == 8
    assert ('aux.loss_ce' in theirs) == (student is not segformer)
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    # statistics too
    assert all(torch.equal(value, distiller.student.state_dict()[key]) for key, value in stock.state_dict().items())
    raw = batch([(64, 96), (64, 96)])
    for a, b in zip(distiller.eval().test_step(raw), stock.eval().test_step(copy.deepcopy(raw))):
        assert a.pred_sem_seg.data.shape == (1, 64, 96)
        assert torch.equal(a.pred_sem_seg.data, b.pred_sem_seg.data)
        assert torch.equal(a.seg_logits.data, b.seg_logits.data)


@pytest.mark.parametrize('student, teacher', [(pspnet, swin), (mobilenet, vit), (segformer, pspnet)])
def test_steps_of_distillation_bring_the_student_nearer(zoo, student, teacher):
    distiller = distil(zoo, student(), teacher())
    optimizer = torch.optim.AdamW(distiller.parameters(), 3e-3)
    totals = []
    for _ in range(6):
        optimizer.zero_grad()
        totals.append(sum(step(distiller, batch()).values()).item())
        optimizer.step()
    assert totals[-1] < 0.95 * totals[0]
