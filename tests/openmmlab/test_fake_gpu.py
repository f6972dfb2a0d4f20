"""Steps on a GPU that is not there: torch's fake tensors run every operator's rules for devices, types and shapes, and
refuse whatever would mix two devices or make the host wait for a value. Speed, memory and numbers they cannot show."""
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily

from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.configs import load_config
from sfkd.ops import dwt, haar, spectral

pytestmark = pytest.mark.skipif(tuple(map(int, torch.__version__.split('.')[:2])) < (2, 15)
                                and not torch.cuda.is_available(),
                                reason='torch 2.6 aborts at such a tensor where there is no GPU; 2.15 does not')
ROOT = Path(__file__).resolve().parents[2]
#: What teaches: options of SFKD, or another method's config.
METHODS = {str(options): dict(options={f'model.{key}': value for key, value in options.items()}) for options in (
    {}, dict(refine=True), dict(streams=True), dict(wavelet='bior2.2', stages=[0, 1]), dict(wavelet='db2', refine=True),
    dict(logit_weight=1.0))}
METHODS |= {path.stem: dict(method=str(path)) for folder in ('peers', 'ablation')
            for path in sorted(ROOT.glob(f'configs/{folder}/*.py'))}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def gpu():
    """``device='cuda'`` works, for shapes; what the operators cache of it goes with it."""
    # a real parameter cannot take a fake tensor as its data
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    clear_caches()
    with FakeTensorMode():
        yield
    clear_caches()
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def clear_caches():
    for module in (dwt, haar, spectral):
        for function in vars(module).values():
            if hasattr(function, 'cache_clear'):
                function.cache_clear()


@contextmanager
def autocast(dtype):
    """torch.autocast's own manager disables itself where there is no GPU."""
    torch.set_autocast_enabled('cuda', dtype != torch.float32)
    torch.set_autocast_dtype('cuda', dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled('cuda', False)
        torch.set_autocast_dtype('cuda', torch.float16)
        torch.clear_autocast_cache()


def build(path, **kwargs):
    """A distiller on the fake GPU."""
    config = load_config(str(ROOT / path), **kwargs)
    with unset_fake_temporarily():
        model = build_model(config.model, 'test', config.get('data_preprocessor'), config.default_scope).train()
    return model._apply(lambda t: torch.empty(t.shape, dtype=t.dtype, device='cuda'))


def backward(loss: Tensor) -> dict[Tensor, Tensor]:
    """{leaf: gradient}. torch's engine wants a thread on each GPU, so the graph's nodes are called here, in its
    order.
    """
    nodes, waiting = set(), [loss.grad_fn]
    while waiting:
        nodes.add(node := waiting.pop())
        waiting += [after for after, _ in node.next_functions if after is not None and after not in nodes]
    arrived = defaultdict(dict)  # node -> {which of its outputs: gradient}
    arrived[loss.grad_fn][0] = torch.ones_like(loss)
    leaves = {node for node in nodes if hasattr(node, 'variable')}
    for node in sorted(nodes - leaves, key=lambda node: node._sequence_nr(), reverse=True):  # the last called first
        given = [arrived[node].get(i, torch.zeros(meta.shape, dtype=meta.dtype, device=meta.device))
                 for i, meta in enumerate(node._input_metadata)]
        edges = node.next_functions
        with torch.no_grad():
            results = getattr(node, 'apply', node)(*given)
        results = results if isinstance(results, tuple) else (results, )
        # a Function's backward has a result for every argument, its node an edge for every tensor
        if hasattr(node, 'apply'):
            results = [result for result, needed in zip(results, node.needs_input_grad) if needed]
            edges = [edge for edge in edges if edge[0] is not None]
        for (after, index), result in zip(edges, results, strict=True):
            if after is not None and result is not None:
                meta = after._input_metadata[index]
                assert result.device == meta.device, f'{node.name()} -> {after.name()}'
                # formulas leave to the engine what they promote and broadcast
                result = result.to(meta.dtype).sum_to_size(meta.shape)
                arrived[after][index] = arrived[after][index] + result if index in arrived[after] else result
    return {leaf.variable: arrived[leaf][0] for leaf in leaves}


def test_what_the_fake_gpu_refuses(gpu):
    x = torch.ones(2, 2, device='cuda', requires_grad=True)
    with pytest.raises(RuntimeError, match='same device'):
        x + torch.ones(2, 2)
    with pytest.raises(DataDependentOutputException):
        x.sum().item()
    assert backward((x @ x + x).sum())[x].device.type == 'cuda'


@pytest.mark.parametrize('method', METHODS)
def test_a_classification_step(gpu, method):
    """Forward and backward, of the networks and of what is between them; every weight gets a gradient of its own
    type.
    """
    model = build('configs/mini/cls_swin_to_resnet8.py', **METHODS[method])
    images = torch.ones(4, 3, *model.distillation.input_size, device='cuda')
    samples = [DataSample().set_gt_label(torch.zeros(1, dtype=torch.long, device='cuda')) for _ in images]
    for dtype in DTYPES:
        with autocast(dtype):
            losses = model(images, samples, mode='loss')
        assert {value.dtype for key, value in losses.items() if 'distill' in key} == {torch.float32}
        assert len(backward(sum(value for key, value in losses.items() if 'loss' in key))) == len([*model.parameters()])


@pytest.mark.parametrize('path', ['configs/mini/det_swin_to_resnet8.py', 'configs/mini/seg_swin_to_resnet8.py'])
@pytest.mark.parametrize('masked', [False, True])
def test_what_is_between_detectors_and_segmentors(gpu, path, masked):
    """Their own heads do look at values, so this stops at the taps."""
    model = build(path)
    images = torch.ones(2, 3, *model.distillation.input_size, device='cuda')
    mask = torch.ones(2, 1, *model.distillation.input_size, device='cuda') if masked else None
    for dtype in DTYPES:
        with autocast(dtype):
            teacher = model.distillation.teacher(images, mask)
            with model.distillation.taps.capture(images.shape[2:]) as student:
                model.student(images, None, mode='tensor')
            losses = model.distillation.compare(student, teacher, mask)
        assert {value.dtype for value in losses.values()} == {torch.float32}
        learnt = backward(sum(losses.values()))
        assert {*model.distillation.parameters(), next(model.student.parameters())} <= learnt.keys()
