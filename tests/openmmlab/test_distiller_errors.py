"""What a distiller refuses, with errors for people: all of them together, each with its key and what to do."""
import pytest
import torch

from sfkd import SFKD, Distiller
from sfkd.errors import ConfigError

ALIGNED = dict(connector=dict(type='Align'), losses=[dict(type='GaussianFrequencyLoss', name='frequency')],
               input_size=64)


def refused(zoo, *fragments, student=None, teacher=None, teacher_ckpt='init', kind=Distiller, **kwargs):
    options = dict(ALIGNED, **kwargs) if kind is Distiller else dict(dict(input_size=64), **kwargs)
    with pytest.raises(ConfigError) as caught:
        kind(student or zoo.mixer(), teacher or zoo.resnet(), teacher_ckpt, **options)
    for fragment in fragments:
        assert fragment in str(caught.value), str(caught.value)
    return caught.value.problems


def pair(student='backbone.layers.1', teacher='backbone.layer2'):
    return dict(student=student, teacher=teacher)


def test_unknown_tap(zoo):
    problem, = refused(zoo, "model.pairs[1].teacher: no module 'backbone.layer22'", "'backbone.layer2'", pairs=[
        pair(), pair(teacher='backbone.layer22')])
    near = problem.partition('nearest: ')[2]
    assert near.startswith("'backbone.layer2'") and near.count("'backbone.layer") == 3


def test_tap_that_is_no_map(zoo):
    refused(zoo, "model.pairs[0].student: 'neck' gives a tuple of a tensor (2, 16), which is no feature map", 'nearest',
            pairs=[pair(student='neck')], logits=[dict(type='KLDivergence')])


def test_too_small_a_grid(zoo):
    refused(zoo, 'model.pairs[0]', "'backbone.layer3' gives 2x2 and 'backbone.layer4' 1x1", '32x32', 'earlier stages',
            'input_size', student=zoo.resnet(), pairs=[pair('backbone.layer3', 'backbone.layer4')], input_size=32)


def test_a_grid_too_small_for_the_wavelet(zoo):
    refused(zoo, 'model.pairs[0]', '2x2', 'too small a grid for any level', student=zoo.resnet(), kind=SFKD,
            wavelet='db2', pairs=[pair('backbone.layer4', 'backbone.layer4')])


def test_logits_of_different_classes(zoo):
    refused(zoo, 'model.logits: the student has 5 classes and the teacher 7 classes', 'set the logit weight to 0',
            teacher=zoo.resnet(classes=7), kind=SFKD, logit_weight=1.0)
    SFKD(zoo.mixer(), zoo.resnet(classes=7), 'init', input_size=64)


def test_several_problems_come_together(zoo):
    problems = refused(zoo, 'model.pairs[0].student', 'model.pairs[0].teacher', 'model.pairs[2].student',
                       'model.logits', teacher=zoo.resnet(classes=7), logits=[dict(type='KLDivergence')],
                       pairs=[pair('backbone.nothing', 'backbone.none'), pair(), pair('neck')])
    assert len(problems) == 4


def test_a_missing_checkpoint_comes_with_the_rest(zoo):
    for ckpt, found in ((None, 'model.teacher_ckpt: None'),
                        ('nowhere.pth', "model.teacher_ckpt: there is no checkpoint 'nowhere.pth'")):
        assert len(refused(zoo, found, 'model.pairs[0].student', teacher_ckpt=ckpt,
                           pairs=[pair('backbone.nothing')])) == 2


def test_no_teacher_checkpoint(zoo):
    refused(zoo, 'model.teacher_ckpt: None', "'init'", teacher_ckpt=None)


def test_no_such_config(zoo):
    refused(zoo, "model.student: there is no config file 'configs/nowhere.py'", 'mmpretrain::',
            student='configs/nowhere.py')
    refused(zoo, "model.teacher: 'mmpretrain::resnet/nowhere.py' cannot be found",
            teacher='mmpretrain::resnet/nowhere.py')


@pytest.mark.parametrize('spec', [3, dict(backbone=1)])
def test_what_is_no_model(zoo, spec):
    refused(zoo, 'model.teacher', 'no config path', teacher=spec)


