"""Tiny real classifiers of mmpretrain, pictures for them, and what several tests ask of them."""
import contextlib
import gc
import os
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import checkpoint
from tool import Tool

from sfkd import SFKD
from sfkd.openmmlab.building import build_model

FORCE = 'TORCH_FORCE_WEIGHTS_ONLY_LOAD'
SIZE = 64  # pixels, where a test says nothing else


def classifier(backbone, channels, neck=None, head='LinearClsHead', classes=5, mean=(127.5, ) * 3, std=(64., ) * 3,
               to_rgb=True):
    """An ImageClassifier's config; ``mean=None`` normalises nothing."""
    normalisation = {} if mean is None else dict(mean=list(mean), std=list(std))
    return dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck,
                head=dict(type=head, num_classes=classes, in_channels=channels, loss=dict(type='CrossEntropyLoss')),
                data_preprocessor=dict(type='ClsDataPreprocessor', num_classes=classes, to_rgb=to_rgb, **normalisation))


def resnet(**kwargs):
    return classifier(dict(type='ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(3, )), 64,
                      dict(type='GlobalAveragePooling'), **kwargs)


def mixer(layers=4, **kwargs):
    return classifier(dict(type='MlpMixer', img_size=SIZE, patch_size=16, arch=dict(
        embed_dims=16, num_layers=layers, tokens_mlp_dims=16, channels_mlp_dims=32)), 16,
        dict(type='GlobalAveragePooling', dim=1), **kwargs)


def swin(drop=0.0, **kwargs):
    arch = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2])
    backbone = dict(type='SwinTransformer', arch=arch, img_size=SIZE, window_size=2, drop_rate=drop,
                    drop_path_rate=drop)
    return classifier(backbone, 64, dict(type='GlobalAveragePooling'), **kwargs)


def vit(layers=4, size=SIZE, kind='VisionTransformer', drop=0.0, **kwargs):
    head = 'DeiTClsHead' if kind == 'DistilledVisionTransformer' else 'LinearClsHead'
    return classifier(dict(type=kind, img_size=size, patch_size=16, drop_rate=drop, drop_path_rate=drop, arch=dict(
        embed_dims=16, num_layers=layers, num_heads=2, feedforward_channels=32)), 16, head=head, **kwargs)


def deit(**kwargs):
    return vit(kind='DistilledVisionTransformer', **kwargs)


def convnext(**kwargs):
    return classifier(dict(type='ConvNeXt', arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 32])), 32, **kwargs)


def build(config, seed=0):
    torch.manual_seed(seed)
    return build_model(config, 'test')


def distil(student, teacher, teacher_ckpt='init', seed=0, kind=SFKD, **kwargs):
    """An SFKD distiller whose student and teacher have generic weights, biases and batch statistics."""
    torch.manual_seed(seed)
    distiller = kind(student, teacher, teacher_ckpt, **dict(dict(input_size=SIZE, teacher_precision='fp32'), **kwargs))
    with torch.no_grad():
        for tensor in (*distiller.distillation.teacher.network.state_dict().values(), *distiller.student.parameters()):
            if tensor.is_floating_point():
                tensor += 0.02 * torch.rand_like(tensor)
    return distiller


def batch(n=4, size=(SIZE, SIZE), classes=5, seed=0):
    """What a data loader gives: raw BGR pictures and labels."""
    from mmpretrain.structures import DataSample
    rng = np.random.default_rng(seed)
    return dict(inputs=torch.from_numpy(rng.integers(0, 256, (n, 3, *size), dtype=np.uint8)),
                data_samples=[DataSample().set_gt_label(i % classes) for i in range(n)])


@contextlib.contextmanager
def recorded(network, paths):
    """Outputs of modules, by hooks that share nothing with sfkd's."""
    seen, hooks = {}, []
    for path in paths:
        def note(module, inputs, output, path=path):
            seen.setdefault(path, []).append(output)
        hooks.append(network.get_submodule(path).register_forward_hook(note))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def hook_count(network):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


def pytest_collection_modifyitems(items):
    """The files with the longest tests first: of two processes that share the files neither waits at the end."""
    items.sort(key=lambda item: item.path.parent.name != 'tools' and item.path.name != 'test_hostile_checkpoints.py')


def pytest_collection_finish():
    """What is imported by now stays: the collector, which mmengine calls for each data set, need not look at it."""
    gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def quiet():
    """No line for every weight that is initialised."""
    for handler in MMLogger.get_current_instance().handlers:
        handler.addFilter(lambda record: ' - torch.Size([' not in record.getMessage())


@pytest.fixture(scope='module', autouse=True)
def alone():
    """What a module sets for its process (the registries' default scope, the ban on unsafe checkpoints) ends with
    it.
    """
    scopes, safe = dict(DefaultScope._instance_dict), checkpoint.get_torch_safe_globals
    schemes, load = checkpoint.CheckpointLoader._schemes.copy(), checkpoint.load_state_dict
    forced = os.environ.get(FORCE)
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)
    checkpoint.get_torch_safe_globals = safe
    checkpoint.CheckpointLoader._schemes, checkpoint.load_state_dict = schemes, load
    os.environ.pop(FORCE, None)
    if forced is not None:
        os.environ[FORCE] = forced


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def zoo():
    """Configs of tiny models and helpers around them."""
    return SimpleNamespace(resnet=resnet, mixer=mixer, swin=swin, vit=vit, deit=deit, convnext=convnext, build=build,
                           distil=distil, batch=batch, recorded=recorded, hook_count=hook_count)


@pytest.fixture(scope='session')
def tool(tmp_path_factory) -> Iterator[Tool]:
    tool = Tool(tmp_path_factory.mktemp('tool') / 'output.txt')
    yield tool
    tool.close()
