"""Networks by name: what they expect is what their libraries say."""
import json
import sys

import pytest
import torch

from sfkd.errors import ConfigError
from sfkd.labelfree.networks import IMAGENET, network_of

timm = pytest.importorskip('timm')


def test_timms_normalisation_and_names():
    found = network_of('timm:vit_tiny_patch16_224', '--teacher', 224)
    assert found.mean == found.std == (0.5, 0.5, 0.5) and found.size is None
    assert found.call == "timm.create_model('vit_tiny_patch16_224')"
    assert list(found.module.state_dict()) == list(timm.create_model('vit_tiny_patch16_224').state_dict())
    assert network_of('timm:resnet10t', '--teacher', 64).mean == IMAGENET[0]


def test_one_size_alone():
    """A student is built for the pictures, and a teacher gets them as it has learned to see them."""
    student = network_of('timm:vit_tiny_patch16_224', '--student', 64)
    assert student.module.pos_embed.shape[1] == 1 + 16
    assert student.call == "timm.create_model('vit_tiny_patch16_224', img_size=64)"
    teacher = network_of('timm:vit_tiny_patch16_224', '--teacher', 64, resized=True)
    assert teacher.size == (224, 224) and teacher.module.pos_embed.shape[1] == 1 + 196


def test_torchvision():
    import torchvision
    found = network_of('torchvision:squeezenet1_1', '--student', 64)
    assert (found.mean, found.std, found.size) == (*IMAGENET, None)
    assert list(found.module.state_dict()) == list(torchvision.models.squeezenet1_1().state_dict())


def test_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip('transformers')
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type='basic')
    stock = transformers.ResNetModel(config)
    stock.save_pretrained(tmp_path)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(dict(
        image_processor_type='ConvNextImageProcessor', image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])))
    found = network_of(f'transformers:{tmp_path}', '--teacher', 64)
    assert (found.mean, found.std, found.size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), None)
    assert all(torch.equal(value, stock.state_dict()[key]) for key, value in found.module.state_dict().items())


@pytest.mark.parametrize('said, mean, std', [
    (dict(do_normalize=False), (0, 0, 0), (1, 1, 1)), (dict(do_rescale=False, image_mean=51, image_std=[255, 255, 51]),
                                                       (0.2, 0.2, 0.2), (1, 1, 0.2)), ({}, *IMAGENET)], ids=str)
def test_what_the_image_processor_of_transformers_says(tmp_path, said, mean, std):
    """Of a folder, and of a network that a function makes of it."""
    transformers = pytest.importorskip('transformers')
    transformers.ResNetModel(transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type='basic')).save_pretrained(tmp_path / 'net')
    processor = tmp_path / 'net/preprocessor_config.json'
    (tmp_path / 'nets.py').write_text(
        'from torch import nn\nimport transformers\n'
        'class Outer(nn.Module):\n    def __init__(self):\n        super().__init__()\n'
        f'        self.inside = transformers.AutoModel.from_pretrained({str(tmp_path / "net")!r})\n'
        '    def forward(self, x):\n        return self.inside(x).pooler_output\n')
    for name in f'transformers:{tmp_path}/net', f'{tmp_path}/nets.py:Outer':
        processor.write_text(json.dumps(dict(image_processor_type='ConvNextImageProcessor', **said)))
        found = network_of(name, '--teacher', 64)
        assert found.mean == pytest.approx(mean) and found.std == pytest.approx(std)
        processor.write_text(json.dumps(dict(image_processor_type='MobileViTImageProcessor',
                                             do_flip_channel_order=True)))
        with pytest.raises(ConfigError, match='--teacher: .* takes pictures as BGR; give file.py:function'):
            network_of(name, '--teacher', 64)


NETS = '''
from torch import nn
def small():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    network.pretrained_cfg = dict(mean=(0.1, 0.1, 0.1), std=(0.2, 0.2, 0.2))
    return network
def nothing():
    return 3
def broken():
    raise KeyError('weights')
def texts():
    return nn.Embedding(3, 4)
'''


@pytest.fixture
def nets(tmp_path):
    (tmp_path / 'nets.py').write_text(NETS)
    return f'{tmp_path}/nets.py'


def test_a_function_in_a_file(nets):
    found = network_of(f'{nets}:small', '--student', 64)
    assert (found.mean, found.std, found.size) == ((0.1, ) * 3, (0.2, ) * 3, None)


def test_a_file_imports_what_lies_beside_it_and_has_dataclasses(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'path', sys.path.copy())
    (tmp_path / 'blocks_beside.py').write_text(NETS)
    (tmp_path / 'later_beside.py').write_text('WIDTH = 5')
    (tmp_path / 'made.py').write_text('''
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
import blocks_beside
@dataclass
class Options:
    bias: bool
    kind: ClassVar[str] = 'made'
def network():
    from later_beside import WIDTH
    found = blocks_beside.small()
    found.append(blocks_beside.nn.Conv2d(4, WIDTH, 1, bias=Options(False).bias))
    return found
''')
    found = network_of(f'{tmp_path}/made.py:network', '--student', 64)
    assert {key: tuple(value.shape) for key, value in found.module.state_dict().items()} == {
        '0.weight': (4, 3, 3, 3), '0.bias': (4, ), '1.weight': (5, 4, 1, 1)}


def test_a_function_that_loads_pickled_code_is_told_that_the_command_forbids_it(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')  # as prepare_process does
    torch.save(torch.nn.Conv2d(3, 4, 3), tmp_path / 'whole.pth')
    (tmp_path / 'nets.py').write_text(
        f'import torch\ndef whole():\n    return torch.load({str(tmp_path / "whole.pth")!r}, weights_only=False)')
    with pytest.raises(ConfigError, match=r"--student: cannot build '.*nets.py:whole': .*\(torch.nn.*Conv2d\).*"
                                          r'TORCH_FORCE_WEIGHTS_ONLY_LOAD forbids .* convert it once: python -c'):
        network_of(f'{tmp_path}/nets.py:whole', '--student', 64)


@pytest.mark.parametrize('name, message', [
    ('timm:resnet81', "--student: timm has no model 'resnet81'; nearest: .*'resnet18'"),
    ('torchvision:resnet81', "torchvision has no classifier 'resnet81'; nearest: .*'resnet18'"),
    ('transformers:/nowhere/at/all', "cannot build 'transformers:/nowhere/at/all'"),
    ('resnet18', "'resnet18' is no name of a network; give timm:NAME, .*file.py:function"),
    ('keras:resnet18', 'is no name of a network'), ('timm:', 'is no name of a network'),
    ('nowhere.py:f', "there is no file 'nowhere.py'"), ('NETS:smal', "has no function 'smal'; nearest: 'small'"),
    ('NETS:nothing', 'returns a int, and must return a torch.nn.Module'),
    ('NETS:broken', "cannot build '.*' .KeyError: 'weights'"), ('NETS:texts', 'does not run on pictures alone')])
def test_what_is_no_network(nets, name, message):
    with pytest.raises(ConfigError, match=message):
        network_of(name.replace('NETS', nets), '--student', 64)


@pytest.mark.parametrize('library', ['timm', 'torchvision.models', 'transformers'])
def test_a_library_that_is_missing(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    package = library.partition('.')[0]
    with pytest.raises(ConfigError, match=f'--teacher: {package} cannot be imported .*; pip install {package}'):
        network_of(f'{package}:resnet18', '--teacher', 64)
