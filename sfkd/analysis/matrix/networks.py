"""Which networks can teach and be taught: one training step of each as teacher and as student, with the automatic pairs
and no connector of its own.
"""
from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from mmdet.models import BaseDetector
from mmengine.model import revert_sync_batchnorm
from mmpretrain.models import LinearClsHead
from mmseg.models import BaseSegmentor
from torch import nn

from ... import SFKD
from ...distillation.pair import Pair
from ..trial import initialise, training_step, without_downloads, works
from .stock import LIBRARIES, configs, one_line, smallest_first, stock, stock_backbones

SIZES = (64, 128, 224, 320, 512)  # the first that a network takes
#: Registered with the backbones, but none.
PARTS = {'mmseg.DeconvModule': "a layer of UNet's decoder", 'mmseg.InterpConv': "a layer of UNet's decoder"}
#: Backbones that no stock config has and whose constructors want something: what they get.
ARGUMENTS = {
    'mmdet.ResNetV1d': dict(depth=50),
    'mmdet.DetectoRS_ResNeXt': dict(depth=50, groups=32, base_width=4, conv_cfg=dict(type='ConvAWS')),
    'mmseg.ResNetV1d': dict(depth=18),
    'mmseg.ResNeXt': dict(depth=50, groups=32, base_width=4),
    'mmpretrain.TIMMBackbone': dict(model_name='resnet18'),
    'mmseg.TIMMBackbone': dict(model_name='vit_tiny_patch16_224', pretrained=False, dynamic_img_size=True),
}


