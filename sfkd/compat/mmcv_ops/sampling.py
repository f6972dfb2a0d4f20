"""Operators that sample a map where another map says: deformable convolution and multi-scale deformable attention."""
from __future__ import annotations

import functools

import torch
import torchvision.ops as tv
from torch import Tensor

from .numerics import precise, pull_back


# Deformable convolution. mmcv's offsets are torchvision's: (dy, dx) of each kernel cell, group after group.
def _deform(x, weight, offset, bias=None, mask=None, *, stride, pad, dilation):
    return tv.deform_conv2d(x, offset, weight, bias, stride, pad, dilation, mask)


def _samples_inside(offset: Tensor, size, kernel, stride, pad, dilation) -> Tensor:
    """Which offsets have a gradient, in offset's shape: mmcv's have none where a sample is one cell outside or more.

    torchvision's have one at exactly one cell outside. That is where all samples of a padded border are while the
    offsets are zero, as they are initialised.
    """
    inside = True
    # (N, groups, kernel rows, kernel columns, (y, x), H, W)
    offsets = offset.unflatten(1, (-1, kernel[0], kernel[1], 2))
    for axis in (0, 1):
        taps = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        places = torch.arange(offset.shape[2 + axis], device=offset.device) * stride[axis] - pad[axis]
        shape = [kernel[0], 1, 1, 1] if axis == 0 else [kernel[1], 1, 1]
        grid = taps.view(shape) + (places[:, None] if axis == 0 else places)
        position = offsets[:, :, :, :, axis] + grid
        inside = inside & (position > -1) & (position < size[axis])
    return inside.unsqueeze(4).expand_as(offsets).reshape(offset.shape)


def deform_conv_forward(input, weight, offset, output, columns, ones, kW, kH, dW, dH, padW, padH, dilationW, dilationH,
                        group, deformable_group, im2col_step) -> None:
    """Fill ``output`` (N, C', H', W'); the groups are in the shapes, ``columns`` and ``ones`` are not needed."""
    geometry = dict(stride=(dH, dW), pad=(padH, padW), dilation=(dilationH, dilationW))
    output.copy_(_deform(*precise(input, weight, offset), **geometry))


def deform_conv_backward_input(input, offset, grad_output, grad_input, grad_offset, weight, columns, kW, kH, dW, dH,
                               padW, padH, dilationW, dilationH, group, deformable_group, im2col_step) -> None:
    """Fill ``grad_input`` and ``grad_offset``."""
    geometry = dict(stride=(dH, dW), pad=(padH, padW), dilation=(dilationH, dilationW))
    x, weight, shifts = precise(input, weight, offset)
    to_input, to_offset = pull_back(lambda x, shifts: _deform(x, weight, shifts, **geometry), [x, shifts], grad_output)
    grad_input.copy_(to_input)
    grad_offset.copy_(to_offset * _samples_inside(shifts, x.shape[-2:], (kH, kW), **geometry))


def deform_conv_backward_parameters(input, offset, grad_output, grad_weight, columns, ones, kW, kH, dW, dH, padW, padH,
                                    dilationW, dilationH, group, deformable_group, scale, im2col_step) -> None:
    """Add ``scale`` times the gradient to ``grad_weight``."""
    geometry = dict(stride=(dH, dW), pad=(padH, padW), dilation=(dilationH, dilationW))
    x, shifts = precise(input, offset)
    found, = pull_back(lambda weight: _deform(x, weight, shifts, **geometry),
                       [torch.zeros_like(grad_weight, dtype=x.dtype)], grad_output)
    grad_weight += scale * found.to(grad_weight)


def _as_read(planes: Tensor, grid: torch.Size) -> Tensor:
    """(N, C, h, w) from (N, C, H, W) as mmcv's kernels read offsets and masks of a larger grid than the output's: from
    the start of each picture's memory, as if they were of the output's.

    DyHead gives such ones to the maps of the next level, and its published weights are trained with them.
    """
    if planes.shape[2:] == grid or planes.shape[2:].numel() < grid.numel():
        return planes  # of a smaller grid mmcv reads beyond the end; torchvision's error says so
    return planes.flatten(1)[:, :planes.shape[1] * grid.numel()].unflatten(1, (-1, *grid))


def _put(gradient: Tensor, read: Tensor) -> None:
    """Write a gradient where :func:`_as_read` took the values from; 0 where it took none."""
    gradient.zero_().flatten(1)[:, :read[0].numel()] = read.flatten(1).to(gradient)


def modulated_deform_conv_forward(input, weight, bias, ones, offset, mask, output, columns, kernel_h, kernel_w,
                                  stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group,
                                  with_bias) -> None:
    """Fill ``output`` (N, C', H', W')."""
    geometry = dict(stride=(stride_h, stride_w), pad=(pad_h, pad_w), dilation=(dilation_h, dilation_w))
    x, weight, offset, bias, mask = precise(input, weight, offset, bias, mask)
    offset, mask = (_as_read(planes, output.shape[2:]) for planes in (offset, mask))
    output.copy_(_deform(x, weight, offset, bias if with_bias else None, mask, **geometry))


def modulated_deform_conv_backward(input, weight, bias, ones, offset, mask, columns, grad_input, grad_weight, grad_bias,
                                   grad_offset, grad_mask, grad_output, kernel_h, kernel_w, stride_h, stride_w, pad_h,
                                   pad_w, dilation_h, dilation_w, group, deformable_group, with_bias) -> None:
    """Fill the gradients of all five inputs (of four, without a bias)."""
    geometry = dict(stride=(stride_h, stride_w), pad=(pad_h, pad_w), dilation=(dilation_h, dilation_w))
    x, weight, shifts, mask = precise(input, weight, offset, mask)
    shifts, mask = (_as_read(planes, grad_output.shape[2:]) for planes in (shifts, mask))
    to_input, to_weight, to_offset, to_mask = pull_back(
        lambda x, weight, shifts, mask: _deform(x, weight, shifts, None, mask, **geometry), [x, weight, shifts, mask],
        grad_output)
    grad_input.copy_(to_input)
    grad_weight.copy_(to_weight)
    _put(grad_offset, to_offset * _samples_inside(shifts, x.shape[-2:], (kernel_h, kernel_w), **geometry))
    _put(grad_mask, to_mask)
    if with_bias:
        grad_bias.copy_(grad_output.sum((0, 2, 3), dtype=x.dtype))


# Multi-scale deformable attention: mmcv has a form in plain torch, which its own code takes on a CPU only.
def ms_deform_attn_forward(value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights,
                           im2col_step) -> Tensor:
    """(N, queries, heads * channels) from value (N, cells, heads, channels); see mmcv's
    MultiScaleDeformableAttnFunction.
    """
    return _attend(value_spatial_shapes, *precise(value, sampling_locations, attention_weights)).to(value.dtype)


def ms_deform_attn_backward(value, value_spatial_shapes, value_level_start_index, sampling_locations, attention_weights,
                            grad_output, grad_value, grad_sampling_loc, grad_attn_weight, im2col_step) -> None:
    """Fill the gradients of value, locations and weights."""
    found = pull_back(functools.partial(_attend, value_spatial_shapes),
                      precise(value, sampling_locations, attention_weights), grad_output)
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), found):
        target.copy_(gradient)


def _attend(shapes, value, locations, weights):
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)
