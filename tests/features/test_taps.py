"""Taps give the right content in the right place, and leave nothing behind."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sfkd.features.layouts import LayoutError, as_map
from sfkd.features.taps import Taps

WIDE = (64, 96)  # 4x6 patches


def capture(network, images, *paths, **kwargs):
    taps = Taps(network, paths, **kwargs)
    with torch.no_grad(), taps.capture(images.shape[2:]) as found:
        network.eval()(images, mode='tensor')
    return found


def images(size=WIDE, n=2):
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(0))


# ---- layouts: numbers that say where they belong ----

def numbered(n, c, h, w):
    """Entry (n, c, i, j) reads n c i j in digits."""
    n, c, i, j = torch.meshgrid(*map(torch.arange, (n, c, h, w)), indexing='ij')
    return n * 10000 + c * 100 + i * 10 + j


@pytest.mark.parametrize('grid, size', [
    ((4, 4), (64, 64)), ((4, 6), (64, 96)), ((6, 4), (96, 64)), ((7, 7), (224, 224)), ((2, 2), (64, 64)),
    ((5, 7), (160, 211))])
def test_every_layout_of_one_map_reads_the_same(grid, size):
    expected = numbered(2, 20, *grid)
    tokens = expected.flatten(2).transpose(1, 2)
    layouts = dict(nchw=expected, nhwc=expected.permute(0, 2, 3, 1), tokens=tokens, swin=(tokens, grid),
                   listed=[expected], swin_with_downsampled=(tokens[:, :1], (1, 1), tokens, grid))
    for name, output in layouts.items():
        assert torch.equal(as_map(output, size), expected), name
    assert as_map(tokens, size)[1, 12, 1, 0] == 11210


@pytest.mark.parametrize('grid, size', [((4, 4), (64, 64)), ((4, 6), (64, 96)), ((14, 14), (224, 224))])
@pytest.mark.parametrize('extra', (1, 2, 5))
def test_leading_tokens_are_dropped(grid, size, extra):
    expected = numbered(2, 3, *grid)
    tokens = torch.cat([torch.full((2, extra, 3), -1), expected.flatten(2).transpose(1, 2)], 1)
    assert torch.equal(as_map(tokens, size), expected)


@pytest.mark.parametrize('size', [(32, 32), (64, 64), (128, 128), (224, 224), (384, 384), (333, 500), (500, 333),
                                  (160, 211), (256, 320), (480, 640), (800, 1333), (512, 1024), (769, 769), (601, 400),
                                  (427, 640)], ids=str)
def test_tokens_fold_as_their_patches_lie(size):
    """No, one or two tokens in front, patches cut off or padded at the border: the grid is that of the patches."""
    for patch in (4, 7, 8, 12, 14, 16, 32):
        for grid in {tuple(side // patch for side in size), tuple(-(side // -patch) for side in size)}:
            for extra in (0, 1, 2) if min(grid) > 1 else ():
                tokens = torch.empty(2, grid[0] * grid[1] + extra, 3, device='meta')
                assert as_map(tokens, size).shape == (2, 3, *grid), (patch, grid, extra)


@pytest.mark.parametrize('output',
                         [torch.zeros(2, 5), torch.zeros(2, 4, 9, 60), (torch.zeros(2, 5, 3), (2, 3)), None, [],
                                    (torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 109, 3),
                                    torch.zeros(2, 16, 1)])  # the last is a pooled map: 16 channels, not 16 tokens
def test_what_is_no_map_is_refused(output):
    with pytest.raises(LayoutError):
        as_map(output, (64, 64))


@pytest.mark.parametrize('channels', [1, 6, 7, 8])
def test_channels_last_of_a_square_picture_are_told_from_channels_first(channels):
    """7 x 8 is within a column of padding of a square, but 7 x 7 is one."""
    output = torch.randn(2, 7, 7, channels)
    expected = output if channels == 7 else output.permute(0, 3, 1, 2)  # 7x7x7 can be read both ways
    found = as_map(output, (224, 224))
    assert found.shape == (2, channels, 7, 7) and torch.equal(found, expected)


def test_a_map_is_a_view():
    tokens = torch.zeros(2, 17, 3)
    assert as_map(tokens, (64, 64)).untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()


# ---- real networks ----

@pytest.mark.parametrize('kind, extra', [('vit', 1), ('deit', 2)])
def test_tokens_of_vit_and_deit(zoo, kind, extra):
    network = zoo.build(getattr(zoo, kind)(size=WIDE))
    with zoo.recorded(network, ['backbone.layers.2']) as seen:
        found = capture(network, images(), 'backbone.layers.2')['backbone.layers.2']
    tokens, = seen['backbone.layers.2']
    assert tokens.shape == (2, 4 * 6 + extra, 16)
    assert found.shape == (2, 16, 4, 6)
    for i, j in ((0, 0), (1, 5), (3, 2)):
        assert torch.equal(found[:, :, i, j], tokens[:, extra + i * 6 + j])


@pytest.mark.parametrize('kind, path, patch', [
    ('vit', 'backbone.pre_norm', 16), ('deit', 'backbone.drop_after_pos', 16), ('vit', 'backbone.patch_embed', 16),
    ('swin', 'backbone.patch_embed', 4)])
def test_a_changed_patch_moves_only_its_own_pixel_of_the_map(zoo, kind, path, patch):
    network = zoo.build(getattr(zoo, kind)(**({} if kind == 'swin' else dict(size=WIDE))))
    before = images()
    after = before.clone()
    after[:, :, patch:2 * patch, 4 * patch:5 * patch] += 1  # row 1, column 4
    difference = capture(network, after, path)[path] - capture(network, before, path)[path]
    assert difference.abs().amax((0, 1)).nonzero().tolist() == [[1, 4]]


def test_stages_of_swin_are_what_its_out_indices_normalise(zoo):
    config = zoo.swin()
    config['backbone']['out_indices'] = (0, 1, 2, 3)
    network = zoo.build(config).eval()
    with torch.no_grad():
        stock = network.backbone(images())
    found = capture(network, images(), *(f'backbone.stages.{i}' for i in range(4)), 'backbone.norm2')
    assert torch.equal(found['backbone.norm2'], stock[2])
    for i in range(4):
        channels_last = found[f'backbone.stages.{i}'].permute(0, 2, 3, 1)
        torch.testing.assert_close(F.layer_norm(channels_last, channels_last.shape[3:]).permute(0, 3, 1, 2), stock[i],
                                   rtol=0, atol=1e-5)
    assert stock[3].shape == (2, 64, 2, 3)


def test_channels_last_inside_convnext(zoo):
    network = zoo.build(zoo.convnext())
    block = network.backbone.stages[1][0]
    nn.init.uniform_(block.gamma)
    path = 'backbone.stages.1.0'
    with zoo.recorded(network, ['backbone.downsample_layers.1', path, f'{path}.pointwise_conv2']) as seen:
        found = capture(network, images(), f'{path}.pointwise_conv2')[f'{path}.pointwise_conv2']
    assert seen[f'{path}.pointwise_conv2'][0].shape == (2, 8, 12, 16)
    residual = seen[path][0] - seen['backbone.downsample_layers.1'][0]  # (N, C, h, w), of the block's own making
    torch.testing.assert_close(found * block.gamma.view(1, -1, 1, 1), residual, rtol=0, atol=1e-5)


# ---- hooks ----

def test_hooks_live_only_inside_capture(zoo):
    network = zoo.build(zoo.resnet())
    with Taps(network, ['backbone.layer1']).capture((64, 64)):
        assert zoo.hook_count(network) == 1
        network(images((64, 64)))
    assert zoo.hook_count(network) == 0
    capture(network, images(), 'backbone.layer1', stop=True)
    assert zoo.hook_count(network) == 0
    with pytest.raises(ZeroDivisionError), Taps(network, ['backbone.layer1']).capture((64, 64)):
        raise ZeroDivisionError
    with pytest.raises(LayoutError):
        capture(network, images(), 'backbone.layer1', 'neck')
    assert zoo.hook_count(network) == 0


def test_stop_leaves_after_the_deepest_tap(zoo):
    network = zoo.build(zoo.resnet())
    watched = [f'backbone.layer{i}' for i in range(1, 5)] + ['head']
    for stop, ran in ((True, watched[:3]), (False, watched)):
        with zoo.recorded(network, watched) as seen:
            found = capture(network, images(), 'backbone.layer3', 'backbone.layer1', stop=stop)
        assert {path: len(outputs) for path, outputs in seen.items()} == dict.fromkeys(ran, 1)
        assert all(torch.equal(found[path], seen[path][0]) for path in found)


def test_an_overwritten_output_is_noticed(zoo):
    network = zoo.build(zoo.resnet())  # the ReLU after bn1 works in place
    with pytest.raises(RuntimeError, match="'backbone.bn1' was overwritten in place"):
        capture(network, images(), 'backbone.bn1')
    with zoo.recorded(network, ['backbone.relu']) as seen:
        assert torch.equal(capture(network, images(), 'backbone.relu')['backbone.relu'], seen['backbone.relu'][0])


def test_an_overwritten_output_that_is_to_be_copied_is_as_it_was(zoo):
    network, expected = zoo.build(zoo.resnet()), []
    hook = network.backbone.bn1.register_forward_hook(lambda _, __, output: expected.append(output.clone()))
    found = capture(network, images(), 'backbone.bn1', copied=['backbone.bn1'])['backbone.bn1']
    hook.remove()
    assert torch.equal(found, expected[0]) and (found < 0).any()


def test_inference_mode_gives_copies_that_train_and_that_no_later_layer_overwrites(zoo):
    network, expected = zoo.build(zoo.resnet()).eval(), []
    hook = network.backbone.bn1.register_forward_hook(lambda _, __, output: expected.append(output.clone()))
    with torch.inference_mode():
        found = capture(network, images(), 'backbone.bn1')['backbone.bn1']
    hook.remove()
    assert torch.equal(found, expected[0]) and (found < 0).any()  # before the ReLU that works in place
    weight = torch.ones((), requires_grad=True)
    (weight * found).square().sum().backward()  # autograd keeps it, which it refuses for a tensor of inference mode
    assert weight.grad > 0


def test_a_module_that_runs_twice_or_never_is_refused(zoo):
    network = zoo.build(zoo.resnet())
    with pytest.raises(RuntimeError, match="'backbone.layer1.0.relu' ran more than once"):
        capture(network, images(), 'backbone.layer1.0.relu')
    taps = Taps(network, ['head'], ['head'])
    with pytest.raises(RuntimeError, match="'head' of ImageClassifier did not run"), taps.capture((64, 64)):
        network.extract_feat(images((64, 64)))


def test_raw_taps_give_the_output_itself(zoo):
    network = zoo.build(zoo.resnet())
    with zoo.recorded(network, ['head']) as seen:
        found = capture(network, images(), 'backbone.layer4', 'head', raw=['head'])
    assert found['head'] is seen['head'][0] and found['head'].shape == (2, 5)
    assert found['backbone.layer4'].shape == (2, 64, 2, 3)


def test_taps_carry_gradients(zoo):
    network = zoo.build(zoo.mixer())
    with Taps(network, ['backbone.layers.1']).capture((64, 64)) as found:
        network(images((64, 64)))
    found['backbone.layers.1'].square().sum().backward()
    touched = {name.split('.')[2]
               for name, p in network.backbone.layers.named_parameters(prefix='backbone.layers') if p.grad is not None}
    assert touched == {'0', '1'}
