"""From a checkpoint to an ONNX file, by the command; tests/openmmlab/test_exporting.py has what is in the file."""
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sfkd.checkpoint import load_strictly
from sfkd.openmmlab.building import build_model, initialise

PAIR, ALONE, DETECTOR = ('configs/mini/' + name for name in ('cls_resnet_to_mixer.py', 'cls_mixer.py',
                                                            'det_gfl_resnet8.py'))


def checkpoint_of(config, path, **values):
    model = build_model(config, 'test')
    initialise(model)
    for name, value in values.items():
        model.get_buffer(name).fill_(value)
    torch.save(dict(meta=dict(dataset_meta=dict(classes=tuple('0123456789'))),
                    state_dict={**model.state_dict(), 'distillation.pairs.0.weight': torch.ones(1)}), path)
    return model.eval()


@torch.no_grad()
def test_a_pairs_student(tool, tmp_path):
    onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    model, file = checkpoint_of(ALONE, tmp_path / 'epoch_1.pth'), tmp_path / 'student.onnx'
    text = tool('tools/export_student.py', PAIR, tmp_path / 'epoch_1.pth', file)
    assert 'student.onnx: scores of pictures 64x64' in text and 'differs from PyTorch by' in text
    metadata = {entry.key: json.loads(entry.value) for entry in onnx.load(file).metadata_props}
    assert metadata == dict(mean=[127.5] * 3, std=[64] * 3, to_rgb=True, classes=list('0123456789'))
    pictures = torch.randn(3, 3, 64, 64)
    found, = onnxruntime.InferenceSession(str(file)).run(['scores'], {'images': pictures.numpy()})
    np.testing.assert_allclose(found, model(pictures, mode='tensor').numpy(), rtol=1e-4, atol=1e-5)


def test_in_half_precision_what_float16_cannot_hold_stays(tool, tmp_path):
    """As the variance of activations that no norm comes before."""
    model = checkpoint_of(DETECTOR, tmp_path / 'epoch_1.pth', **{'backbone.bn1.running_var': 1e5})
    file = tmp_path / 'student.safetensors'
    tool('tools/export_student.py', DETECTOR, tmp_path / 'epoch_1.pth', file, '--half')
    weights, before = load_file(file), {key: value.clone() for key, value in model.state_dict().items()}
    assert {key for key, value in weights.items() if value.dtype == torch.float32} == {'backbone.bn1.running_var'}
    load_strictly(model, str(file))  # which refuses infinite ones
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=1e-3, atol=1e-6)


def test_what_cannot_be_is_said_without_a_traceback(tool, tmp_path):
    checkpoint_of(DETECTOR, tmp_path / 'epoch_1.pth')
    text = tool('tools/export_student.py', DETECTOR, tmp_path / 'epoch_1.pth', tmp_path / 'student.onnx', status=2)
    assert '--backbone' in text and 'mmdeploy' in text and 'Traceback' not in text
    text = tool('tools/export_student.py', DETECTOR, tmp_path / 'epoch_1.pth', tmp_path / 'student.pth', '--backbone',
                status=2)
    assert 'are of .onnx files' in text
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']
