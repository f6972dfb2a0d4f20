"""One training step of a pair on random pictures: whether it runs, and whether the student's first layer learns from
it.
"""
from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..distillation import Distillation
from ..openmmlab.building import build_model
from ..openmmlab.building import initialise as initialise_quietly
from ..openmmlab.configs import is_distillation
from ..openmmlab.distiller import Distiller
from ..registry import MODELS

PICTURES = 2


def without_downloads(spec: str | dict | nn.Module, where: str, data_preprocessor: dict | None = None,
                      scope: str | None = None) -> nn.Module:
    """A model whose own initialisation loads no weights.

    Args:
        spec, where, data_preprocessor, scope: see :func:`build_model`.
    """
    if isinstance(spec, dict) and spec.get('pretrained') is True:  # of a foundation model
        spec = dict(spec, pretrained=False)
    network = build_model(spec, where, data_preprocessor, scope)
    for module in network.modules():
        if 'checkpoint' in str(getattr(module, 'init_cfg', None)):
            module.init_cfg = None
        if isinstance(getattr(module, 'pretrained', None), str):
            module.pretrained = None
    return network


def built(config: Config, load_teacher: bool = False) -> nn.Module:
    """The model of a whole config; of a distillation the teacher's weights are random, unless they are asked for."""
    init_default_scope(config.get('default_scope', 'mmengine'))
    model = dict(config.model)
    model.setdefault('data_preprocessor', config.get('data_preprocessor'))
    if is_distillation(config) and not load_teacher:
        model.update(teacher=without_downloads(model['teacher'], 'model.teacher', model['data_preprocessor']),
                     teacher_ckpt='init')
    return MODELS.build(model)


def initialise(network: nn.Module) -> nn.Module:
    """The network with the weights of its own ``init_cfg``; without mmengine's log entry for each of them.

    What no ``init_cfg`` covers may be as the memory was (TridentConv, some of DINO); where that is no number or a huge
    one it is drawn anew.
    """
    initialise_quietly(network)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point() and not (parameter.abs() < 1e3).all():
                parameter.normal_(std=0.02)
    return network


def random_samples(student: nn.Module, size: tuple[int, int], count: int = PICTURES) -> list:
    """What pictures of a size hold: a label each; for a segmentor a map of labels and one of edges; for a detector
    whatever any of them learns from: two boxes with masks, the same as proposals, none to be ignored, and a map of
    stuff and things.
    """
    libraries = {cls.__module__.partition('.')[0] for cls in type(student).__mro__}
    if 'mmseg' in libraries:
        from mmseg.structures import SegDataSample
        labels = torch.randint(0, student.num_classes, (count, 1, *size))
        labels[..., :size[0] // 4, :] = 255  # a part without a label
        return [SegDataSample(metainfo=dict(img_shape=size, ori_shape=size), gt_sem_seg=PixelData(data=label),
                              gt_edge_map=PixelData(data=(label > 0).long())) for label in labels]
    if 'mmdet' not in libraries:
        from mmpretrain.structures import DataSample
        return [DataSample().set_gt_label(i % student.head.num_classes) for i in range(count)]
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    height, width = size
    shape = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), size)
    boxes = torch.tensor([[0.1, 0.1, 0.6, 0.7], [0.3, 0.4, 0.9, 0.9]]) * torch.tensor([width, height] * 2)
    masked = any('mask' in name for name, _ in student.named_modules())  # RTMDet assigns by masks where there are any

    def instances() -> InstanceData:
        masks = dict(masks=BitmapMasks(np.ones((2, height, width), np.uint8), height, width)) if masked else {}
        return InstanceData(bboxes=boxes.clone(), labels=torch.zeros(2, dtype=torch.long), **masks)
    return [DetDataSample(
        metainfo=dict(shape, scale_factor=(1.0, 1.0)), proposals=InstanceData(bboxes=boxes.clone()),
        gt_instances=instances(),
        ignored_instances=InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long)),
        gt_sem_seg=PixelData(sem_seg=torch.zeros(1, height, width, dtype=torch.long))) for _ in range(count)]


def random_batch(distiller: Distiller, count: int = PICTURES) -> tuple[Tensor, list]:
    """Random pictures of the size of the dry run as the preprocessor gives them, and what they hold; the distiller is
    made ready to train on them.
    """
    torch.manual_seed(0)
    for key in ('epoch', 'iter'):  # some heads ask the runner how far it is
        MessageHub.get_current_instance().update_info(key, 0)
    size, preprocessor = distiller.distillation.input_size, distiller.data_preprocessor
    if hasattr(preprocessor, 'size'):  # mmseg's configs pad to a crop of their own
        preprocessor.size, preprocessor.size_divisor = size, None
    data = preprocessor(dict(inputs=list(torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8)),
                             data_samples=random_samples(distiller.student, size, count)), training=True)
    revert_sync_batchnorm(distiller)  # as mmengine's runner does where there is one process
    distiller.train()
    return data['inputs'], data['data_samples']


def training_step(distiller: Distiller, count: int = PICTURES) -> dict[str, float]:
    """One whole training step on random pictures: forward, losses, backward, update.

    Returns:
        dict: the losses by name, and the norms of two gradients at the pictures, behind the student's first layer: of
        everything (``gradient``) and of the distillation alone (``distillation_gradient``).
    """
    images, samples = random_batch(distiller, count)
    images.requires_grad_()
    losses = distiller(images, samples, mode='loss')
    taught = sum(value for key, value in losses.items() if key.startswith('distill.'))
    loss, terms = distiller.parse_losses(losses)
    return _update(images, loss, taught, terms, distiller.parameters())


def plain_step(student: nn.Module, distillation: Distillation, count: int = PICTURES) -> dict[str, float]:
    """The same in plain PyTorch, of a student whose own loss is the mean square of whatever it returns.

    Returns:
        dict: as of :func:`training_step`.
    """
    torch.manual_seed(0)
    images = torch.randn(count, 3, *distillation.input_size, requires_grad=True)
    student.train()
    with distillation(images) as taught:
        outputs = student(images)
    own = sum(output.square().mean() for output in tree_leaves(dict(outputs) if isinstance(outputs, dict) else outputs)
              if torch.is_tensor(output) and output.requires_grad)
    return _update(images, own + taught.loss, taught.loss, dict(taught.losses, own=own),
                   [*student.parameters(), *distillation.parameters()])


def _update(images: Tensor, loss: Tensor, taught: Tensor, terms: dict[str, Tensor],
            parameters: Iterable[nn.Parameter]) -> dict[str, float]:
    """One update from a loss, in which that of the distillation is; the terms, and both gradients at the pictures."""
    alone, = torch.autograd.grad(taught, images, retain_graph=True)
    loss.backward()
    trained = [p for p in parameters if p.requires_grad]
    nn.utils.clip_grad_norm_(trained, 1.0)
    torch.optim.SGD(trained, 1e-3).step()
    return {**{key: value.item() for key, value in terms.items()}, 'gradient': images.grad.norm().item(),
            'distillation_gradient': alone.norm().item()}


def works(step: dict[str, float]) -> bool:
    """Whether all of a step is finite and both gradients arrive."""
    return all(map(math.isfinite, step.values())) and min(step['gradient'], step['distillation_gradient']) > 0
