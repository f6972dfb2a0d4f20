"""mmcv's operators without a compiler: values and gradients through mmcv's public wrappers, against loops written
here.
"""
import itertools
import math
import sys

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import sfkd  # noqa: F401  (it gives mmcv its operators)
from sfkd.compat import StandInFinder

mmcv_ops = pytest.importorskip('mmcv.ops')
pytestmark = pytest.mark.skipif(not isinstance(sys.modules['mmcv._ext'].__spec__.loader, StandInFinder),
                                reason='mmcv is compiled here')


def close(found, expected, **kwargs):
    torch.testing.assert_close(found, torch.as_tensor(np.asarray(expected)).to(found), **kwargs)


# Non-maximum suppression.
def boxes_and_scores(count, seed=0, levels=None):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 60, (count, 2))  # some are outside of the picture
    boxes = np.concatenate((corners, corners + rng.uniform(1, 50, (count, 2))), 1)
    scores = rng.uniform(0.01, 1, count) if levels is None else rng.integers(1, levels + 1, count) / levels
    return boxes.astype(np.float32), scores.astype(np.float32)


def iou(a, b, offset=0):
    width, height = (max(0., min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + offset) for i in (0, 1))
    area = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    return width * height / (sum(area) - width * height) if sum(area) > width * height else math.nan


def loop_nms(boxes, scores, threshold, offset=0):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if not any(iou(boxes[i], boxes[j], offset) > threshold for j in kept):
            kept.append(i)
    return kept


def loop_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    left = [[i, float(s)] for i, s in enumerate(scores)]
    for place in range(len(left)):
        if place >= len(left):
            break
        best = max(range(place, len(left)), key=lambda i: left[i][1])  # the first of equals
        left[place], left[best] = left[best], left[place]
        i = place + 1
        while i < len(left):
            overlap = iou(boxes[left[place][0]], boxes[left[i][0]], offset)
            left[i][1] *= {'naive': 0. if overlap >= threshold else 1.,
                           'linear': 1 - overlap if overlap >= threshold else 1.,
                           'gaussian': math.exp(-overlap**2 / sigma)}[method]
            if left[i][1] < min_score:
                last = left.pop()
                if i < len(left):
                    left[i] = last
            else:
                i += 1
    return [i for i, _ in left], [s for _, s in left]


@pytest.mark.parametrize('levels', [None, 3], ids=['', 'equal-scores'])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('count', [0, 1, 60])
def test_nms(count, offset, levels):
    boxes, scores = boxes_and_scores(count, levels=levels)
    expected = loop_nms(boxes.astype(float), scores, 0.4, offset)
    dets, kept = mmcv_ops.nms(torch.tensor(boxes), torch.tensor(scores), 0.4, offset=offset)
    assert kept.tolist() == expected and kept.dtype == torch.long
    close(dets, np.concatenate((boxes, scores[:, None]), 1)[expected])
    dets, kept = mmcv_ops.nms(boxes, scores, 0.4, offset=offset, score_threshold=0.2, max_num=5)
    assert isinstance(kept, np.ndarray) and kept.tolist() == [i for i in expected if scores[i] > 0.2][:5]


def test_nms_takes_half_precision_and_the_threshold_of_mmcv():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 3]], dtype=torch.float32)  # overlap 0.3, in float32 above 0.3
    scores = torch.tensor([0.9, 0.8])
    assert mmcv_ops.nms(boxes, scores, 0.3)[1].tolist() == [0, 1]
    for dtype in (torch.half, torch.bfloat16):
        assert mmcv_ops.nms(boxes, scores.to(dtype), 0.29)[1].tolist() == [0]


