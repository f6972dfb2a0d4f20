"""Teachers of timm and transformers by name: foundation models, with the normalisation that they were trained with."""
from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.model import ImgDataPreprocessor
from torch import Tensor, nn

from ..errors import ConfigError, nearest
from ..image_processors import processing_of
from ..registry import MODELS


class _Encoder(nn.Module):
    """A network called ``backbone`` with its normalisation, which is what a teacher in a config has to be.

    Class and register tokens are told from patches by the taps (features/layouts.py).

    Args:
        backbone: takes pictures alone.
        mean, std: of values 0 to 1, RGB, as the network was trained.
        patch: its side in pixels; 1 where any size will do.
        to_rgb: whether the student's data set loads BGR, as OpenMMLab's do; False for CIFAR's RGB.
    """

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float], patch: int, to_rgb: bool):
        super().__init__()
        self.backbone, self.patch = backbone, patch
        self.data_preprocessor = ImgDataPreprocessor([255 * x for x in mean], [255 * x for x in std],
                                                     bgr_to_rgb=to_rgb)

    def forward(self, images: Tensor):
        """
        Args:
            images: (N, 3, H, W), normalised.

        Raises:
            ConfigError: if H and W are no multiples of the patch.
        """
        height, width = images.shape[2:]
        if height % self.patch or width % self.patch:
            fitting = tuple(max(1, round(side / self.patch)) * self.patch for side in (height, width))
            raise ConfigError(f'teacher_input_size: the teacher has patches of {self.patch} px, into which pictures of '
                              f'{height}x{width} do not fall; give teacher_input_size={fitting}')
        return self.backbone(images)


@MODELS.register_module()
class TimmTeacher(_Encoder):
    """A model of timm as ``teacher=`` of a config, with ``teacher_ckpt='init'``.

    Args:
        name: of timm's list, with the tag of its weights: it says mean and std.
        pretrained: load these weights, from timm's own place or, with ``pretrained_cfg_overlay=dict(file=path)``, from
            a file.
        in_order: instead, a file whose tensors are the model's in the same order under other names (see
            :func:`load_in_order`); ``package:path`` for one that an installed package holds.
        mean, std: where they differ from what timm notes for the name.
        to_rgb: see the configs' data sets: False where they load RGB.
        data_preprocessor: the runner's; unused.
        kwargs: of ``timm.create_model``, such as ``img_size``, ``dynamic_img_size``.

    Raises:
        ConfigError: if timm does not know the name, or a file does not fit.
    """

    def __init__(self, name: str, pretrained: bool = False, in_order: str | None = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, to_rgb: bool = True,
                 data_preprocessor: dict | None = None, **kwargs):
        import timm
        if not timm.is_model(name):
            raise ConfigError(f"teacher.name: timm has no model '{name}'; nearest: {nearest(name, timm.list_models())}")
        backbone = timm.create_model(name, pretrained=pretrained, **kwargs)
        noted = backbone.pretrained_cfg
        embedding = getattr(getattr(backbone, 'patch_embed', None), 'proj', None)
        patches = isinstance(embedding, nn.Conv2d) and embedding.stride == embedding.kernel_size  # that do not overlap
        patch = embedding.stride[0] if patches else 1
        super().__init__(backbone, mean or noted['mean'], std or noted['std'], patch, to_rgb)
        if in_order:
            load_in_order(backbone, in_order)


@MODELS.register_module()
class HuggingFaceTeacher(_Encoder):
    """A vision model of transformers as ``teacher=`` of a config, with ``teacher_ckpt='init'``.

    Args:
        kind: the class: 'Dinov2WithRegistersModel', 'DINOv3ViTModel', 'SiglipVisionModel', 'CLIPVisionModel'.
        pretrained: name or folder of its weights.
        config: instead, the keys of its config: random weights.
        mean, std: None takes those of the image processor beside the weights.
        to_rgb: see :class:`TimmTeacher`.
        data_preprocessor: the runner's; unused.

    Raises:
        ConfigError: if transformers has no such class, or nobody says mean and std.
    """

    def __init__(self, kind: str, pretrained: str | None = None, config: dict | None = None,
                 mean: Sequence[float] | None = None, std: Sequence[float] | None = None, to_rgb: bool = True,
                 data_preprocessor: dict | None = None):
        import transformers
        if not hasattr(transformers, kind):
            near = nearest(kind, dir(transformers))
            raise ConfigError(f"teacher.kind: transformers has no '{kind}'; nearest: {near}")
        if (pretrained is None) == (config is None) or pretrained is None and None in (mean, std):
            raise ConfigError('teacher: give pretrained=, or config= with mean= and std=')
        cls = getattr(transformers, kind)
        backbone = cls(cls.config_class(**config)) if config is not None else cls.from_pretrained(pretrained)
        if None in (mean, std):
            if (found := processing_of(pretrained)) is None:
                raise ConfigError(f"teacher: there is no image processor beside '{pretrained}'; give mean= and std=")
            mean, std, bgr = found
            to_rgb = to_rgb != bgr
        patch = getattr(backbone.config, 'patch_size', 1)
        super().__init__(backbone, mean, std, patch if isinstance(patch, int) else 1, to_rgb)


def load_in_order(network: nn.Module, file: str) -> None:
    """Load a state dict whose tensors are the network's one by one, under names of its own.

    Args:
        file: a path, or ``package:path`` within an installed package.

    Raises:
        ConfigError: if it is missing, or if number or shapes differ.
    """
    package, colon, inner = file.partition(':')
    try:
        path = importlib.resources.files(package) / inner if colon else Path(file)
        state = torch.load(path, map_location='cpu', weights_only=True)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ConfigError(f"teacher.in_order: '{file}' cannot be read ({error}); give a file, or install the "
                          'package') from error
    own = network.state_dict()
    if len(own) != len(state):
        raise ConfigError(f"teacher.in_order: '{file}' has {len(state)} tensors, the model {len(own)}")
    for (key, value), (theirs, given) in zip(own.items(), state.items()):
        if value.shape != given.shape or key.rpartition('.')[2] != theirs.rpartition('.')[2]:
            raise ConfigError(f"teacher.in_order: '{file}' has {theirs} {tuple(given.shape)} where the model has {key} "
                              f'{tuple(value.shape)}')
    network.load_state_dict(dict(zip(own, state.values())))
