"""What the teacher computes in, and how its filters are laid out: what the device is fast in, where the network allows
it.
"""
import pytest
import torch
from torch import nn

from sfkd.distillation import Distillation, Teacher
from sfkd.distillation.precision import fast_precision
from sfkd.errors import ConfigError
from sfkd.features.taps import Taps
from sfkd.ops import activations


class Multiplies(nn.Module):
    """An operator that exists in float32 alone."""

    def forward(self, x):
        if x.dtype != torch.float32:
            raise RuntimeError(f'"multiplies" not implemented for {x.dtype}')
        return 2 * x


def tapped(*layers, path, precision):
    network = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *layers)
    teacher = Teacher(network, precision=precision)
    teacher.tap(Taps(network, [path], stop=True), (32, 32))
    return teacher


@pytest.mark.parametrize('precision, dtype', [('fp32', None), ('bf16', torch.bfloat16), ('auto', torch.bfloat16)])
def test_what_it_computes_in_and_that_it_hands_on_float32(precision, dtype, monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')
    teacher, inputs = tapped(nn.Conv2d(16, 8, 3), path='1', precision=precision), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), torch.autocast('cpu', dtype, enabled=dtype is not None):
        expected = teacher.network(inputs)
        assert expected.dtype == (dtype or torch.float32)
    found = teacher(inputs)['1']
    assert found.dtype == torch.float32 and torch.equal(found, expected.float())
    assert torch.equal(found, teacher.network(inputs)) == (precision == 'fp32')
    assert {p.dtype for p in teacher.network.parameters()} == {torch.float32}


@pytest.mark.parametrize('activation', [nn.GELU(), nn.SiLU(inplace=True)], ids=['gelu', 'silu'])
def test_on_a_cpu_its_activations_in_half_precision_are_read_from_tables(activation, monkeypatch):
    read, table = [], activations._table
    monkeypatch.setattr(activations, 'MOST_THREADS', torch.get_num_threads())
    monkeypatch.setattr(activations, '_table', lambda *args: read.append(args) or table(*args))
    teacher, inputs = tapped(activation, path='1', precision='bf16'), torch.randn(2, 3, 32, 32)
    read.clear()
    found = teacher(inputs)['1']
    assert read
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(found, teacher.network(inputs).float())