def test_models_that_cannot_be_built(zoo):
    refused(zoo, "model.student: cannot build 'mmpretrain.NoSuchClassifier'",
            student=dict(type='mmpretrain.NoSuchClassifier'))
    refused(zoo, "model.teacher: cannot build 'mmpretrain.ImageClassifier'", 'depth', teacher=dict(
        type='mmpretrain.ImageClassifier', backbone=dict(type='ResNet', depth=19)))


@pytest.mark.parametrize('options, fragment', [
    (dict(pairs=[dict(student='backbone.layers.1')]), 'teacher'),
    (dict(connector=dict(type='Alline')), 'Alline'),
    (dict(losses=[dict(type='BandMes')]), 'BandMes'),
    (dict(losses=[dict(type='GaussianFrequencyLoss', on='pixels')]), "argument 'on'"),
    (dict(connector=dict(type='WaveletConnector', refine=True), losses=[dict(type='BandMSE')]), 'refined=True'),
], ids=['pair without teacher', 'unknown connector', 'unknown loss', 'bad argument', 'DS2S without a loss'])
def test_mistakes_inside_pairs_are_config_errors(zoo, options, fragment):
    refused(zoo, 'model.', fragment, **dict(dict(pairs=[pair()]), **options))


def test_auto_without_a_stage_in_common(zoo):
    """At 4 pixels every map of a ResNet is 1x1."""
    refused(zoo, 'model.pairs', "'auto'", 'name the pairs', student=zoo.resnet(), input_size=4)


# ---- options of the student ----

@pytest.mark.parametrize('options, message', [
    (dict(head=dict(num_clases=7)), "model.student with model.student_options=.*num_clases"),
    (dict(heads=dict(num_classes=7)), "model.student with model.student_options=.*heads"),
    (dict(neck=dict(type=dict(x=1))), "model.student_options: type=.*_delete_")])
def test_a_wrong_key_of_the_student_options_is_named(zoo, options, message):
    with pytest.raises(ConfigError, match=message):
        SFKD(zoo.mixer(), zoo.resnet(), 'init', student_options=options)


def test_a_built_student_takes_no_options(zoo):
    with pytest.raises(ConfigError, match='model.student_options: the model is built already'):
        SFKD(zoo.build(zoo.mixer()), zoo.resnet(), 'init', student_options=dict(head=dict(num_classes=7)))


# ---- checkpoints ----

def checkpoint(zoo, path, config=None):
    network = zoo.build(config or zoo.resnet())
    if path.suffix == '.pth':
        torch.save(dict(state_dict=network.state_dict()), path)
    else:
        from safetensors.torch import save_file
        save_file(network.state_dict(), path)
    return path


def test_missing_checkpoint(zoo):
    refused(zoo, "model.teacher_ckpt: there is no checkpoint 'nowhere.pth'", teacher_ckpt='nowhere.pth')


@pytest.mark.parametrize('name', ['teacher.pth', 'teacher.safetensors'])
@pytest.mark.parametrize('keep', [0, 0.5, 0.99])
def test_truncated_checkpoint(zoo, tmp_path, name, keep):
    path = checkpoint(zoo, tmp_path / name)
    size = int(path.stat().st_size * keep)
    path.write_bytes(path.read_bytes()[:size])
    refused(zoo, 'model.teacher_ckpt', name, 'damaged', f'({size} bytes', teacher_ckpt=str(path))


@pytest.mark.parametrize('name', ['teacher.pth', 'teacher.safetensors'])
def test_checkpoint_of_another_architecture(zoo, tmp_path, name):
    path = checkpoint(zoo, tmp_path / name, zoo.mixer())
    refused(zoo, 'model.teacher_ckpt', 'is not of this teacher: 100 weights', "'backbone.conv1.weight'",
            '1 of 102 were found', 'Keys in the file look like', 'model.teacher', teacher_ckpt=str(path))


def test_checkpoint_of_another_width_tells_both_shapes(zoo, tmp_path):
    wide = zoo.resnet()
    wide['backbone'].update(base_channels=4, stem_channels=4)
    wide['head']['in_channels'] = 32
    refused(zoo, 'is not of this teacher', 'backbone.conv1.weight', '[4, 3, 7, 7]', '[8, 3, 7, 7]',
            teacher_ckpt=str(checkpoint(zoo, tmp_path / 'a.pth', wide)))
