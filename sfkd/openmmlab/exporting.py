"""What of an OpenMMLab model an ONNX file holds: a function of normalised pictures alone."""
from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..distillation.assembly import Size, as_size
from ..errors import ConfigError
from ..export import export_onnx
from ..features.probe import probe, random_pictures
from ..features.stages import stages
from ..features.taps import Taps
from .building import normalisation_of
from .distiller import image_size_of

DEPLOYMENT = 'for boxes see OpenMMLab deployment, https://github.com/open-mmlab/mmdeploy'


class Scores(nn.Module):
    """A classifier's class scores before any softmax, (N, classes)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.outputs = model, ['scores']

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images, mode='tensor')


class ClassMaps(Scores):
    """A segmentor's class scores at every pixel of the pictures, (N, classes, H, W): mmseg's own inference on whole
    pictures, up to the choice of a class.
    """

    def forward(self, images: Tensor) -> Tensor:
        return self.model.encode_decode(images, [dict(img_shape=images.shape[2:])])


class Levels(nn.Module):
    """The maps of a detector's neck, or of its backbone where it has no neck, each (N, C, h, w)."""

    def __init__(self, model: nn.Module, size: Size):
        super().__init__()
        self.model, part = model, 'neck' if getattr(model, 'neck', None) is not None else 'backbone'
        with torch.no_grad():
            count = len(model.eval().extract_feat(random_pictures(model, size)))
        self.outputs = [f'{part}[{i}]' for i in range(count)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model.extract_feat(images))


class Stages(nn.Module):
    """The ends of a backbone's stages, each (N, C, h, w), whatever its ``out_indices`` says."""

    def __init__(self, model: nn.Module, size: Size):
        super().__init__()
        self.backbone = model.backbone
        self.taps = Taps.on(self, stages(model, probe(model, size)))
        self.outputs = list(self.taps.paths)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        with self.taps.capture(images.shape[2:]) as features:
            self.backbone(images)
        return tuple(features[path] for path in self.outputs)


def export_model(model: nn.Module, path: str | Path, input_size: int | Size | None = None, *, backbone: bool = False,
                 dynamic_size: bool = False, classes: Sequence[str] = ()) -> str:
    """Write an OpenMMLab model as an ONNX file that takes pictures as its data preprocessor gives them; mean, std,
    to_rgb and classes are in the file's metadata.

    Args:
        model: a classifier or segmentor, or with ``backbone`` a detector too.
        path, input_size, dynamic_size: see :func:`sfkd.export.export_onnx`; without a size the segmentor's training
            size, the backbone's ``img_size``, or 224.
        backbone: write the ends of the backbone's stages; of a detector, what its neck gives.
        classes: their names.

    Returns:
        str: what was written, for a person.

    Raises:
        ConfigError: as :func:`sfkd.export.export_onnx`, and for a model whose results no such file can hold.
    """
    size = as_size(input_size or getattr(getattr(model, 'data_preprocessor', None), 'size', None)
                   or image_size_of(model) or 224)
    model = copy.deepcopy(model)
    for module in model.modules():
        if hasattr(module, 'window_reverse'):
            module.window_reverse = _window_reverse
    network = _function_of(model, backbone, size)
    normalisation = normalisation_of(model, always=True)
    metadata = dict(mean=normalisation.mean.tolist(), std=normalisation.std.tolist(), to_rgb=normalisation.reversed)
    difference = export_onnx(network, path, size, dynamic_size=dynamic_size, outputs=network.outputs,
                             metadata=metadata | (dict(classes=list(classes)) if classes else {}))
    return (f"{path}: {', '.join(network.outputs)} of pictures "
            f"{'in steps of 32 from ' * dynamic_size}{size[0]}x{size[1]}, normalised with {metadata}; differs from "
            f'PyTorch by {difference:.1e} of the largest value')


def _function_of(model: nn.Module, backbone: bool, size: Size) -> nn.Module:
    """The part of a model that is a function of pictures, with the names of its ``outputs``."""
    kinds = {base.__name__ for base in type(model).__mro__}
    if 'BaseDetector' in kinds:
        if backbone:
            return Levels(model, size)
        raise ConfigError(f"'{type(model).__name__}' is a detector, of which --backbone exports the backbone and neck; "
                          f'{DEPLOYMENT}')
    if backbone:
        return Stages(model, size)
    if 'BaseClassifier' in kinds:
        return Scores(model)
    if 'BaseSegmentor' in kinds:
        return ClassMaps(model)
    raise ConfigError(f"'{type(model).__name__}' is no classifier, segmentor or detector: take --backbone")


def _window_reverse(windows: Tensor, height: int, width: int, window_size: int | None = None) -> Tensor:
    """What Swin's does, for any number of pictures: its own counts them with ``int()``, which is a constant in the
    file.

    Args:
        windows: (N * windows, side, side, C).
        height, width: of the map.
        window_size: is in the shape too.
    """
    side, channels = windows.shape[2:]
    windows = windows.view(-1, height // side, width // side, side, side, channels)
    return windows.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)