def test_beside_a_student_in_mixed_precision_it_computes_as_that(monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')
    inputs = torch.randn(2, 3, 32, 32)
    for precision, expected in dict(auto=torch.float16, bf16=torch.bfloat16, fp32=torch.float32).items():
        teacher = tapped(nn.Conv2d(16, 8, 3), path='1', precision=precision)
        with torch.autocast('cpu', torch.float16):
            assert teacher(inputs)['1'].dtype == expected


def test_an_operator_that_exists_in_float32_alone(monkeypatch):
    lines = []
    monkeypatch.setattr('sfkd.distillation.teacher.print_log', lambda text, logger: lines.append(text))
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')
    teacher = tapped(Multiplies(), path='1', precision='auto')
    inputs = torch.randn(2, 3, 32, 32)
    assert torch.equal(teacher(inputs)['1'], teacher.network(inputs))
    assert len(lines) == 1 and 'in float32' in lines[0] and '"multiplies" not implemented' in lines[0]
    with pytest.raises(ConfigError, match="teacher_precision: 'Sequential' does not run in bf16 .*give 'fp32'"):
        tapped(Multiplies(), path='1', precision='bf16')
    with pytest.raises(RuntimeError, match='expected input'):  # what is wrong has nothing to do with it
        tapped(nn.Conv2d(5, 8, 3), path='1', precision='bf16')
    with pytest.raises(ConfigError, match="teacher_precision: 'half' is none of 'auto', 'fp32'"):
        tapped(path='0', precision='half')


class Flattens(nn.Module):
    """What a map in channels-last layout does not allow."""

    def forward(self, x):
        return x.view(-1).view(x.shape)


def test_convolutions_in_half_precision_are_laid_out_channels_last_where_the_network_allows_it(monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')
    inputs = torch.randn(2, 3, 32, 32)
    for layer, precision, last in ((nn.Identity(), 'auto', True), (nn.Identity(), 'fp32', False),
                                   (Flattens(), 'bf16', False)):
        teacher = tapped(layer, nn.Conv2d(16, 8, 3), path='2', precision=precision)
        weight = teacher.network[2].weight
        assert teacher.precision == precision
        assert weight.is_contiguous(memory_format=torch.channels_last) == last
        assert teacher(inputs)['2'].is_contiguous()
        teacher.apply_(lambda x: x.clone())
        assert teacher.network[2].weight.is_contiguous(memory_format=torch.channels_last) == last
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(teacher(inputs)['2'], teacher.network(inputs).float())


def test_on_another_device_it_is_laid_out_for_that(monkeypatch):
    fast = ['fp32']
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: fast[0])
    teacher = tapped(path='0', precision='auto')
    own = nn.Sequential(nn.Conv2d(3, 16, 3)).to(memory_format=torch.channels_last)
    for fast[0], network in (('bf16', teacher.network), ('fp32', teacher.network)):
        teacher.apply_(lambda x: x.clone())
        assert network[0].weight.is_contiguous(memory_format=torch.channels_last) == (fast[0] == 'bf16')
    teacher = Teacher(own)  # in float32 a network keeps the layout that it came in
    teacher.tap(Taps(own, ['0'], stop=True), (32, 32))
    assert own[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('device, bf16, expected', [
    ('cuda', True, 'bf16'), ('cuda', False, 'fp16'), ('cpu', True, 'bf16'), ('cpu', False, 'fp32'),
    ('mps', False, 'fp32')])
def test_what_a_device_is_fast_in(device, bf16, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cpu, '_is_avx512_bf16_supported', lambda: bf16)
    monkeypatch.setattr(torch.cpu, '_is_amx_tile_supported', lambda: False)
    assert fast_precision(torch.device(device)) == expected


def test_whoever_else_reads_it_tries_layout_and_precision_for_what_it_taps(monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')
    teacher = tapped(Flattens(), nn.Conv2d(16, 8, 3), path='0', precision='auto')
    other = teacher.again()
    other.tap(Taps(teacher.network, ['2'], stop=True), (32, 32))
    assert teacher.channels_last and not other.channels_last
    assert other(torch.randn(2, 3, 32, 32)).keys() == {'2'}


@pytest.mark.parametrize('layer', [Flattens(), Multiplies()], ids=['layout', 'precision'])
def test_on_another_device_it_falls_back_as_where_it_was_built(layer, monkeypatch):
    fast = ['fp32']
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: fast[0])
    teacher = tapped(layer, nn.Conv2d(16, 8, 3), path='2', precision='auto')
    inputs = torch.randn(2, 3, 32, 32)
    expected = teacher(inputs)['2']
    fast[0] = 'bf16'
    teacher.apply_(lambda x: x.clone())
    torch.testing.assert_close(teacher(inputs)['2'], expected, rtol=0.05, atol=0.05)
    assert teacher.precision == ('fp32' if isinstance(layer, Multiplies) else 'auto') and not teacher.channels_last
    fast[0] = 'fp32'
    teacher.apply_(lambda x: x.clone())
    assert torch.equal(teacher(inputs)['2'], expected)


def test_weights_that_are_no_pictures_filters_keep_their_layout(monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')

    class Volume(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(16, 16, (1, 3, 3))

        def forward(self, x):
            return self.conv(x.unsqueeze(2)).squeeze(2)
    teacher = tapped(Volume(), nn.Conv2d(16, 8, 3), path='2', precision='auto')
    assert teacher.channels_last and teacher.network[2].weight.is_contiguous(memory_format=torch.channels_last)
    assert teacher(torch.randn(2, 3, 32, 32))['2'].isfinite().all()


class Full(nn.Module):
    """Memory for four pictures."""

    def forward(self, x):
        if len(x) > 4:
            raise torch.OutOfMemoryError('CUDA out of memory')
        return x


@pytest.mark.parametrize('asked', ['bf16', 'auto'])
def test_a_first_call_that_runs_out_of_memory_decides_nothing(asked, monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'bf16')
    teacher, inputs = tapped(Full(), nn.Conv2d(16, 8, 3), path='2', precision=asked), torch.randn(8, 3, 32, 32)
    expected = teacher(inputs[:4])['2']
    teacher.apply_(lambda x: x.clone())
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            teacher(inputs)
        assert teacher.precision == asked and teacher.channels_last
    assert torch.equal(teacher(inputs[:4])['2'], expected)


@pytest.mark.parametrize('precision', ['fp32', 'bf16', 'auto'])
def test_weights_in_half_precision_take_pictures_in_float32(precision, monkeypatch):
    monkeypatch.setattr('sfkd.distillation.precision.fast_precision', lambda device: 'fp32')
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Conv2d(8, 8, 3)).bfloat16()
    teacher, inputs = Teacher(network, precision=precision), torch.randn(2, 3, 32, 32)
    teacher.tap(Taps(network, ['2'], stop=True), (32, 32))
    found = teacher(inputs)['2']
    assert found.dtype == torch.float32 and next(network.parameters()).dtype == torch.bfloat16
    with torch.no_grad():
        torch.testing.assert_close(found, network.float()(inputs), rtol=0.02, atol=0.02)


class Normalises(nn.Module):
    """What begins a network that takes pictures as they are read."""

    def forward(self, pictures):
        return pictures.float() / 255 - 0.5


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_pictures_of_whole_numbers_give_maps_of_fractions(precision):
    torch.manual_seed(0)
    student, network = (nn.Sequential(Normalises(), nn.Conv2d(3, 8, 3), nn.ReLU()) for _ in range(2))
    taught = Distillation(student, Teacher(network, precision=precision), [dict(student='2', teacher='2')],
                          input_size=32)
    pictures, losses = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8), []
    for images in pictures, pictures.float():
        with taught(images) as found, torch.autocast('cpu', enabled=False):
            student(images)
        losses.append(found.losses)
        assert taught.teacher(images)['2'].dtype == torch.float32
    assert losses[0] == losses[1] and all(loss > 0.1 for loss in losses[0].values())
