"""What a stranger's file can do: nothing in it runs, in our reading of it or in mmengine's."""
import argparse
import mmap
import pickle
import re
import sys
import zipfile

import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from torch import nn

from sfkd.checkpoint import forbid_unsafe_loading, read_checkpoint, write_checkpoint
from sfkd.errors import ConfigError
from sfkd.unpickling import bounded_memory


class Code:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


class Attribute:
    """A pickle that asks for an attribute of a class on the allow-list."""

    def __init__(self, name):
        self.name = name

    def __reduce__(self):
        return getattr, (HistoryBuffer, self.name)


@pytest.fixture
def unsafe_loading_forbidden(monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '')  # so that both are put back afterwards
    for name in ('get_torch_safe_globals', 'load_state_dict'):
        monkeypatch.setattr(mmengine.runner.checkpoint, name, getattr(mmengine.runner.checkpoint, name))
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())
    forbid_unsafe_loading()


def runners_checkpoint():
    """What mmengine's runner saves beside the weights."""
    hub = MessageHub('test_unpickling')
    for value in (1.0, np.float32(2.5), torch.tensor(4.0)):
        hub.update_scalar('train/loss', value)
    hub.update_info('epoch', np.int64(3))
    return dict(
        meta=dict(epoch=3, cfg='model = 1',
                  dataset_meta=ConfigDict(classes=('a', 'b'))), state_dict={'a.weight': torch.ones(2)},
        message_hub=hub.state_dict(), optimizer=dict(state={}, lr=np.float64(0.1)), arrays=[
            np.arange(6).reshape(2, 3).astype(dtype) for dtype in (np.float16, np.float32, np.int64, np.uint8, bool)
        ])


def check_runners_checkpoint(found, expected):
    buffer = found['message_hub']['log_scalars']['train/loss']
    assert type(buffer) is HistoryBuffer and buffer.data[0].tolist() == [1.0, 2.5, 4.0]
    assert buffer.mean(2) == 3.25 and buffer.current() == 4.0
    assert found['message_hub']['runtime_info']['epoch'] == 3
    assert found['meta'] == expected['meta'] and type(found['meta']['dataset_meta']) is ConfigDict
    assert found['optimizer']['lr'] == 0.1 and torch.equal(found['state_dict']['a.weight'], torch.ones(2))
    for a, b in zip(found['arrays'], expected['arrays'], strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_a_runners_checkpoint_loads_without_running_code(tmp_path):
    expected = runners_checkpoint()
    torch.save(expected, tmp_path / 'a.pth')
    check_runners_checkpoint(read_checkpoint(str(tmp_path / 'a.pth'), 'test'), expected)


@pytest.mark.parametrize('where', ['state_dict', 'meta'])
def test_pickled_code_is_refused_and_does_not_run(tmp_path, where):
    marker = tmp_path / 'ran'
    torch.save({'state_dict': {}, where: {'x': Code(marker)}}, tmp_path / 'a.pth')
    with pytest.raises(ConfigError,
                       match=r'model.teacher_ckpt: .*a.pth. needs pickled code to load \(\w+.open\).*torch.save'):
        read_checkpoint(str(tmp_path / 'a.pth'), 'model.teacher_ckpt')
    assert not marker.exists()
    torch.load(tmp_path / 'a.pth', weights_only=False)  # what it would have done
    assert marker.exists()


@pytest.mark.parametrize('name', ['__init__', '__class__', '__subclasses__', 'update', 'register_statistics'])
def test_getattr_reaches_four_methods_and_no_more(tmp_path, name):
    torch.save(dict(state_dict={}, x=Attribute(name)), tmp_path / 'a.pth')
    with pytest.raises(ConfigError, match='needs pickled code'):
        read_checkpoint(str(tmp_path / 'a.pth'), 'test')
    torch.save(dict(state_dict={}, x=Attribute('mean')), tmp_path / 'b.pth')
    assert read_checkpoint(str(tmp_path / 'b.pth'), 'test')['x'] is HistoryBuffer.mean


def test_mmengines_own_loader_is_made_safe(tmp_path, unsafe_loading_forbidden):
    marker, expected = tmp_path / 'ran', runners_checkpoint()
    torch.save(dict(state_dict={}, x=Code(marker)), tmp_path / 'a.pth')
    torch.save(dict(state_dict={}, x=Attribute('__init__')), tmp_path / 'b.pth')
    torch.save(expected, tmp_path / 'c.pth')
    load = CheckpointLoader.load_checkpoint
    for name in 'ab':
        with pytest.raises(ConfigError, match='needs pickled code'):
            load(str(tmp_path / f'{name}.pth'), 'cpu')
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / f'{name}.pth', weights_only=False)
    assert not marker.exists()
    check_runners_checkpoint(load(str(tmp_path / 'c.pth'), 'cpu'), expected)


