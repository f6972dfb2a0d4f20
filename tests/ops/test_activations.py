"""Activations read from tables are PyTorch's, to the last bit."""
import pytest
import torch
from torch import nn

from sfkd.ops import TabulatedActivations, activations
from sfkd.ops.loops import compiled

MODULES = {'gelu': nn.GELU(), 'gelu_tanh': nn.GELU('tanh'), 'silu': nn.SiLU(), 'silu_inplace': nn.SiLU(inplace=True)}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def reads(monkeypatch):
    """How often a table was read."""
    seen = []
    monkeypatch.setattr(activations, 'compiled', lambda loops: lambda *args: (seen.append(1), compiled(loops)(*args)))
    return seen


def every_value(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', MODULES)
@torch.no_grad()
def test_every_value_is_that_of_torch(name, dtype, reads):
    theirs = MODULES[name](every_value(dtype))
    with TabulatedActivations():
        ours = MODULES[name](every_value(dtype))
    assert reads and torch.equal(ours.isnan(), theirs.isnan())
    numbers = ~theirs.isnan()
    assert torch.equal(ours.view(torch.int16)[numbers], theirs.view(torch.int16)[numbers])


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_the_layout_stays(layout, reads):
    x = torch.randn(2, 48, 9, 9, dtype=torch.bfloat16).to(memory_format=layout)
    with TabulatedActivations():
        ours = nn.GELU()(x)
    theirs = nn.GELU()(x)
    assert reads and torch.equal(ours, theirs) and ours.stride() == theirs.stride()


def test_in_place_writes_where_it_read(reads):
    x = torch.randn(1, 8, 32, 32, dtype=torch.bfloat16)
    before = x.clone()
    with torch.no_grad(), TabulatedActivations():
        given = nn.SiLU(inplace=True)(x)
    assert reads and given is x and torch.equal(x, nn.SiLU()(before))


@pytest.mark.parametrize('x', [
    torch.randn(2, 48, 9, 9), torch.randn(2, 48, 9, 9, dtype=torch.bfloat16)[..., ::2],
    torch.randn(8, dtype=torch.bfloat16)], ids=['float32', 'gaps between its numbers', 'few'])
def test_the_rest_is_left_to_torch(x, reads):
    with TabulatedActivations():
        ours = nn.GELU()(x)
    assert not reads and torch.equal(ours, nn.GELU()(x))


def test_gradients_are_left_to_torch(reads):
    x = torch.randn(2, 48, 9, 9, dtype=torch.bfloat16, requires_grad=True)
    with TabulatedActivations():
        gradient, = torch.autograd.grad(nn.GELU()(x).sum(), x)
    assert not reads and torch.equal(gradient, torch.autograd.grad(nn.GELU()(x).sum(), x)[0])


def test_what_is_compiled_is_left_to_its_compiler(reads):
    network, x = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GELU()).to(torch.bfloat16), torch.randn(8, 3, 34, 34)
    compiled = torch.compile(network, backend='aot_eager')
    with torch.inference_mode(), TabulatedActivations():
        given = compiled(x.bfloat16())
    assert not reads and torch.equal(given, network(x.bfloat16()))
