"""Which stage goes with which, and a dry run that leaves no trace."""
import random

import numpy as np
import pytest
import torch

from sfkd.features.matching import pair_stages
from sfkd.features.probe import probe
from sfkd.features.stages import stages

LAYERS = [f'backbone.layer{i}' for i in range(1, 5)]
BLOCKS = [f'backbone.stages.{i}' for i in range(3)] + ['backbone.norm3']


def stages_of(zoo, config, size=(64, 64)):
    network = zoo.build(config)
    return stages(network, probe(network, size))


def paths(zoo, student, teacher):
    return [(s.path, t.path) for s, t in pair_stages(stages_of(zoo, student), stages_of(zoo, teacher))]


def test_hierarchical_networks_pair_by_stride(zoo):
    assert paths(zoo, zoo.resnet(), zoo.swin()) == list(zip(LAYERS, BLOCKS))
    assert paths(zoo, zoo.swin(), zoo.resnet()) == list(zip(BLOCKS, LAYERS))


def test_a_stage_tells_its_shape(zoo):
    found = stages_of(zoo, zoo.resnet(), (64, 96))
    shapes = [(s.channels, s.grid, s.stride) for s in found]
    assert shapes == [(8, (16, 24), 4), (16, (8, 12), 8), (32, (4, 6), 16), (64, (2, 3), 32)]
    assert [(s.channels, s.grid, s.stride) for s in stages_of(zoo, zoo.swin(), (64, 96))] == [
        (8, (16, 24), 4), (16, (8, 12), 8), (32, (4, 6), 16), (64, (2, 3), 32)]


def test_stages_missing_on_one_side_are_left_out(zoo):
    config = zoo.resnet()
    config['backbone'].update(strides=(1, 2, 2, 1))  # ends at stride 16
    assert paths(zoo, config, zoo.swin()) == [(LAYERS[0], BLOCKS[0]), (LAYERS[1], BLOCKS[1]), (LAYERS[3], BLOCKS[2])]


@pytest.mark.parametrize('strides, dilations', [((1, 2, 1, 1), (1, 1, 2, 4)), ((1, 2, 2, 1), (1, 1, 1, 2))])
def test_a_dilated_stage_counts_as_if_it_strode(zoo, strides, dilations):
    config = zoo.resnet()
    config['backbone'].update(strides=strides, dilations=dilations)
    found = stages_of(zoo, config)
    assert [s.path for s in found] == LAYERS and [s.scale for s in found] == [4, 8, 16, 32]
    assert found[-1].stride == (8 if dilations[2] > 1 else 16)
    assert paths(zoo, config, zoo.swin()) == list(zip(LAYERS, BLOCKS))
    assert paths(zoo, zoo.swin(), config) == list(zip(BLOCKS, LAYERS))
    assert paths(zoo, config, config) == list(zip(LAYERS, LAYERS))
    assert paths(zoo, config, zoo.vit(layers=8)) == list(zip(LAYERS, [f'backbone.layers.{i}' for i in (1, 3, 5, 7)]))


def test_kernels_that_are_dilated_in_every_stage_are_no_dilated_stages(zoo):
    config = dict(zoo.resnet(),
                  backbone=dict(type='VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, ffn_ratios=[2] * 4)))
    assert [(s.stride, s.scale) for s in stages_of(zoo, config)] == [(4, 4), (8, 8), (16, 16), (32, 32)]


@pytest.mark.parametrize('layers, blocks', [(12, (2, 5, 8, 11)), (6, (1, 2, 4, 5)), (4, (0, 1, 2, 3)), (3, (0, 1, 2))])
@pytest.mark.parametrize('kind', ('mixer', 'vit'))
def test_an_isotropic_network_is_cut_into_runs_of_blocks(zoo, kind, layers, blocks):
    found = stages_of(zoo, getattr(zoo, kind)(layers=layers))
    assert [s.path for s in found] == [f'backbone.layers.{i}' for i in blocks]
    assert {(s.channels, s.grid, s.stride) for s in found} == {(16, (4, 4), 16)}


def test_isotropic_networks_pair_by_depth(zoo):
    eight = [f'backbone.layers.{i}' for i in (1, 3, 5, 7)]
    twelve = [f'backbone.layers.{i}' for i in (2, 5, 8, 11)]
    assert paths(zoo, zoo.mixer(layers=8), zoo.resnet()) == list(zip(eight, LAYERS))
    assert paths(zoo, zoo.resnet(), zoo.mixer(layers=8)) == list(zip(LAYERS, eight))
    assert paths(zoo, zoo.mixer(layers=8), zoo.vit(layers=12)) == list(zip(eight, twelve))
    three = [f'backbone.layers.{i}' for i in range(3)]  # thirds of four stages end at 4/3, 8/3 and 4
    assert paths(zoo, zoo.mixer(layers=3), zoo.resnet()) == list(zip(three, LAYERS[1:]))


def random_states():
    kind, keys, *rest = np.random.get_state()
    return torch.get_rng_state().tolist(), keys.tolist(), rest, random.getstate()


@pytest.mark.parametrize('learns', [False, True])
def test_probe_leaves_no_trace(zoo, learns):
    config = zoo.resnet()
    config['backbone']['drop_path_rate'] = 0.5  # draws random numbers in train mode
    network = zoo.build(config).train()
    network.backbone.layer2.eval()  # a mixture, as with frozen stages
    modes = [m.training for m in network.modules()]
    state = {key: value.clone() for key, value in network.state_dict().items()}
    randomness = random_states()
    probe(network, (64, 64), head=True, learns=learns)
    assert [m.training for m in network.modules()] == modes and not all(modes)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert random_states() == randomness
    assert zoo.hook_count(network) == 0
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize('learns', [False, True])
def test_layers_that_learn_from_every_pass_learn_nothing_from_the_dry_run(learns):
    convolution = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 8, 3))
    network = torch.nn.Sequential(convolution, torch.ao.quantization.default_fake_quant(), torch.nn.Conv2d(8, 8, 3))
    network.train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    assert probe(network, (16, 16), learns=learns).outputs.keys() > {'0', '1', '2'}
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    network(torch.randn(2, 3, 16, 16))
    changed = [key for key, value in network.state_dict().items() if not torch.equal(value, state[key])]
    assert any(key.startswith('0.parametrizations') for key in changed) and '1.scale' in changed


def test_probe_runs_the_head_only_on_request(zoo):
    network = zoo.build(zoo.resnet())
    assert 'head' not in probe(network, (64, 64)).outputs
    found = probe(network, (64, 64), head=True)
    assert found.shapes['head'] == (2, 5)
    assert found.outputs['head'] == 'a tensor (2, 5)'  # no map
