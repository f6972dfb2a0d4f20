"""The networks of timm, torchvision and transformers as rows of the matrix: the companion in plain PyTorch, one
training step of each as teacher and as student of two small partners.
"""
from __future__ import annotations

import functools
import importlib

import torch
from torch import nn

from ...distillation import Distillation
from ..trial import plain_step
from .networks import outcome, role_of
from .stock import one_line

SIZES = (64, 128, 224, 240, 256, 320)  # the first that a network takes
CLASSES = 10
#: What an isotropic transformer of transformers is built with; the hierarchical ones are small enough as they come.
SMALL = dict(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=128)


def partner(kind: str, size: int) -> nn.Module:
    """A small network of torchvision's classes.

    Args:
        kind: 'CNN' or 'ViT'.
        size: of the pictures.
    """
    from torchvision.models import ResNet, VisionTransformer
    from torchvision.models.resnet import BasicBlock
    if kind == 'CNN':
        return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)
    return VisionTransformer(size, patch_size=16, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64,
                             num_classes=CLASSES)


def role(student: nn.Module, teacher: nn.Module, size: int) -> dict:
    """What one training step of a pair gave: the pairs and both gradients, or why there is none."""
    def step():
        distillation = Distillation(student, teacher, input_size=size)
        return distillation.pairs, plain_step(student, distillation)
    return role_of(step)


class Zoo:
    """Rows ``library/family``: as students of a CNN and of a ViT, then (frozen) as teachers of both."""

    library: str

    @classmethod
    def names(cls) -> list[str]:
        return [f'{cls.library}/{family}' for family in cls.families()]

    @staticmethod
    def families() -> list[str]:
        raise NotImplementedError

    def network(self, family: str, size: int) -> tuple[str, nn.Module]:
        """The family's smallest network for pictures of a size, and its name."""
        raise NotImplementedError

    def row(self, name: str) -> dict:
        """At the first size at which all passes; if none does, at the last that the network can be built for."""
        family, row = name.partition('/')[2], {}
        for size in SIZES:
            torch.manual_seed(0)
            try:
                source, network = self.network(family, size)
            except Exception as error:  # some take one size only, and each says so in its own way
                row = row or dict(why=one_line(error))
                continue
            roles = {f'student of {kind}': role(network, partner(kind, size), size) for kind in ('CNN', 'ViT')}
            roles |= {f'teacher of {kind}': role(partner(kind, size), network, size) for kind in ('CNN', 'ViT')}
            row = dict(config=source, size=size, weights=sum(p.numel() for p in network.parameters()), roles=roles)
            if outcome(row) == 'passes':
                break
        whys = [found.get('why', '') for found in row.get('roles', {}).values()]
        return dict(why=whys[0]) if whys and all('does not take pictures' in why for why in whys) else row


class Timm(Zoo):
    """A family is a module of timm."""

    library = 'timm'

    @staticmethod
    def families() -> list[str]:
        return importlib.import_module('timm').list_modules()

    @staticmethod
    @functools.cache
    def smallest(family: str) -> str:
        """The network with the fewest weights, which are counted without being there; but none of timm's own tests."""
        timm = importlib.import_module('timm')

        def weights(name: str) -> int:
            with torch.device('meta'):
                return sum(p.numel() for p in timm.create_model(name).parameters())
        return min((name for name in timm.list_models(module=family) if not name.startswith('test_')), key=weights)

    def network(self, family: str, size: int) -> tuple[str, nn.Module]:
        create, name = importlib.import_module('timm').create_model, self.smallest(family)
        try:
            return name, create(name, num_classes=CLASSES, img_size=size)
        except TypeError:  # takes pictures of any size
            return name, create(name, num_classes=CLASSES)


class Torchvision(Zoo):
    """A family is a module of torchvision's classifiers or segmentors."""

    library = 'torchvision'

    @staticmethod
    def families() -> dict[str, list[str]]:
        models, found = importlib.import_module('torchvision.models'), {}
        for module in (models, models.segmentation):
            for name in models.list_models(module=module):
                found.setdefault(models.get_model_builder(name).__module__.rpartition('.')[2], []).append(name)
        return found

    def network(self, family: str, size: int) -> tuple[str, nn.Module]:
        models = importlib.import_module('torchvision.models')
        name = min(self.families()[family],
                   key=lambda name: models.get_model_weights(name).DEFAULT.meta['num_params'])
        own: dict = dict(vision_transformer=dict(image_size=size), maxvit=dict(input_size=(size, size)))
        if name in models.list_models(module=models.segmentation):
            own[family] = dict(weights_backbone=None)
        return name, models.get_model(name, weights=None, num_classes=CLASSES, **own.get(family, {}))


class Transformers(Zoo):
    """A family is a class of transformers: each classifier of pictures, and the backbones and vision models beside
    them; built from its config class.
    """

    library = 'transformers'
    #: Registered with the classifiers, but none for pictures on a grid.
    NONE = dict(PerceiverForImageClassificationLearned='its latents lie on no grid',
                ShieldGemma2ForImageClassification='a language model',
                TimmWrapperForImageClassification="timm's networks, see there",
                TimmBackbone="timm's networks, see there")
    #: Vision models that transformers lists neither as classifiers nor as backbones.
    TOWERS = ('SiglipVisionModel', 'Siglip2VisionModel', 'CLIPVisionModel', 'Aimv2VisionModel', 'BlipVisionModel',
              'ChineseCLIPVisionModel', 'InternVLVisionModel', 'MLCDVisionModel', 'DPTModel', 'GLPNModel', 'YolosModel',
              'SamVisionModel', 'SegformerForSemanticSegmentation', 'UperNetForSemanticSegmentation')

    @classmethod
    def families(cls) -> list[str]:
        auto = importlib.import_module('transformers.models.auto.modeling_auto')
        classifiers, backbones = (dict(getattr(auto, f'MODEL_FOR_{kind}_MAPPING_NAMES'))
                                  for kind in ('IMAGE_CLASSIFICATION', 'BACKBONE'))
        found = [*classifiers.values(), *(name for key, name in backbones.items() if key not in classifiers),
                 *cls.TOWERS]
        first = dict.fromkeys(name if isinstance(name, str) else name[0] for name in found)
        return [name for name in first if name not in cls.NONE]

    def network(self, family: str, size: int) -> tuple[str, nn.Module]:
        kind = getattr(importlib.import_module('transformers'), family)
        return family, kind(small_config(kind.config_class, size))


def small_config(kind: type, size: int):
    """A config of transformers for pictures of a size.

    Args:
        kind: its class.
        size: of the pictures.
    """
    own = kind()
    if hasattr(own, 'vision_config'):
        return kind(vision_config=small_config(type(own.vision_config), size).to_dict())
    given: dict = dict(num_labels=CLASSES)
    if all(isinstance(getattr(own, key, None), int) for key in ('hidden_size', 'num_attention_heads')):
        given |= {key: value for key, value in SMALL.items() if hasattr(own, key)}
    if hasattr(own, 'image_size'):
        given['image_size'] = (size, size) if isinstance(own.image_size, (tuple, list)) else size
    return kind(**given)
