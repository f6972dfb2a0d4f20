"""Plain networks, leaving: as ONNX files, and under the names that their library knows."""
import copy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sfkd import Distillation
from sfkd.errors import ConfigError
from sfkd.export import export_onnx

SIZE = 64


class Small(nn.Module):
    """A convolution and scores; takes pictures of any size, and in training answers otherwise."""

    def __init__(self):
        super().__init__()
        self.conv, self.drop, self.head = nn.Conv2d(3, 4, 3, stride=2), nn.Dropout(0.5), nn.Linear(4, 5)

    def forward(self, images):
        maps = self.conv(images).relu()
        return dict(maps=maps, scores=self.head(self.drop(maps.mean((2, 3)))))


class CountsPictures(Small):
    """Its number of pictures is a constant where it is exported."""

    def forward(self, images):
        return super().forward(images)['scores'] / int(images.shape[0] / 1.0)


class Masked(Small):
    """Scores of classes that cannot be, a truth, and nothing."""

    def forward(self, images):
        scores = super().forward(images)['scores']
        return dict(scores=scores.masked_fill(scores < scores.mean(1, keepdim=True), -torch.inf), high=scores > 0,
                    aux=None)


@pytest.fixture(scope='module')
def runtime():
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    return pytest.importorskip('onnxruntime')


def run(runtime, file, pictures):
    session = runtime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    return session.run(None, {'images': pictures.numpy()})


@torch.no_grad()
def test_any_module_any_batch_any_size(runtime, tmp_path):
    model = Small()
    weights, file = copy.deepcopy(model.state_dict()), tmp_path / 'small.onnx'
    difference = export_onnx(torch.compile(model, backend='eager'), file, (SIZE, 32), dynamic_size=True,
                             outputs=['maps', 'scores'])
    assert 0 <= difference < 1e-5 and [path.name for path in tmp_path.iterdir()] == ['small.onnx']
    assert model.training and all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    for shape in ((3, 3, SIZE, 32), (5, 3, 96, 128)):
        pictures = torch.randn(shape)
        for found, expected in zip(run(runtime, file, pictures), model.eval()(pictures).values()):
            np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)


@torch.no_grad()
def test_masked_scores_truths_and_what_is_none(runtime, tmp_path):
    model, file = Masked().eval(), tmp_path / 'masked.onnx'
    assert 0 <= export_onnx(model, file, SIZE, outputs=['scores', 'high']) < 1e-5
    pictures = torch.randn(4, 3, SIZE, SIZE)
    (scores, high), expected = run(runtime, file, pictures), model(pictures)
    assert np.isinf(scores).any() and (high == expected['high'].numpy()).all()
    np.testing.assert_allclose(scores, expected['scores'].numpy(), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match=r"outputs: 3 names, \['a', 'b', 'c'\], for the 2 that this network gives"):
        export_onnx(model, file, SIZE, outputs=['a', 'b', 'c'])


@torch.no_grad()
def test_a_distilled_timm_student_leaves_under_timms_names(runtime, tmp_path):
    timm = pytest.importorskip('timm')
    make = lambda: timm.create_model('mobilenetv3_small_050', num_classes=5)
    student, teacher = make(), timm.create_model('resnet18', num_classes=5)
    distillation = Distillation(student, teacher, input_size=SIZE)
    optimizer = torch.optim.AdamW([*student.parameters(), *distillation.parameters()], lr=1e-3)
    before = copy.deepcopy(student.state_dict())
    for _ in range(2):
        images, labels = torch.randn(4, 3, SIZE, SIZE), torch.arange(4)
        with torch.enable_grad():
            with distillation(images) as taught:
                loss = F.cross_entropy(student(images), labels)
            optimizer.zero_grad()
            (loss + taught.loss).backward()
        optimizer.step()
    assert any(not torch.equal(value, before[key]) for key, value in student.state_dict().items())
    torch.save(student.state_dict(), tmp_path / 'student.pth')
    fresh = make()
    fresh.load_state_dict(torch.load(tmp_path / 'student.pth', weights_only=True), strict=True)
    export_onnx(student, tmp_path / 'student.onnx', SIZE, outputs=['scores'])
    pictures = torch.randn(3, 3, SIZE, SIZE)
    expected = fresh.eval()(pictures)
    torch.testing.assert_close(student.eval()(pictures), expected)
    found, = run(runtime, tmp_path / 'student.onnx', pictures)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_file_that_differs_is_not_kept(runtime, tmp_path, monkeypatch):
    (tmp_path / 'small.onnx').write_text('the one before')
    stock = torch.onnx.export

    def broken(model, *args, **kwargs):
        wrong = copy.deepcopy(model)
        wrong.head.weight.data[0, 0] += 0.1
        return stock(wrong, *args, **kwargs)
    monkeypatch.setattr(torch.onnx, 'export', broken)
    with pytest.raises(ConfigError, match=r"pictures of 64x64: the exported 'scores' of 1 pictures differs .* 1e-04"):
        export_onnx(Small(), tmp_path / 'small.onnx', SIZE, outputs=['maps', 'scores'])
    assert [path.read_text() for path in tmp_path.iterdir()] == ['the one before']


def test_a_network_that_cannot_have_another_batch_or_size_says_so(runtime, tmp_path):
    with pytest.raises(ConfigError, match='64x64'):
        export_onnx(CountsPictures(), tmp_path / 'small.onnx', SIZE)
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2))
    with pytest.raises(ConfigError, match='any height and width.*leave out --dynamic-size'):
        export_onnx(fixed, tmp_path / 'small.onnx', SIZE, dynamic_size=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('package', ['onnx', 'onnxruntime', 'onnxscript'])
def test_a_missing_package_is_named_with_the_command(monkeypatch, tmp_path, package):
    for other in {'onnx', 'onnxruntime', 'onnxscript'}:
        pytest.importorskip(other)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"'{package}' is not installed; pip install onnx onnxruntime onnxscript"):
        export_onnx(Small(), tmp_path / 'small.onnx', SIZE)


def test_importing_it_asks_for_none_of_them():
    import subprocess
    code = "import sys, sfkd.export; sys.exit(bool({'onnx', 'onnxruntime', 'onnxscript'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
