"""Networks of timm, torchvision and transformers: named pairs, and tapped maps against what the network itself says."""
import copy

import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from sfkd import Distillation
from sfkd.errors import ConfigError
from sfkd.features.probe import probe
from sfkd.features.stages import stages
from sfkd.features.taps import Taps

LAYERS = [f'layer{i}' for i in range(1, 5)]


def pictures(*size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def cnn():
    return torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)


def tapped(network, images, paths):
    """The maps at these paths, and what the network returned."""
    with torch.no_grad(), Taps(network, paths).capture(images.shape[2:]) as found:
        output = network.eval()(images)
    return [found[path] for path in paths], output


def paths_with(cnn, network, size):
    """The stages of a network that teach a CNN, after both directions were found the same."""
    ours, theirs = ([(pair.student_path, pair.teacher_path)  # of copies: the teacher becomes frozen
                     for pair in Distillation(*map(copy.deepcopy, networks), input_size=size).pairs]
                    for networks in ((network, cnn), (cnn, network)))
    assert ours == [(s, t) for t, s in theirs] and [t for _, t in ours] == LAYERS
    return [s for s, _ in ours]


def test_a_cnn_of_timm():
    torch.manual_seed(0)
    network = timm.create_model('resnet10t', num_classes=5)
    paths = paths_with(cnn(), network, (64, 96))
    assert paths == LAYERS
    own = timm.create_model('resnet10t', features_only=True, out_indices=(1, 2, 3, 4))
    own.load_state_dict(network.state_dict(), strict=False)
    images = pictures(64, 96)
    for found, expected in zip(tapped(network, images, paths)[0], own.eval()(images)):
        assert torch.equal(found, expected)


@pytest.mark.parametrize('name, extra', [('vit_tiny_patch16_224', 1), ('deit_tiny_distilled_patch16_224', 2)])
def test_a_transformer_of_timm_with_class_tokens(name, extra):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, img_size=(64, 96), embed_dim=32, num_heads=2, depth=8)
    assert network.num_prefix_tokens == extra
    paths = paths_with(cnn(), network, (64, 96))
    assert paths == [f'blocks.{i}' for i in (1, 3, 5, 7)]
    images = pictures(64, 96)
    own = network.eval().forward_intermediates(images, indices=[1, 3, 5, 7], intermediates_only=True)
    for found, expected in zip(tapped(network, images, paths)[0], own):
        assert found.shape == (2, 32, 4, 6) and torch.equal(found, expected)


def test_a_segmentor_of_torchvision():
    torch.manual_seed(0)
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights_backbone=None, num_classes=5)
    paths = paths_with(cnn(), network, (64, 96))
    assert paths == [f'backbone.{i}' for i in (3, 6, 12, 16)]  # the last two of dilated blocks
    images = pictures(64, 96)
    (low, high), output = tapped(network, images, ['backbone.4', paths[-1]])
    own = network.backbone(images)  # an OrderedDict
    assert torch.equal(low, own['low']) and torch.equal(high, own['high'])
    assert output['out'].shape == (2, 5, 64, 96) and high.shape == (2, 960, 4, 6)


@pytest.mark.parametrize('size', [(64, 96), (64, 64), (224, 224)])
def test_a_transformer_with_register_tokens(size):
    torch.manual_seed(0)
    network = transformers.Dinov2WithRegistersForImageClassification(transformers.Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=8, num_attention_heads=2, image_size=224, patch_size=14, num_labels=5))
    images = pictures(*size)
    own = network.eval()(images, output_hidden_states=True).hidden_states  # of the embedding and of 8 blocks
    paths = paths_with(cnn(), network, size)
    assert [path.rpartition('.')[2] for path in paths] == ['1', '3', '5', '7']
    grid = size[0] // 14, size[1] // 14
    for found, tokens in zip(tapped(network, images, paths)[0], own[2::2]):
        assert tokens.shape == (2, 1 + 4 + grid[0] * grid[1], 32)
        assert found.shape == (2, 32, *grid)
        for i, j in ((0, 0), (1, 2), (grid[0] - 1, grid[1] - 1)):
            assert torch.equal(found[:, :, i, j], tokens[:, 5 + i * grid[1] + j])


def test_what_holds_most_of_a_network_is_looked_into():
    """torchvision's ViT: the encoder gives a map itself, but its blocks are the network."""
    torch.manual_seed(0)
    network = torchvision.models.VisionTransformer(64, patch_size=16, num_layers=8, num_heads=2, hidden_dim=32,
                                                   mlp_dim=64, num_classes=5)
    paths = paths_with(cnn(), network, 64)
    assert paths == [f'encoder.layers.encoder_layer_{i}' for i in (1, 3, 5, 7)]
    images = pictures(64, 64)
    found = tapped(network, images, paths)[0][-1]
    # the encoder's norm behind the last block
    expected = network.encoder.ln(found.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(tapped(network, images, ['encoder'])[0][0], expected, rtol=0, atol=1e-6)


def test_a_pool_to_a_fixed_grid_is_no_stage():
    """VGG's gives 7x7 of any picture: 2x2 of stride 32 would stand as a stage of stride 8."""
    features = torchvision.models.vgg.make_layers([8, 'M', 8, 'M', 8, 'M', 8, 'M', 8, 'M'], False)
    network = nn.Sequential(features, nn.AdaptiveAvgPool2d(7))
    assert probe(network, (64, 64)).outputs['1'].grid == (7, 7)
    assert [(stage.path, stage.stride) for stage in stages(network, probe(network, (64, 64)))] == [
        ('0.7', 4), ('0.10', 8), ('0.13', 16), ('0', 32)]


@pytest.mark.parametrize('network', [
    transformers.BertModel(transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                                   intermediate_size=16, vocab_size=9)),
    transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(hidden_size=16, num_hidden_layers=1,
                                                                     num_attention_heads=2, intermediate_size=16)),
    nn.Conv2d(1, 4, 3), nn.LSTM(8, 8)], ids=lambda network: type(network).__name__)