class PooledHead(LinearClsHead):
    """Classifies by the mean of a backbone's deepest output, whatever that is: heads of libraries fit their own
    backbones only.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__(num_classes, 1)
        self.fc = nn.LazyLinear(num_classes)

    def pre_logits(self, feats):
        while isinstance(feats, (tuple, list)):
            feats = feats[-1]
        return feats.flatten(2).mean(2) if feats.dim() > 2 else feats

    def loss(self, feats, data_samples):
        scores = self(feats)
        return self._get_loss(scores, data_samples *
                              (len(scores) // len(data_samples)))  # TridentNet trains three copies of a picture


def classifier(library: str, name: str, size: int) -> tuple[str, nn.Module]:
    """A classifier with this backbone for pictures of a size, and where its arguments are from."""
    cls = importlib.import_module(f'{library}.registry').MODELS.get(name)
    source, backbone = f'{library}.{name}', ARGUMENTS.get(f'{library}.{name}')
    if backbone is None:
        source, backbone = next(stock_backbones(library, name), (source, {}))
    backbone = dict(backbone, type=name)
    signature = {
        key: p
        for base in reversed(cls.__mro__)
        for key, p in inspect.signature(base.__init__).parameters.items()
    }
    if 'img_size' in signature:
        backbone['img_size'] = (size, size) if isinstance(signature['img_size'].default, (tuple, list)) else size
    if 'pad_small_map' in signature:
        backbone['pad_small_map'] = True
    backbone.pop('init_cfg', None)
    backbone = without_downloads(backbone, name, scope=library)
    network = without_downloads(dict(type='mmpretrain.ImageClassifier', backbone=backbone), name)
    network.head = PooledHead()
    with torch.no_grad():  # gives the head its width, in train mode, where some backbones give more
        revert_sync_batchnorm(network).train()(torch.zeros(2, 3, size, size), mode='tensor')
    return source, initialise(network)


def small(kind: str, size: int) -> nn.Module:
    """A small student of ours."""
    backbone, channels, neck = {
        'CNN': (dict(type='ResNet', depth=18, stem_channels=16,
                     base_channels=16), 128, dict(type='GlobalAveragePooling')),
        'ViT': (dict(type='VisionTransformer', img_size=size, patch_size=16,
                     arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)), 32, None)
    }[kind]
    head = dict(type='LinearClsHead', num_classes=10, in_channels=channels)
    return initialise(
        without_downloads(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head), kind))


def role(student: nn.Module, teacher: nn.Module, size: int) -> dict:
    """What one training step of a pair gave: the pairs and both gradients, or why there is none."""
    def step():
        distiller = SFKD(student, teacher, input_size=size)
        return distiller.distillation.pairs, training_step(distiller)
    return role_of(step)


def role_of(run: Callable[[], tuple[Iterable[Pair], dict[str, float]]]) -> dict:
    """A cell of the matrix.

    Args:
        run: gives a distillation's pairs and its one training step.
    """
    try:
        pairs, step = run()
    except Exception as error:  # whatever any library raises is a result here
        return dict(passes=False, why=one_line(error))
    found = dict(passes=works(step), pairs=[(pair.student_path, pair.teacher_path) for pair in pairs],
                 **{key: float(f'{step[key]:.3g}')
                    for key in ('gradient', 'distillation_gradient')})
    return found if found['passes'] else dict(found, why='a loss or gradient is zero or not finite')


class Backbones:
    """Rows ``library.Backbone``: as students of two stock teachers, then (frozen) as teachers of two small students."""

    def __init__(self):
        self.teachers = dict(Swin=stock('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', pad_small_map=True),
                             ResNet=stock('mmpretrain::resnet/resnet50_8xb32_in1k.py'))

    @staticmethod
    def names() -> list[str]:
        found = []
        for library in LIBRARIES:
            importlib.import_module(f'{library}.models')
            registered = importlib.import_module(f'{library}.registry').MODELS.module_dict
            found += [
                f'{library}.{name}' for name, cls in registered.items()
                if cls.__module__.startswith(f'{library}.models.backbones.')
            ]
        return [name for name in found if name not in PARTS]

    def row(self, name: str) -> dict:
        for size in SIZES:
            try:
                source, network = classifier(*name.split('.'), size)
            except Exception as error:  # some take 224 only, and each says so in its own way
                row = dict(why=one_line(error))
                continue
            roles = {f'student of {key}': role(network, teacher, size) for key, teacher in self.teachers.items()}
            roles |= {f'teacher of {key}': role(small(key, size), network, size) for key in ('CNN', 'ViT')}
            row = dict(config=source, size=size, weights=sum(p.numel() for p in network.parameters()), roles=roles)
            if all(found['passes'] for found in roles.values()):
                break
        return row


class Models:
    """Rows ``library/family``: a small stock config of the family as a student, then as a teacher, of another
    family.
    """

    PARTNERS = dict(
        mmdet=('retinanet/retinanet_r18_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py'),
        mmseg=('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
               'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'))

    @staticmethod
    @functools.cache
    def partner(side: str, library: str, path: str) -> nn.Module:
        """One network for each side: a teacher is frozen."""
        return stock(f'{library}::{path}')

    @staticmethod
    def names() -> list[str]:
        return [f'{library}/{family.name}' for library in LIBRARIES[1:] for family in sorted(configs(library).iterdir())
                if family.name != '_base_' and family.is_dir()]

    def row(self, name: str) -> dict:
        """Of the family's three smallest configs the first that passes; if none does, what the smallest gave that
        builds.
        """
        library, family = name.split('/')
        partner = next(path for path in self.PARTNERS[library] if path.partition('/')[0] != family)
        tried = []
        for file in smallest_first(list((configs(library) / family).glob('*.py')))[:3]:
            tried.append(dict(config=f'{family}/{file.name}', **self.attempt(file, library, partner)))
            if outcome(tried[-1]) == 'passes':
                return tried[-1]
        return max(tried, key=lambda row: 'roles' in row) if tried else dict(why='a folder without configs')

    def attempt(self, file: Path, library: str, partner: str) -> dict:
        try:
            network = stock(str(file))
        except Exception as error:  # each library and each missing package says so in its own way
            return dict(why=one_line(error))
        if not hasattr(network, 'backbone') or not isinstance(network, (BaseDetector, BaseSegmentor)):
            return dict(why=f'{type(network).__name__} is no detector or segmentor of its own')
        other = partner.partition('/')[0]
        own = getattr(network.backbone, 'img_size', SIZES[1])  # BEiT takes no other
        for size in (*SIZES[1:], own if isinstance(own, int) else own[0]):
            roles = {f'student of {other}': role(network, self.partner('teacher', library, partner), size)}
            if roles[f'student of {other}']['passes']:
                break
        roles[f'teacher of {other}'] = role(self.partner('student', library, partner), network, size)
        return dict(size=size, weights=sum(p.numel() for p in network.parameters()), roles=roles)


def outcome(row: dict) -> str:
    if 'roles' not in row:
        return f"cannot be built: {row['why']}"
    failed = [f'{key}: {found["why"]}' for key, found in row['roles'].items() if not found['passes']]
    return '; '.join(failed) or 'passes'
