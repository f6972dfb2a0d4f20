"""What is measured within student and teacher, against what a training step computes."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from sfkd.analysis.report import within
from sfkd.analysis.report.examination import (
    cka_table,
    compared_stages,
    gradient_shares,
    pair_maps,
    student_grams,
    teacher_grams,
    terms,
)
from sfkd.analysis.report.pictures import LeftOut, Pictures
from sfkd.analysis.report.subject import Subject
from sfkd.analysis.spectra import gaussian_gain, radial_spectrum
from sfkd.analysis.terms import report_terms


@pytest.fixture(scope='module')
def samples():
    from mmpretrain.structures import DataSample
    return [DataSample().set_gt_label(i % 5) for i in range(8)]


@pytest.fixture(scope='module')
def distiller(zoo):
    return zoo.distil(zoo.mixer(), zoo.resnet(), refine=True).eval()


def batches(samples, size=64):
    torch.manual_seed(0)
    return [([0, 1, 2, 3, 4, 5], torch.randn(6, 3, size, size), samples[:6]),
            ([6, 7], torch.randn(2, 3, size, size), samples[6:])]


def test_a_network_beside_itself_has_a_cka_of_one(zoo, samples):
    """Student and teacher of the same weights: one on the diagonal, the same both ways beside it."""
    distiller = zoo.distil(zoo.resnet(), zoo.resnet()).eval()
    distiller.distillation.teacher.network.load_state_dict(distiller.student.state_dict())
    ours, theirs = compared_stages(distiller)
    own = distiller.distillation.teacher.taps
    table = cka_table(student_grams(distiller, ours, batches(samples)), teacher_grams(distiller, theirs,
                                                                                      batches(samples)))
    assert [stage.path for stage in ours] == [f'backbone.layer{i}' for i in range(1, 5)]
    assert table.diagonal() == pytest.approx(1, abs=1e-6) and table == pytest.approx(table.T, abs=1e-5)
    assert (table[np.triu_indices(4, 1)] < 1 - 1e-4).all()
    assert distiller.distillation.teacher.taps is own  # it goes on teaching what it taught


def test_pictures_of_two_shapes_keep_their_places(distiller, samples):
    """A picture's map is its own, whatever shape the others have and whichever comes first."""
    stages, _ = compared_stages(distiller)
    whole = batches(samples)
    mixed = [(whole[1][0], whole[1][1], whole[1][2]), whole[0]]
    for one, other in zip(student_grams(distiller, stages, whole), student_grams(distiller, stages, mixed)):
        assert torch.allclose(one, other)


def test_maps_are_what_the_losses_compare(distiller, samples):
    _, inputs, of_batch = batches(samples)[0]
    found = pair_maps(distiller, inputs, of_batch)
    losses = distiller(inputs, of_batch, mode='loss')
    reports = {report.name: report for report in report_terms(distiller, inputs, of_batch)}
    assert [maps.pair.name for maps in found] == list(reports)
    for maps in found:
        residual = maps.teacher - maps.student
        assert float(2.5 * residual.square().mean()) == pytest.approx(
            losses[f'distill.{maps.pair.name}.loss_spatial'].item(), rel=1e-4)
        radius, power, count = radial_spectrum(maps.teacher - maps.refined)
        kept = float((power * count * gaussian_gain(radius, maps.sigma)).sum() / (power * count).sum())
        # rings round the frequencies, the loss does not; DS2S begins as the identity
        assert kept == pytest.approx(reports[maps.pair.name].kept[1], abs=0.04) and maps.sigma == 0.5
        assert torch.allclose(maps.refined, maps.student, atol=1e-5)


def test_a_pair_without_a_transform_is_looked_at_in_bands_all_the_same(zoo, samples):
    distiller = zoo.distil(zoo.resnet(), zoo.resnet(), levels=0).train()
    _, inputs, of_batch = batches(samples)[0]
    found = pair_maps(distiller, inputs, of_batch)
    assert [maps.pair.name for maps in found] == [report.name for report in report_terms(distiller, inputs, of_batch)]
    assert found and all(maps.levels in (1, 2) and maps.wavelet == 'haar' for maps in found)


def test_measuring_terms_leaves_the_statistics_as_they_were(zoo, samples):
    distiller = zoo.distil(zoo.resnet(), zoo.resnet()).eval()
    before = {key: value.clone() for key, value in distiller.state_dict().items()}
    found = terms(distiller, torch.randn(4, 3, 64, 64), samples[:4])
    assert all(torch.equal(value, before[key]) for key, value in distiller.state_dict().items())
    assert not distiller.training
    shares = gradient_shares(found)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares)[:3] == ['task', 'layer1 spatial', 'layer1 frequency'] and len(shares) == 9
    assert shares['layer2 spatial'] / shares['task'] == pytest.approx(
        found[1].gradients['spatial'] / found[1].gradients['task'])


def test_a_run_without_a_split_says_so():
    with pytest.raises(LeftOut, match='neither a validation nor a test split'):
        Pictures(Config(dict(val_dataloader=None)), 8)


def test_fewer_pictures_than_cka_needs_leave_the_sections_out():
    subject = SimpleNamespace(run=None, pictures=SimpleNamespace(indices=[0, 1]))
    with pytest.raises(LeftOut, match='2 pictures are too few: CKA needs 4'):
        Subject.within.func(subject)


def test_a_student_that_is_taught_class_scores_alone_has_no_gradients_of_maps():
    subject = SimpleNamespace(within=SimpleNamespace(terms={'before': [], 'after': []}, missing=[]))
    with pytest.raises(LeftOut, match='only class scores are taught'):
        within.gradients(subject)