@pytest.mark.parametrize('core', ['core', '_core'])
def test_arrays_of_either_numpy_load_and_are_written_as_plain_ones(tmp_path, core):
    expected = runners_checkpoint()
    torch.save(expected, tmp_path / 'a.pth')
    with zipfile.ZipFile(tmp_path / 'a.pth') as found, zipfile.ZipFile(tmp_path / 'b.pth', 'w') as renamed:
        for record in found.infolist():
            content = found.read(record)
            if record.filename.endswith('.pkl'):
                content = re.sub(rb'cnumpy\._?core\.', f'cnumpy.{core}.'.encode(), content)
            renamed.writestr(record.filename, content)
    first = read_checkpoint(str(tmp_path / 'b.pth'), 'test')
    check_runners_checkpoint(first, expected)
    write_checkpoint(first, tmp_path / 'c.pth')
    plain = torch.load(tmp_path / 'c.pth', weights_only=False)
    check_runners_checkpoint(plain, expected)
    assert all(type(array) is np.ndarray for array in plain['arrays'])


def test_a_changed_byte_is_found(tmp_path):
    torch.save(dict(a=torch.ones(1000)), tmp_path / 'a.pth')
    content = bytearray((tmp_path / 'a.pth').read_bytes())
    content[content.index(torch.ones(9).numpy().tobytes()) + 100] ^= 1
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(ConfigError, match='damaged or no checkpoint .*CRC-32'):
        read_checkpoint(str(tmp_path / 'a.pth'), 'test')


def test_the_config_in_an_old_checkpoint_is_not_run_by_a_resume(tmp_path):
    """mmengine's runner executes ``meta['config']`` as Python."""
    checkpoint = dict(state_dict=dict(a=torch.ones(1)), meta=dict(epoch=1, config='raise SystemExit', cfg='a = 1'))
    torch.save(checkpoint, tmp_path / 'a.pth')
    assert read_checkpoint(str(tmp_path / 'a.pth'), 'test')['meta'] == dict(epoch=1, cfg='a = 1')


def test_mmengines_loading_refuses_a_checkpoint_of_which_nothing_fits(tmp_path, unsafe_loading_forbidden):
    network, other = nn.Linear(2, 3), nn.Linear(3, 3)
    write_checkpoint(dict(state_dict=dict(weight=torch.ones(3, 2), other=torch.ones(1))), tmp_path / 'a.pth')
    mmengine.runner.load_checkpoint(network, str(tmp_path / 'a.pth'))
    assert torch.equal(network.weight, torch.ones(3, 2))
    with pytest.raises(ConfigError, match="none of its weights is one of this Linear's by name and shape"):
        mmengine.runner.load_checkpoint(other, str(tmp_path / 'a.pth'))


@pytest.mark.skipif(sys.platform != 'linux', reason='other systems have no such limit')
def test_memory_is_bounded_and_the_bound_is_lifted_again():
    def take(size):  # from the system: a bytearray may be cut from what earlier tests gave back to the allocator
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()

    with pytest.raises(OSError, match='Cannot allocate memory'), bounded_memory(2**26):
        take(2**27)
    with bounded_memory(2**28):
        take(2**27)
    take(2**28)


def test_options_are_plain_values(tmp_path):
    torch.save(dict(a=torch.ones(1), args=argparse.Namespace(lr=0.1, names=['x'])), tmp_path / 'a.pth')
    assert vars(read_checkpoint(str(tmp_path / 'a.pth'), 'test')['args']) == dict(lr=0.1, names=['x'])
    marker = tmp_path / 'ran'
    torch.save(dict(a=torch.ones(1), args=argparse.Namespace(x=Code(marker))), tmp_path / 'b.pth')
    with pytest.raises(ConfigError, match='needs pickled code'):
        read_checkpoint(str(tmp_path / 'b.pth'), 'test')
    assert not marker.exists()