@pytest.mark.parametrize('split', [10000, 10])
def test_batched_nms_keeps_classes_apart(split):
    boxes, scores = boxes_and_scores(40, seed=1)
    classes = np.arange(40) % 3
    expected = []
    for c in range(3):
        own = classes == c
        expected += list(np.flatnonzero(own)[loop_nms(boxes[own].astype(float), scores[own], 0.5)])
    dets, kept = mmcv_ops.batched_nms(torch.tensor(boxes), torch.tensor(scores), torch.tensor(classes),
                                      dict(type='nms', iou_threshold=0.5, split_thr=split))
    assert kept.tolist() == sorted(expected, key=lambda i: -scores[i])
    close(dets[:, :4], boxes[kept])
    one = mmcv_ops.batched_nms(torch.zeros(1, 4), torch.ones(1), torch.zeros(1),
                               dict(type='soft_nms', iou_threshold=0.5))
    assert one[1].tolist() == [0]


@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
@pytest.mark.parametrize('levels', [None, 4], ids=['', 'equal-scores'])
@pytest.mark.parametrize('count, offset', [(0, 0), (1, 0), (50, 0), (50, 1)])
def test_soft_nms(count, offset, levels, method):
    boxes, scores = boxes_and_scores(count, seed=2, levels=levels)
    expected, decayed = loop_soft_nms(boxes.astype(float), scores, 0.3, 0.5, 0.05, method, offset)
    dets, kept = mmcv_ops.soft_nms(torch.tensor(boxes), torch.tensor(scores), 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == expected and len(dets) == len(expected) and (count < 50 or len(expected) < 50)
    close(dets, np.concatenate((boxes[expected], np.reshape(decayed, (-1, 1))), 1), rtol=1e-4, atol=1e-6)


def test_nms_match_groups_what_a_box_suppresses():
    boxes, scores = boxes_and_scores(40, seed=3)
    groups = mmcv_ops.nms_match(torch.tensor(np.concatenate((boxes, scores[:, None]), 1)), 0.3)
    assert sorted(torch.cat(groups).tolist()) == list(range(40)) and len(groups) < 40
    left = sorted(range(40), key=lambda i: -scores[i])
    for group in groups:
        expected = [left[0], *(i for i in left[1:] if iou(boxes[left[0]].astype(float), boxes[i].astype(float)) >= 0.3)]
        assert group.tolist() == expected
        left = [i for i in left if i not in expected]
    assert mmcv_ops.nms_match(np.zeros((0, 5), np.float32), 0.5) == []


# Regions of interest. The first has no regular place in the batch, one is outside, one over the border, one very small.
ROIS = [[1, 2, 3, 17, 9], [0, -8, -6, 5, 7], [1, 90, 90, 120, 110], [0, 12, 4, 40, 40], [0, 3.2, 3.1, 3.9, 3.3]]


def bilinear(plane, y, x):
    """RoIAlign's sample: 0 more than one cell outside, else the map goes on with its border."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    return ((1 - dy) * (1 - dx) * plane[top, left] + (1 - dy) * dx * plane[top, right]
            + dy * (1 - dx) * plane[bottom, left]
            + dy * dx * plane[bottom, right])


def loop_roi_align(x, rois, size, scale, ratio, mode, aligned):
    out = []
    for picture, *box in rois.tolist():
        left, top, right, bottom = (v * scale - 0.5 * aligned for v in box)
        height, width = (v if aligned else max(v, 1.) for v in (bottom - top, right - left))
        bins = height / size[0], width / size[1]
        grid = [ratio or math.ceil(b) for b in bins]
        for plane in x[int(picture)]:
            for row, column in itertools.product(range(size[0]), range(size[1])):
                samples = torch.stack([
                    bilinear(plane, top + (row + (i + .5) / grid[0]) * bins[0],
                             left + (column + (j + .5) / grid[1]) * bins[1])
                    for i, j in itertools.product(range(grid[0]), range(grid[1]))])
                out.append(samples.mean() if mode == 'avg' else samples.max())
    return torch.stack(out).view(len(rois), x.shape[1], *size)


@pytest.mark.parametrize('mode', ['avg', 'max'])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(ratio, aligned, mode):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 9, 13, dtype=torch.float64, requires_grad=True)
    # the last has no area: one cell
    rois = torch.tensor(ROIS if aligned else [*ROIS, [1, 5, 5, 5, 4]], dtype=torch.float64)
    layer = mmcv_ops.RoIAlign((3, 2), 0.5, ratio, mode, aligned)
    out, expected = layer(x, rois), loop_roi_align(x, rois, (3, 2), 0.5, ratio, mode, aligned)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(*(torch.autograd.grad(o, x, grad)[0] for o in (out, expected)))
    assert gradcheck(lambda x: layer(x, rois[:2]), x)
    torch.testing.assert_close(layer(x.float(), rois.float()), out.float(), atol=1e-5, rtol=1e-5)
    assert layer(x.half(), rois.half()).dtype == torch.half
    # no area, no samples; or no RoIs
    nothing = rois.new_tensor([[0, 5, 5, 5, 5]]) if aligned and ratio == 0 else rois[:0]
    out = layer(x, nothing)
    assert out.shape == (len(nothing), 2, 3, 2) and not out.any() and not torch.autograd.grad(out.sum(), x)[0].any()
    assert layer(x, rois[:0]).shape == (0, 2, 3, 2)


def loop_roi_pool(x, rois, size, scale):
    out = x.new_zeros(len(rois), x.shape[1], *size)
    for r, (picture, left, top, right, bottom) in enumerate(rois.tolist()):
        starts, sides = (top * scale, left * scale), ((bottom + 1 - top) * scale, (right + 1 - left) * scale)
        if min(sides) <= 0:
            continue
        for cell in itertools.product(range(size[0]), range(size[1])):
            edges = [(max(math.floor(cell[i] * sides[i] / size[i] + starts[i]), 0),
                      math.ceil((cell[i] + 1) * sides[i] / size[i] + starts[i])) for i in (0, 1)]
            window = x[int(picture)][:, edges[0][0]:max(edges[0][1], 0), edges[1][0]:max(edges[1][1], 0)]
            if window.numel():
                out[r, :, cell[0], cell[1]] = window.flatten(1).max(1).values
    return out


def test_roi_pool():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 9, 13, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([*ROIS, [1, 9, 9, 4, 20]], dtype=torch.float64)  # the last has no width
    layer = mmcv_ops.RoIPool((3, 2), 0.5)
    out, expected = layer(x, rois), loop_roi_pool(x, rois, (3, 2), 0.5)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    torch.testing.assert_close(*(torch.autograd.grad(o, x, grad)[0] for o in (out, expected)))
    assert layer(x, rois[:0]).shape == (0, 3, 3, 2)


# Deformable convolutions.
def loop_deform(x, offset, weight, mask=None, bias=None, stride=(1, 1), pad=(0, 0), dilation=(1, 1), groups=1,
                deform_groups=1):
    """Zero outside, bilinear between. offset (N, deform_groups * kh * kw * 2, H', W')."""
    kernel = weight.shape[2:]
    columns = []
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    for n, group, i, j in itertools.product(range(len(x)), range(deform_groups), range(kernel[0]), range(kernel[1])):
        cell = (group * kernel[0] + i) * kernel[1] + j
        planes = padded[n].unflatten(0, (deform_groups, -1))[group]
        for h, w in itertools.product(range(offset.shape[2]), range(offset.shape[3])):
            y = h * stride[0] - pad[0] + i * dilation[0] + offset[n, 2 * cell, h, w] + 1
            z = w * stride[1] - pad[1] + j * dilation[1] + offset[n, 2 * cell + 1, h, w] + 1
            value = planes.new_zeros(len(planes))
            if 0 < y < padded.shape[2] - 1 and 0 < z < padded.shape[3] - 1:
                top, left = int(y.floor()), int(z.floor())
                dy, dz = y - top, z - left
                value = ((1 - dy) * (1 - dz) * planes[:, top, left] + (1 - dy) * dz * planes[:, top, left + 1]
                         + dy * (1 - dz) * planes[:, top + 1, left] + dy * dz * planes[:, top + 1, left + 1])
            columns.append(value if mask is None else value * mask[n, cell, h, w])
    columns = torch.stack(columns).view(len(x), deform_groups, *kernel, *offset.shape[2:], -1)
    columns = columns.permute(0, 1, 6, 2, 3, 4, 5).flatten(1, 2).unflatten(1, (groups, -1))
    out = torch.einsum('ngcijhw,gocij->ngohw', columns, weight.unflatten(0, (groups, -1))).flatten(1, 2)
    return out if bias is None else out + bias[:, None, None]


GEOMETRIES = [dict(stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1, deform_groups=1),
              dict(stride=(2, 1), padding=(2, 1), dilation=(2, 1), groups=2, deform_groups=1),
              dict(stride=(1, 2), padding=(0, 2), dilation=(1, 2), groups=1, deform_groups=2)]


def deform_inputs(geometry, zero_offsets, modulated, dtype=torch.float64):
    torch.manual_seed(0)
    kernel, cls = (3, 2), mmcv_ops.ModulatedDeformConv2d if modulated else mmcv_ops.DeformConv2d
    layer = cls(4, 6, kernel, bias=modulated, **geometry).to(dtype)
    x = torch.randn(2, 4, 7, 6, dtype=dtype)
    plain = torch.nn.functional.conv2d(x, layer.weight, None,
                                       *(geometry[k] for k in ('stride', 'padding', 'dilation', 'groups')))
    cells = geometry['deform_groups'] * kernel[0] * kernel[1]
    offset = torch.randn(2, 2 * cells, *plain.shape[2:], dtype=dtype) * (0 if zero_offsets else 1.5)
    mask = torch.rand(2, cells, *plain.shape[2:], dtype=dtype)
    if modulated:
        torch.nn.init.normal_(layer.bias)
    return layer, [t.requires_grad_() for t in ([x, offset, mask] if modulated else [x, offset])], plain


@pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
@pytest.mark.parametrize('zero_offsets', [False, True], ids=['', 'zero-offsets'])
@pytest.mark.parametrize('geometry', GEOMETRIES)
def test_deform_conv(geometry, zero_offsets, modulated):
    layer, inputs, plain = deform_inputs(geometry, zero_offsets, modulated)
    out = layer(*inputs)
    parameters = dict(layer.named_parameters())
    names = dict(geometry, pad=geometry['padding'])
    del names['padding']
    expected = loop_deform(*inputs[:2], parameters['weight'], inputs[2] if modulated else None, parameters.get('bias'),
                           **names)
    torch.testing.assert_close(out, expected)
    if zero_offsets and not modulated:
        torch.testing.assert_close(out, plain)
    grad = torch.randn_like(out)
    wanted = [*inputs, *parameters.values()]
    for found, reference in zip(*(torch.autograd.grad(o, wanted, grad) for o in (out, expected))):
        torch.testing.assert_close(found, reference)
    if not zero_offsets:
        assert gradcheck(layer, inputs, fast_mode=True)


def test_modulated_deform_conv_reads_offsets_of_a_larger_grid_from_their_start():
    """As DyHead gives them: mmcv's kernels count in the output's grid through each picture's memory."""
    layer, (x, offset, mask), _ = deform_inputs(GEOMETRIES[0], False, True)
    large = [torch.randn(2, planes.shape[1], 9, 8, dtype=x.dtype).requires_grad_() for planes in (offset, mask)]
    read = [planes.reshape(2, -1)[:, :small[0].numel()].reshape(small.shape)
            for planes, small in zip(large, (offset, mask))]
    out = layer(x, *large)
    expected = loop_deform(x, read[0], layer.weight, read[1], layer.bias, pad=(1, 1))
    torch.testing.assert_close(out, expected)
    grad, wanted = torch.randn_like(out), [x, *large, layer.weight, layer.bias]
    for found, reference in zip(*(torch.autograd.grad(o, wanted, grad) for o in (out, expected))):
        torch.testing.assert_close(found, reference)
    with pytest.raises(RuntimeError, match='offset output dims'):
        layer(x, offset[:, :, 1:], mask)


def test_deform_conv_without_some_gradients_and_in_half_precision():
    layer, (x, offset), _ = deform_inputs(GEOMETRIES[0], False, False)
    out = layer(x.detach(), offset.detach())
    weight, = torch.autograd.grad(out.sum(), layer.weight)
    torch.testing.assert_close(weight, torch.autograd.grad(layer(x, offset).sum(), layer.weight)[0])
    layer.weight.requires_grad_(False)
    assert torch.autograd.grad(layer(x, offset.detach()).sum(), x)[0].any()
    pack = mmcv_ops.ModulatedDeformConv2dPack(4, 6, 3, padding=1, bias=False)
    x = x.detach().float()
    exact = pack(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = pack(x)
    out.float().sum().backward()
    assert pack.conv_offset.weight.grad.any() and pack.bias is None
    torch.testing.assert_close(out.float(), exact, rtol=0.02, atol=0.02)


# Multi-scale deformable attention: on a CPU mmcv's module takes its own form, so the Function is asked here.
def test_ms_deform_attn():
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    torch.manual_seed(0)
    shapes = torch.tensor([[4, 3], [2, 2]])
    starts, cells = torch.tensor([0, 12]), 16
    value = torch.randn(2, cells, 2, 3, dtype=torch.float64, requires_grad=True)
    # (N, queries, heads, levels, points, xy)
    places = (torch.rand(2, 5, 2, 2, 3, 2, dtype=torch.float64) * 1.6 - 0.3).requires_grad_()
    weights = torch.rand(2, 5, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    out = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, places, weights, 64)
    expected = []
    for n, query, head in itertools.product(range(2), range(5), range(2)):
        total = value.new_zeros(3)
        for level, point in itertools.product(range(2), range(3)):
            height, width = shapes[level].tolist()
            plane = value[n, starts[level]:starts[level] + height * width, head].view(height, width, 3)
            plane = torch.nn.functional.pad(plane, (0, 0, 1, 1, 1, 1))
            x, y = (places[n, query, head, level, point, i] * side + 0.5 for i, side in ((0, width), (1, height)))
            if 0 < x < width + 1 and 0 < y < height + 1:
                top, left = int(y.floor()), int(x.floor())
                dy, dx = y - top, x - left
                total = total + weights[n, query, head, level, point] * (
                    (1 - dy) * (1 - dx) * plane[top, left] + (1 - dy) * dx * plane[top, left + 1]
                    + dy * (1 - dx) * plane[top + 1, left]
                    + dy * dx * plane[top + 1, left + 1])
        expected.append(total)
    expected = torch.stack(expected).view(2, 5, 6)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for found, reference in zip(*(torch.autograd.grad(o, (value, places, weights), grad) for o in (out, expected))):
        torch.testing.assert_close(found, reference)


# Focal losses.
@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma, alpha', [(2., 0.25), (0., 0.5), (1.5, 0.7)])
@pytest.mark.parametrize('kind', ['sigmoid', 'softmax'])
def test_focal_loss(kind, gamma, alpha, weighted):
    torch.manual_seed(0)
    x = (torch.randn(6, 4, dtype=torch.float64) * 3).requires_grad_()
    target = torch.tensor([0, 3, 1, 1, 2, 0])
    weight = torch.tensor([0.5, 1., 2., 0.], dtype=torch.float64) if weighted else None
    function = getattr(mmcv_ops, f'{kind}_focal_loss')
    own = torch.nn.functional.one_hot(target, 4)
    p = x.sigmoid() if kind == 'sigmoid' else x.softmax(1)
    expected = -own * alpha * (1 - p)**gamma * p.log()
    if kind == 'sigmoid':
        expected = expected - (1 - own) * (1 - alpha) * p**gamma * (1 - p).log()
    expected = expected * (weight[target][:, None] if weighted else 1)
    expected = expected if kind == 'sigmoid' else expected.sum(1)
    for reduction, reduced in (('none', expected), ('sum', expected.sum()), ('mean', expected.sum() / 6)):
        if kind == 'softmax' and reduction == 'none':  # mmcv's own backward cannot
            torch.testing.assert_close(function(x, target, gamma, alpha, weight, reduction), reduced)
            continue
        out = function(x, target, gamma, alpha, weight, reduction)
        torch.testing.assert_close(out, reduced)
        grad = torch.rand_like(out)
        torch.testing.assert_close(*(torch.autograd.grad(o, x, grad, retain_graph=True)[0] for o in (out, reduced)))


def test_focal_loss_of_background_and_of_certain_predictions():
    x = torch.tensor([[200., -200.], [-200., 200.]], requires_grad=True)
    loss = mmcv_ops.sigmoid_focal_loss(x, torch.tensor([2, 0]), 2., 0.25, None, 'none')  # 2 of 2 classes: background
    floor = -math.log(torch.finfo(torch.float32).tiny)
    close(loss, [[0.75 * floor, 0], [0.25 * floor, 0.75 * floor]])
    assert torch.autograd.grad(loss.sum(), x)[0].isfinite().all()
    assert mmcv_ops.sigmoid_focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 2., 0.25, None,
                                       'none').shape == (0, 3)
    probe = torch.randn(2, 3, requires_grad=True)
    loss = mmcv_ops.softmax_focal_loss(probe, torch.tensor([-1, 1]), 2., 0.25, None, 'sum')
    assert not torch.autograd.grad(loss, probe)[0][0].any()


# CARAFE and PSAMask.
def loop_carafe(x, masks, kernel, groups, scale):
    out = []
    n, channels, height, width = x.shape
    half = kernel // 2
    for i, c, y, z in itertools.product(range(n), range(channels), range(height * scale), range(width * scale)):
        total = x.new_zeros(())
        for a, b in itertools.product(range(kernel), repeat=2):
            row, column = y // scale + a - half, z // scale + b - half
            if 0 <= row < height and 0 <= column < width:
                cell = (c // (channels // groups) * kernel + a) * kernel + b
                total = total + x[i, c, row, column] * masks[i, cell, y, z]
        out.append(total)
    return torch.stack(out).view(n, channels, height * scale, width * scale)


@pytest.mark.parametrize('kernel, groups, scale', [(3, 1, 2), (5, 2, 1), (1, 4, 3)])
def test_carafe(kernel, groups, scale):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.rand(2, groups * kernel**2, 3 * scale, 4 * scale, dtype=torch.float64, requires_grad=True)
    out, expected = mmcv_ops.carafe(x, masks, kernel, groups, scale), loop_carafe(x, masks, kernel, groups, scale)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(mmcv_ops.carafe_naive(x, masks, kernel, groups, scale), expected)
    grad = torch.randn_like(out)
    for found, reference in zip(*(torch.autograd.grad(o, (x, masks), grad) for o in (out, expected))):
        torch.testing.assert_close(found, reference)


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
@pytest.mark.parametrize('mask', [(3, 5), (7, 5), (1, 1)])
def test_psa_mask(mask, kind):
    torch.manual_seed(0)
    x = torch.randn(2, mask[0] * mask[1], 4, 3, dtype=torch.float64, requires_grad=True)
    out = mmcv_ops.PSAMask(kind, mask)(x)
    expected = torch.zeros(2, 4, 3, 4, 3, dtype=torch.float64)
    for h, w, a, b in itertools.product(range(4), range(3), range(mask[0]), range(mask[1])):
        row, column = h + a - mask[0] // 2, w + b - mask[1] // 2
        if 0 <= row < 4 and 0 <= column < 3:
            to = (row, column, h, w) if kind == 'collect' else (h, w, row, column)
            expected[(slice(None), *to)] = x[:, a * mask[1] + b, h, w].detach()
    torch.testing.assert_close(out, expected.view(2, 12, 4, 3))
    assert gradcheck(mmcv_ops.PSAMask(kind, mask), x)
