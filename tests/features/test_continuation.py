"""What a network makes of one of its maps, changed: on real models of the three libraries."""
import pytest
import torch
from torch import nn

from sfkd.distillation.anchor import judged_by
from sfkd.errors import ConfigError
from sfkd.features.continuation import Continuation
from sfkd.features.layouts import as_map, with_maps
from sfkd.openmmlab.building import build_model


def small(zoo, kind):
    of_zoo = kind in ('resnet', 'mixer', 'swin', 'vit')
    network = zoo.build(getattr(zoo, kind)()) if of_zoo else build_model(f'configs/mini/{kind}.py', 'here')
    network.init_weights()
    return network, 64


TAPS = [('resnet', 'backbone.layer4'), ('resnet', 'backbone.layer2'), ('mixer', 'backbone.layers.1'),
        ('vit', 'backbone.layers.1'), ('swin', 'backbone.stages.0'), ('swin', 'backbone.norm3'),
        ('det_gfl_swin', 'neck[1]'), ('det_gfl_swin', 'backbone.stages.1'), ('seg_segformer_swin', 'backbone.stages.1')]


@pytest.mark.parametrize('kind, path', TAPS, ids=str)
def test_its_own_map_gives_what_the_network_gives_and_a_gradient_is_that_of_the_whole(zoo, kind, path):
    network, size = small(zoo, kind)
    network = network.eval().requires_grad_(False).double()
    pictures = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rest = Continuation(network, [path], lambda x: judged_by(network, x))
    with torch.no_grad():
        rest.look(pictures)
        rest.record(pictures)
        whole = tensors(judged_by(network, pictures))
        assert rest.before  # something is left out
        for a, b in zip(tensors(rest(rest.maps)), whole, strict=True):
            assert torch.equal(a, b)
    # by a hook on the whole network, of which nothing is left out
    changed = (rest.maps[0] + 0.3 * torch.randn(rest.maps[0].shape, dtype=torch.float64)).requires_grad_()
    module, index = network.get_submodule(rest.module), rest.indices[0]

    def replace(_, __, output):
        return with_maps(output, {index: changed}, (size, size))
    hook = module.register_forward_hook(replace)
    expected = tensors(judged_by(network, pictures))
    hook.remove()
    found = tensors(rest([changed]))
    assert any(not torch.equal(a, b) for a, b in zip(expected, whole))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(sum(x.square().sum() for x in outputs if x.requires_grad), changed)[0]
                 for outputs in (found, expected)]
    assert gradients[1].abs().sum() > 0
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    assert not any('forward' in vars(module) or module._forward_hooks for module in network.modules())


def tensors(output):
    if torch.is_tensor(output):
        return [output]
    return [x for part in output for x in tensors(part)] if isinstance(output, (tuple, list)) else []


class Overwrites(nn.Module):
    """Adds into the output of a layer before the tap, and runs one layer on both sides of it."""

    def __init__(self):
        super().__init__()
        self.first, self.tap, self.shared = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.runs = []
        for name, module in self.named_children():
            module.register_forward_hook(lambda *_, name=name: self.runs.append(name))

    def forward(self, x):
        y = self.shared(self.first(x))
        y += 1
        return self.shared(self.tap(y).relu_()) + y


def test_layers_that_overwrite_and_that_run_on_both_sides():
    network = Overwrites().eval().requires_grad_(False)
    rest, pictures = Continuation(network, ['tap'], network), torch.randn(2, 3, 8, 8)
    rest.look(pictures)
    assert rest.before == dict(first=1, shared=1) and rest.kept == {'tap', 'shared'}
    rest.record(pictures)
    kept = rest.maps[0].clone()
    for _ in range(2):
        assert torch.equal(rest([kept]), network(pictures))
    assert torch.equal(rest.maps[0], kept)
    before = network.shared(network.first(pictures)) + 1
    torch.testing.assert_close(rest([kept + 1]), network.shared((kept + 1).relu()) + before)


class Skips(nn.Module):
    """A U-Net's way past the tap, and a flag that is no map."""

    def __init__(self):
        super().__init__()
        self.stem, self.down, self.inner, self.up = (nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x):
        early = self.stem(x)
        return dict(scores=self.up(self.inner(self.down(early))) + early, flag=None)


def test_of_what_nothing_behind_the_tap_depends_on_only_the_shape_is_kept():
    network = Skips().eval().requires_grad_(False)
    rest, pictures = Continuation(network, ['inner'], network), torch.randn(2, 3, 8, 8)
    rest.look(pictures)
    assert rest.kept == {'inner', 'stem'}
    pictures = torch.randn(5, 3, 16, 16)
    rest.record(pictures)
    (kept, ), (shape_alone, ) = rest._recorded['stem'], rest._recorded['down']
    assert torch.equal(kept, network.stem(pictures)) and shape_alone.shape == kept.shape
    assert shape_alone.untyped_storage().nbytes() == 4
    assert torch.equal(rest(rest.maps)['scores'], network(pictures)['scores'])


def test_a_module_that_runs_twice_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    twice = nn.Sequential(network, network[0])
    with pytest.raises(ConfigError, match="anchor: '0.0' runs 2 times"):
        Continuation(twice, ['0.0'], twice).look(torch.randn(2, 3, 8, 8))


@pytest.mark.parametrize('output', [
    torch.randn(2, 5, 4, 4), torch.randn(2, 4, 4, 5), torch.randn(2, 17, 5), (torch.randn(2, 16, 5), (4, 4)),
    [torch.randn(2, 5, 4, 4)]], ids=['map', 'channels last', 'tokens', 'tokens and size', 'one of a list'])
def test_a_map_is_put_where_it_was_read(output):
    before = [x.clone() for x in tensors(output)]
    features = torch.randn(2, 5, 4, 4, requires_grad=True)
    changed = with_maps(output, {(): features}, (32, 32))
    assert torch.equal(as_map(changed, (32, 32)), features) and as_map(changed, (32, 32)).requires_grad
    for a, b, c in zip(before, tensors(output), tensors(changed), strict=True):
        assert torch.equal(a, b) and c.shape == a.shape
    if torch.is_tensor(output) and output.dim() == 3:
        assert torch.equal(changed[:, :1], output[:, :1])  # the class token


def test_what_one_tensor_was_twice_stays_one():
    """As Swin's last stage returns it."""
    x = torch.randn(2, 16, 5)
    changed = with_maps((x, (4, 4), x, (4, 4)), {(): torch.zeros(2, 5, 4, 4)}, (32, 32))
    assert changed[0] is changed[2] and not changed[0].any()


def test_several_levels_change_together(zoo):
    network, size = small(zoo, 'det_gfl_swin')
    network.eval().requires_grad_(False)
    pictures = torch.randn(2, 3, size, size)
    rest = Continuation(network, ['neck[2]', 'neck[0]'], network)
    with torch.no_grad():
        rest.look(pictures)
        rest.record(pictures)
        levels = network.neck(network.backbone(pictures))
        others = [torch.randn_like(levels[2]), torch.randn_like(levels[0])]
        found = rest(others)
        expected = network.bbox_head((others[1], levels[1], others[0], *levels[3:]))
    for a, b in zip(tensors(found), tensors(expected), strict=True):
        assert torch.equal(a, b)