def test_what_takes_no_pictures_says_so(network):
    with pytest.raises(ConfigError) as error:
        Distillation(cnn(), network, input_size=64)
    text = str(error.value)
    assert f"'{type(network).__name__}' does not take pictures of (2, 3, 64, 64)" in text
    assert 'Its forward is (' in text and 'give a module whose forward takes pictures (N, 3, H, W) alone' in text


def test_what_fails_behind_the_first_maps_has_its_own_error():
    network = torchvision.models.resnet18()
    network.fc = nn.Linear(5, 5)
    with pytest.raises(RuntimeError, match='mat1 and mat2'):
        probe(network, (64, 64))


def test_the_base_of_a_model_of_transformers_is_its_trunk():
    torch.manual_seed(0)
    network = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(
        depths=(1, 1, 1, 1), hidden_sizes=(8, 16, 24, 32), decoder_hidden_size=16, num_labels=5))
    found = stages(network, probe(network, (64, 96)))
    assert all(stage.path.startswith('segformer.') for stage in found)  # and not its decode_head's class maps
    assert [(stage.stride, stage.channels) for stage in found] == [(4, 8), (8, 16), (16, 24), (32, 32)]
    images = pictures(64, 96)
    (last, ), output = tapped(network, images, [found[-1].path])
    assert torch.equal(last.flatten(), network.segformer(images).last_hidden_state.flatten())
    assert output.logits.shape == (2, 5, 16, 24)


# ---- kinds of networks, made by hand ----

class StageThenDownsampling(nn.Module):
    """As LeViT has it: blocks, and then what makes the grid of the next stage."""

    def __init__(self, channels, down):
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3)])
        self.down = nn.Conv2d(channels, 2 * channels, 2, stride=2) if down else None

    def forward(self, x):
        for block in self.blocks:
            x = block(x).relu()
        return x if self.down is None else self.down(x)


def test_a_stage_that_ends_with_the_downsampling_to_the_next_is_looked_into():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4),
                            *(StageThenDownsampling(4 * 2 ** i, down=i < 3) for i in range(4)))
    paths = paths_with(cnn(), network, (64, 96))
    assert paths == ['1.blocks.2', '2.blocks.2', '3.blocks.2', '4']
    images = pictures(64, 96)
    found, output = tapped(network, images, paths)
    assert torch.equal(found[-1], output)
    for stage, block, finer in zip((1, 2, 3), found, found[1:]):
        assert torch.equal(network[stage].down(block.relu()), network[:stage + 1](images))
        assert block.shape[2] == 2 * finer.shape[2]


class BlockOfWindows(nn.Module):
    """As DETR's ViTs have it: what goes from block to block has its windows in the batch."""

    def __init__(self, maps):
        super().__init__()
        self.mixed = nn.Conv2d(8, 8, 3, padding=1)
        self.maps = maps

    def forward(self, windows):
        x = windows.unflatten(0, (2, -1)).permute(0, 2, 3, 1, 4).flatten(3)  # (2, 8, h, w)
        x = self.mixed(x) if self.maps else torch.tanh(x)
        return into_windows(x)


def into_windows(x):
    """(N, 8, h, w) with each column a window: (N w, 8, h, 1)."""
    return x.permute(0, 3, 1, 2).flatten(0, 1).unsqueeze(3)


class Windowed(nn.Module):
    def __init__(self, maps):
        super().__init__()
        self.embedding = nn.Conv2d(3, 8, 16, stride=16)
        self.blocks = nn.ModuleList([BlockOfWindows(maps) for _ in range(8)])

    def forward(self, x):
        x = into_windows(self.embedding(x))
        for block in self.blocks:
            x = block(x)
        return x.mean((2, 3))


def test_blocks_that_give_no_map_count_by_their_parts():
    torch.manual_seed(0)
    network = Windowed(maps=True)
    paths = paths_with(cnn(), network, 64)
    assert paths == [f'blocks.{i}.mixed' for i in (1, 3, 5, 7)]
    images = pictures(64, 64)
    found, output = tapped(network, images, paths)
    torch.testing.assert_close(found[-1].mean(2), output.unflatten(0, (2, 4)).transpose(1, 2))
    torch.testing.assert_close(network.blocks[2].mixed(found[0]), tapped(network, images, ['blocks.2.mixed'])[0][0])


def test_the_embedding_alone_is_no_stage():
    network = Windowed(maps=False)
    assert [path for path, output in probe(network, (64, 64)).outputs.items() if not isinstance(output, str)] == [
        'embedding']
    with pytest.raises(ConfigError, match="pairs: 'auto' found no stages"):
        Distillation(cnn(), network, input_size=64)
