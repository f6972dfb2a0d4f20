"""OpenMMLab's models as ONNX files: what onnxruntime makes of them is what the model makes of the same pictures."""
import json

import numpy as np
import pytest
import torch

from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model, initialise
from sfkd.openmmlab.exporting import export_model

onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
SEGMENTOR, DETECTOR = 'configs/mini/seg_fcn_resnet8.py', 'configs/mini/det_gfl_resnet8.py'


def model_of(config):
    torch.manual_seed(0)
    model = build_model(config, 'test')
    initialise(model)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.02 * torch.rand_like(tensor)  # no batch statistics of 0 and 1
    return model.eval()


def run(file, pictures):
    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    return {output.name: found for output, found in zip(session.get_outputs(),
                                                        session.run(None, {'images': pictures.numpy()}))}


def close(found, expected):
    assert found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize('name', ['resnet', pytest.param('swin', marks=pytest.mark.long), 'mixer'])
@torch.no_grad()
def test_a_classifiers_scores_for_three_pictures(zoo, tmp_path, name):
    model, file = model_of(getattr(zoo, name)()), tmp_path / 'student.onnx'
    export_model(model, file, zoo.batch()['inputs'].shape[2:], classes='abcde')
    pictures = torch.randn(3, 3, 64, 64)
    found = run(file, pictures)
    assert found.keys() == {'scores'}
    close(found['scores'], model(pictures, mode='tensor'))


@torch.no_grad()
def test_metadata_say_how_a_loaded_picture_becomes_the_input(zoo, tmp_path):
    model, file = model_of(zoo.resnet(mean=(10., 20., 30.), std=(1., 2., 4.))), tmp_path / 'student.onnx'
    export_model(model, file, 64, classes=['cat', 'dog', 'a', 'b', 'c'])
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert metadata == dict(mean=[10, 20, 30], std=[1, 2, 4], to_rgb=True, classes=['cat', 'dog', 'a', 'b', 'c'])
    loaded = zoo.batch(3)
    pictures = loaded['inputs'].flip(1) if metadata['to_rgb'] else loaded['inputs']
    mean, std = (torch.tensor(metadata[key]).view(3, 1, 1) for key in ('mean', 'std'))
    scores = torch.from_numpy(run(file, (pictures - mean) / std)['scores']).softmax(1)
    for ours, theirs in zip(scores, model.test_step(loaded)):
        close(ours.numpy(), theirs.pred_score)


@torch.no_grad()
def test_a_segmentors_class_map_is_that_of_its_own_inference_at_any_size(tmp_path):
    model, file = model_of(SEGMENTOR), tmp_path / 'student.onnx'
    export_model(model, file, 64, dynamic_size=True)
    for size in ((64, 64), (96, 160)):
        pictures = torch.randn(3, 3, *size)
        scores = run(file, pictures)['scores']
        assert scores.shape == (3, 11, *size)
        close(scores, model.encode_decode(pictures, [dict(img_shape=size)] * 3))


@torch.no_grad()
def test_a_detectors_backbone_and_neck(tmp_path):
    model, file = model_of(DETECTOR), tmp_path / 'student.onnx'
    with pytest.raises(ConfigError, match="'GFL' is a detector.*--backbone.*mmdeploy"):
        export_model(model, file, 64)
    assert not file.exists()
    export_model(model, file, 64, backbone=True)
    pictures = torch.randn(3, 3, 64, 64)
    found = run(file, pictures)
    assert list(found) == ['neck[0]', 'neck[1]', 'neck[2]']
    for ours, theirs in zip(found.values(), model.extract_feat(pictures)):
        close(ours, theirs)


@torch.no_grad()
def test_all_stages_of_a_backbone_that_gives_its_last_alone(zoo, tmp_path):
    model, file = model_of(zoo.swin()), tmp_path / 'student.onnx'
    export_model(model, file, 64, backbone=True)
    pictures = torch.randn(3, 3, 64, 64)
    found = run(file, pictures)
    assert [x.shape for x in found.values()] == [(3, 8, 16, 16), (3, 16, 8, 8), (3, 32, 4, 4), (3, 64, 2, 2)]
    close(list(found.values())[-1], model.backbone(pictures)[-1])


def test_the_model_stays_as_it_was(zoo, tmp_path):
    model = model_of(zoo.swin()).train()
    names = [set(vars(module)) for module in model.modules()]
    with pytest.raises(ConfigError, match='must end in .onnx'):
        export_model(model, tmp_path / 'student.pb', 64)
    assert [set(vars(module)) for module in model.modules()] == names
    assert all(module.training for module in model.modules() if module is not model.data_preprocessor)


STOCK = {
    'mmpretrain::resnet/resnet18_8xb32_in1k.py': 64,
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py': 224,
    'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py': 64,
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py': 64,
    'mmpretrain::vision_transformer/vit-base-p16_64xb64_in1k.py': 224,
    'mmpretrain::mlp_mixer/mlp-mixer-base-p16_64xb64_in1k.py': 224,
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': 64,
    'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py': 64,
    'mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py': 64,
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py': 64,
}


@pytest.mark.long
@pytest.mark.parametrize('dynamic_size', [False, True])
@pytest.mark.parametrize('config', STOCK)
def test_stock_models(tmp_path, config, dynamic_size):
    """What it prints is in docs/export.md."""
    torch.manual_seed(0)
    model, file = build_model(config, 'test'), tmp_path / 'stock.onnx'
    try:
        print(export_model(model, file, STOCK[config], backbone='mmdet' in config, dynamic_size=dynamic_size))
    except ConfigError as error:
        print(error)
        assert dynamic_size and not file.exists()
