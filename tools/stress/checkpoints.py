"""Hostile and broken checkpoints at every door: none of their code may run, each must end in one clear error or in a
plain load, within seconds and in bounded memory.

  python tools/stress/checkpoints.py                       the whole corpus, about half an hour on one core
  python tools/stress/checkpoints.py --every 127 --offset 9 a few of it, as the test suite runs it
  python tools/stress/checkpoints.py --only bomb --doors teacher resume

The doors are the tools themselves, run in one process: the teacher's checkpoint, load_from, init_cfg, --resume,
tools/export_student.py, tools/test.py; and the teacher cache's folder. A case is wrong if its code has run, if it ended
in anything but a ConfigError where the file is to be refused, if it failed to load where the file is whole, if it took
longer than --seconds or more memory than three times the file and 512 MiB, or if the process died. Exit status 0 only
if no case is wrong.
"""
from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import io
import json
import os
import pickle
import random
import re
import runpy
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOORS = ('teacher', 'load_from', 'init_cfg', 'resume', 'export', 'test')
MIB = 2**20

CONFIG = """
_base_ = '{root}/configs/mini/cls_resnet.py'
model = dict(backbone=dict(stem_channels={channels}, base_channels={channels}), head=dict(in_channels={width}))
{loaders}
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(save_best=None))
val_cfg = val_dataloader = val_evaluator = None
"""
LOADERS = ''.join(f"{split}_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root='{{data}}'))\n"
                  for split in ('train', 'test'))
PAIR = """
_base_ = '{student}'
model = dict(_delete_=True, type='sfkd.SFKD', student='{student}', teacher='{student}', input_size=64)
"""


# ---- pickles that no library writes ----

class Call:
    """Pickled, it is a call of whatever is named ``module.name``, with an optional state for the result."""

    def __init__(self, name: str, *args, state=None):
        self.module, _, self.name = name.rpartition('.')
        self.args, self.state = args, state


class Storage:
    """Pickled, it is what torch writes for a tensor's memory."""

    def __init__(self, kind: str, key: str, numel: int, legacy: bool = False):
        self.id = ('storage', Name(f'torch.{kind}Storage'), key, 'cpu', numel) + ((None, ) if legacy else ())


class Name:
    """Pickled, it is a reference to ``module.name``."""

    def __init__(self, name: str):
        self.module, _, self.name = name.rpartition('.')


class Writer(pickle._Pickler):
    """Pickles the three above and plain containers; of names it asks nothing."""

    def save(self, value, save_persistent_id=True):
        if isinstance(value, Name):
            self.write(f'c{value.module}\n{value.name}\n'.encode())
        elif isinstance(value, Call):
            if (known := self.memo.get(id(value))) is not None:
                self.write(self.get(known[0]))
                return
            self.save(Name(f'{value.module}.{value.name}'))
            self.save(value.args)
            self.write(b'R')
            self.memoize(value)
            if value.state is not None:
                self.save(value.state)
                self.write(b'b')
        elif isinstance(value, Storage):
            self.save(value.id)
            self.write(b'Q')
        else:
            super().save(value)


def dumps(value, protocol: int = 2) -> bytes:
    stream = io.BytesIO()
    Writer(stream, protocol).dump(value)
    return stream.getvalue()


def archive(pickled: bytes, records: dict[str, bytes] | None = None, compressed: bool = False) -> bytes:
    """A zip as torch.save writes it."""
    stream = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, 'w', kind, compresslevel=1) as file:
        files = {'data.pkl': pickled, 'byteorder': b'little', 'version': b'3\n'}
        files |= {f'data/{key}': content for key, content in (records or {}).items()}
        for name, content in files.items():
            file.writestr(f'archive/{name}', content)
    return stream.getvalue()


def legacy(pickled: bytes, keys: tuple = ()) -> bytes:
    """What torch.save wrote before 1.6."""
    magic, system = 0x1950a86a20f9469cfc6c, dict(protocol_version=1001, little_endian=True, type_sizes=dict(long=4))
    parts = [pickle.dumps(part, 2) for part in (magic, 1001, system)]
    return b''.join([*parts, pickled, pickle.dumps(list(keys), 2)])


def tar(pickled: bytes) -> bytes:
    """What torch.save wrote in its first year."""
    import tarfile
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as file:
        for name, content in dict(storages=pickle.dumps(0, 2) + pickle.dumps([], 2), tensors=pickle.dumps(0, 2),
                                  pickle=pickled).items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def safetensors(header: dict | bytes, content: bytes = b'', length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + content


def tensor(size: tuple, stride: tuple, numel: int = 1, key: str = '0', offset: int = 0, legacy: bool = False) -> Call:
    return Call('torch._utils._rebuild_tensor_v2', Storage('Float', key, numel, legacy), offset, size, stride, False,
                Call('collections.OrderedDict'))


# ---- the corpus ----

class Case:
    """A file, or what stands in its place.

    Args:
        make: puts it at a path.
        outcome: 'refused', 'loads', or 'either'; ``'refused at DOORS'`` for some, either at the others.
        suffix: of its name.
    """

    def __init__(self, make: Callable[[Path], None] | bytes, outcome: str = 'refused', suffix: str = '.pth'):
        self.make = make if callable(make) else lambda path: path.write_bytes(make)
        self.outcome, self.suffix = outcome, suffix

    def expected(self, door: str) -> str:
        outcome, _, doors = self.outcome.partition(' at ')
        return outcome if not doors or door in doors.split() else 'either'


def gadgets(marker: Path) -> dict[str, object]:
    """Values whose unpickling, by pickle itself, makes the marker file."""
    shell, python = f'touch {marker}', f"open({str(marker)!r}, 'w').close()"
    module = f'import os; os.close(os.open({str(marker)!r}, os.O_CREAT))'
    getattr_ = 'builtins.getattr'
    history = Name('mmengine.logging.history_buffer.HistoryBuffer')
    return {
        'os.system': Call('os.system', shell), 'posix.system': Call('posix.system', shell),
        'subprocess': Call('subprocess.getoutput', shell), 'open': Call('io.open', str(marker), 'w'),
        'eval': Call('builtins.eval', python), 'exec': Call('builtins.exec', python),
        '__builtin__.eval': Call('__builtin__.eval', python),
        'getattr on os': Call(getattr_, Call('importlib.import_module', 'os'), 'system'),
        'getattr on HistoryBuffer': Call(getattr_, Call(getattr_, history, '__init__'), '__globals__'),
        'getattr, subclasses': Call(getattr_, Call(getattr_, history, '__base__'), '__subclasses__'),
        'partial': Call('functools.partial', Name('os.system'), shell),
        'attrgetter': Call('operator.attrgetter', 'system'),
        'map': Call('builtins.list', Call('builtins.map', Name('os.system'), [shell])),
        'Config.fromstring': Call(getattr_, Name('mmengine.config.config.Config'), 'fromstring'),
        'LazyObject': Call('mmengine.config.lazy.LazyObject', 'os'),
        'build_from_cfg': Call('mmengine.registry.build_functions.build_from_cfg', dict(type='os.system'), None),
        'get_object_from_string': Call('mmengine.utils.manager.ManagerMeta', 'os.system'),
        'runpy': Call('runpy.run_path', str(marker.with_name('code.py'))),
        'pickle in a pickle': Call('pickle.loads', dumps(Call('os.system', shell))),
        'torch.load in a pickle': Call('torch.serialization.load', str(marker), None, None),
        'torch.hub': Call('torch.hub.load', '.', 'x'), 'jit': Call('torch.jit._serialization.load', str(marker)),
        'numpy.load': Call('numpy.load', str(marker), None, True),
        'rebuild_from_type of os.system': Call('torch._tensor._rebuild_from_type_v2', Name('os.system'),
                                               Name('torch.Tensor'), (shell, ), {}),
        'state of os.system': Call('collections.OrderedDict', state=dict(items=Call('os.system', shell))),
        'exec of a module': Call('builtins.exec', module), 'pty': Call('pty.spawn', ['sh', '-c', shell]),
        'code object': Call('types.FunctionType', Call('types.CodeType', *[0] * 6, b'', (), (), (), '', '', 0, b'')),
        'ctypes': Call('ctypes.CDLL', str(marker)), 'copyreg': Call('copyreg._reconstructor', Name('os.system'),
                                                                  Name('builtins.object'), None),
        'partial of a method': Call('operator.methodcaller', 'system', shell),
        'the hub of mmengine': Call('mmengine.fileio.io.load', str(marker.with_name('code.pkl'))),
    }


def corpus(folder: Path, checkpoint: dict, wide: dict, rng: random.Random) -> dict[str, Case]:
    """Every case by its kind.

    Args:
        folder: for markers.
        checkpoint: a whole one, of the config's model.
        wide: weights of another model.
    """
    import numpy as np
    import torch
    from safetensors.torch import save

    def saved(changed: dict, **options) -> bytes:
        stream = io.BytesIO()
        torch.save(changed, stream, **options)
        return stream.getvalue()

    def changed(key: str = 'state_dict', **values) -> dict:
        return dict(checkpoint, **{key: dict(checkpoint[key], **values)})

    weights = checkpoint['state_dict']
    first = next(iter(weights))
    whole, old = saved(checkpoint), saved(checkpoint, _use_new_zipfile_serialization=False)
    tensors = save({key: value.contiguous() for key, value in weights.items()})
    cases = {
        'whole': Case(whole, 'loads'), 'whole, legacy format': Case(old, 'loads'),
        'whole, safetensors': Case(tensors, 'loads at teacher load_from init_cfg export test', '.safetensors'),
        'whole, without checksums': Case(_without_checksums(saved, checkpoint), 'loads'),
    }

    # Code
    marker = folder / 'ran'
    bare = {'state_dict': {}, 'meta': {}, 'optimizer': {}, 'message_hub': {}, 'param_schedulers': []}
    for i, (name, gadget) in enumerate(gadgets(marker).items()):
        for key in ('state_dict', 'meta', 'optimizer', 'message_hub')[:1 + 3 * (i < 6)]:
            cases[f'code: {name} in {key}'] = Case(archive(dumps(dict(bare, **{key: {'x': gadget}}))))
    code = Call('os.system', f'touch {marker}')
    forms = {'a list': [code], 'itself': code, 'a key': {code: 1}, 'a tuple': (code, ), 'metadata': dict(
        bare, state_dict=Call('collections.OrderedDict', state=dict(_metadata=code)))}
    for name, value in forms.items():
        cases[f'code: in {name}'] = Case(archive(dumps(value)))
    inside = dumps(dict(bare, meta=dict(x=code)))
    cases |= {
        'code: legacy format': Case(legacy(inside)), 'code: raw pickle': Case(inside), 'code: tar': Case(tar(inside)),
        'code: in the magic number': Case(dumps(code) + inside),
        'code: in the keys of the legacy format': Case(legacy(dumps(bare))[:-len(pickle.dumps([], 2))] + dumps(code)),
        'code: pickle named safetensors': Case(inside, suffix='.safetensors'),
        'code: archive named safetensors': Case(archive(inside), suffix='.safetensors'),
        'code: INST': Case(archive(b'(S\'touch %s\'\nios\nsystem\n.' % str(marker).encode())),
        'code: OBJ': Case(archive(b'(cos\nsystem\nS\'touch %s\'\no.' % str(marker).encode())),
        'code: protocol 4': Case(archive(b'\x80\x04\x8c\x02os\x8c\x06system\x93\x8c' + bytes(
            [len(f'touch {marker}')]) + f'touch {marker}'.encode() + b'\x85R.')),
        'code: EXT': Case(archive(b'\x80\x02\x82\x01)R.')),
        'code: a config that is run': Case(saved(changed('meta', config=f"open({str(marker)!r}, 'w')")), 'loads'),
        'code: a config as cfg': Case(saved(changed('meta', cfg=f"open({str(marker)!r}, 'w')")), 'loads'),
        'code: TorchScript': Case(_torchscript),
        'code: numpy objects': Case(_numpy_objects(np, marker)), 'code: npy': Case(_npy(np, marker)),
        'code: npz': Case(_npz(np, marker)), 'code: npz named safetensors': Case(_npz(np, marker),
                                                                               suffix='.safetensors'),
    }

    # Numpy, which trusts what is pickled
    def array(kind: Call, shape: tuple, content) -> Call:
        return Call('numpy.core.multiarray._reconstruct', Name('numpy.ndarray'), (0, ), b'b',
                    state=(1, shape, kind, False, content))
    floats = Call('numpy.dtype', 'f8', False, True, state=(3, '<', None, None, None, -1, -1, 0))
    for name, value in {
            'pointers': array(Call('numpy.dtype', 'O', False, True, state=(3, '|', None, None, None, -1, -1, 0)), (1, ),
                              b'A' * 8),
            'numbers as pointers': array(
                Call('numpy.dtype', 'b1', False, True, state=(3, '|', None, None, None, -1, -1, 63)), (9, ), [[]] * 9),
            'a field outside': array(
                Call('numpy.dtype', 'f8', False, True, state=(4, '<', None, ('a', ), {'a': (floats, 2**30)}, 8, 1, 0,
                                                              {})), (1, ), b'A' * 8),
            'a scalar of pointers': Call('numpy.core.multiarray.scalar', Call('numpy.dtype', 'O'), b'A' * 8),
            'more than is there': array(floats, (2**40, ), b'A' * 8),
            'a huge array': Call('numpy.ndarray', (2**31, ), Name('numpy.dtype')),
            'a huge reconstruction': Call('numpy._core.multiarray._reconstruct', Name('numpy.ndarray'), (2**40, ), b'b',
                                          state=(1, (2**40, ), floats, False, b'')),
            'a tensor of it': Call('torch._utils._rebuild_device_tensor_from_numpy', array(floats, (1, ), b'A' * 8),
                                   Name('torch.float64'), 'cpu', False),
            'another state': Call('collections.OrderedDict', state=dict(x=Call(
                'numpy.core.multiarray._reconstruct', Name('numpy.ndarray'), (0, ), b'b', state=(1, )))),
    }.items():
        cases[f'numpy: {name}'] = Case(archive(dumps(dict(bare, meta=dict(x=value)))))

    # Damage
    for name, content, suffix, count in (('archive', whole, '.pth', 16), ('legacy', old, '.pth', 8),
                                         ('safetensors', tensors, '.safetensors', 8)):
        for i in range(count):
            end = rng.randrange(1, len(content)) if i else len(content) - 1
            cases[f'truncated {name} {i}'] = Case(content[:end], suffix=suffix)
            place = rng.randrange(len(content)) if i % 2 else rng.randrange(min(len(content), 20000))
            flipped = bytearray(content)
            flipped[place] ^= 1 << rng.randrange(8)
            cases[f'bit flipped, {name} {i}'] = Case(bytes(flipped), 'either', suffix)
        zeros = bytearray(content)
        start = rng.randrange(len(content) // 2)
        zeros[start:start + 4096] = bytes(4096)
        cases[f'a page of zeros, {name}'] = Case(bytes(zeros), 'either' if name != 'archive' else 'refused', suffix)
    place = whole.index(weights[first].numpy().tobytes()) + 2
    cases['bit flipped, a weight'] = Case(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1:])
    cases |= {
        'text': Case(b'not a checkpoint\n' * 50), 'text, safetensors': Case(b'not a checkpoint\n' * 50,
                                                                           suffix='.safetensors'),
        'empty': Case(b''), 'empty, safetensors': Case(b'', suffix='.safetensors'),
        'random bytes': Case(rng.randbytes(5000)), 'an empty archive': Case(b'PK\5\6' + bytes(18)),
        'an HTML page': Case(b'<!DOCTYPE html><html>404</html>'), 'folder': Case(lambda path: path.mkdir()),
        'pipe': Case(lambda path: os.mkfifo(path)), 'device': Case(lambda path: path.symlink_to('/dev/zero')),
        'link to itself': Case(lambda path: path.symlink_to(path)), 'nothing there': Case(lambda path: None),
        'pipe, safetensors': Case(lambda path: os.mkfifo(path), suffix='.safetensors'),
        'git LFS pointer': Case(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n'),
    }

    # Another model's, and other contents
    cases |= {
        'wider network': Case(saved(dict(checkpoint, state_dict=wide)), 'refused at teacher resume export test'),
        'all keys renamed': Case(saved(dict(checkpoint, state_dict={f'x.{k}': v for k, v in weights.items()}))),
        'one key renamed': Case(saved(dict(checkpoint, state_dict={
            k if k != first else 'renamed': v for k, v in weights.items()})), 'refused at teacher resume export test'),
        'no weights': Case(saved(dict(checkpoint, state_dict={}))),
        'nothing in it': Case(saved({})), 'a list': Case(saved([1, 2])), 'a tensor': Case(saved(torch.ones(3))),
        'weights in a list': Case(saved(dict(checkpoint, state_dict=[*weights.values()]))),
        'numbers for keys': Case(saved(dict(checkpoint, state_dict=dict(enumerate(weights.values()))))),
        'texts for weights': Case(saved(dict(checkpoint, state_dict={k: 'x' for k in weights}))),
        'meta is a text': Case(saved(dict(checkpoint, meta='x'))),
        'metadata is a number': Case(archive(dumps(dict(bare, state_dict=Call('collections.OrderedDict',
                                                                             state=dict(_metadata=5)))))),
        'items is a number': Case(archive(dumps(dict(bare, state_dict=Call('collections.OrderedDict',
                                                                          state=dict(items=5)))))),
        'NaN': Case(saved(changed(**{first: weights[first] * float('nan')}))),
        'one NaN': Case(saved(changed(**{first: _with(weights[first], float('nan'))}))),
        'infinite': Case(saved(changed(**{first: _with(weights[first], float('inf'))})),
                         'refused at teacher load_from init_cfg resume test'),
        'NaN, safetensors': Case(save({**{k: v.contiguous() for k, v in weights.items()},
                                       first: _with(weights[first], float('nan'))}), suffix='.safetensors'),
        'NaN, half precision': Case(saved(dict(checkpoint, state_dict={
            k: _with(v.half(), float('nan')) if k == first else v for k, v in weights.items()}))),
    }

    # Sizes that are not there
    for name, value in {
            'of one number': tensor((2**20, 2**20), (0, 0)), 'beyond its memory': tensor((2**30, ), (1, )),
            'overlapping': tensor((2**20, 2**20), (1, 1), 2**21), 'of a negative size': tensor((-5, ), (1, )),
            'at a negative offset': tensor((1, ), (1, ), offset=-2**20),
            'beyond, at an offset': tensor((1, ), (1, ), offset=2**40),
            'with more memory than its record': tensor((2**24, ), (1, ), 2**24),
            'with a huge memory': tensor((1, ), (1, ), 2**45), 'with negative memory': tensor((1, ), (1, ), -1),
            'without memory': Call('torch._utils._rebuild_meta_tensor_no_storage', Name('torch.float32'),
                                   (2**30, 2**10), (2**10, 1), False),
    }.items():
        cases[f'a tensor {name}'] = Case(archive(dumps(dict(bare, state_dict={first: value})), {'0': bytes(4)}))
        cases[f'a tensor {name}, in the optimizer'] = Case(
            archive(dumps(dict(bare, optimizer=dict(state={0: dict(exp_avg=value)}))), {'0': bytes(4)}))
    for name, numel in {'2^45': 2**45, '2^31': 2**31, '-1': -1}.items():
        cases[f'legacy memory of {name} numbers'] = Case(
            legacy(dumps({first: tensor((1, ), (1, ), numel, legacy=True)}), ('0', )))
    cases['legacy memory, a hundred GiB in parts'] = Case(legacy(dumps(
        {f'{first}.{i}': tensor((1, ), (1, ), 2**28, str(i), legacy=True) for i in range(100)})))

    # Bombs
    cases |= {
        'bomb: compressed weights': Case(lambda path: _zip_bomb(path, 'data/0')),
        'bomb: compressed pickle': Case(lambda path: _zip_bomb(path, 'data.pkl')),
        'bomb: records that share bytes': Case(_shared_records(first)),
        'bomb: a thousand laughs': Case(archive(dumps(dict(bare, meta=dict(x=_laughs()))))),
        'bomb: one text encoded again and again': Case(archive(dumps(dict(bare, meta=dict(x=_encoded()))))),
        'bomb: one list copied again and again': Case(archive(dumps(dict(bare, meta=dict(x=_copied()))))),
        'bomb: bytes': Case(archive(dumps(dict(bare, meta=dict(x=Call('builtins.bytearray', 2**36)))))),
        'bomb: many bytes': Case(archive(dumps(dict(bare, meta=dict(x=[Call('builtins.bytearray', 2**28)
                                                                      for _ in range(64)]))))),
        'bomb: nested lists': Case(archive(b'\x80\x02' + b']' * 100000 + b'a' * 99999 + b'.')),
        'bomb: nested tuples': Case(archive(b'\x80\x02)' + b'\x85' * 200000 + b'.')),
        'bomb: a long text that is not there': Case(archive(b'\x80\x02X\xff\xff\xff\xff.')),
        'bomb: a memo slot far away': Case(archive(b'\x80\x02}r\xff\xff\xff\xff.'), 'refused'),
    }

    # safetensors
    def entry(shape, offsets, kind='F32') -> dict:
        return dict(dtype=kind, shape=shape, data_offsets=offsets)
    for name, content in {
            'a huge header': safetensors({}, length=2**63), 'a header longer than the file': safetensors({}, length=99),
            'a header of 99 MB that is not there': safetensors({}, length=99_000_000),
            'no JSON': safetensors(b'{"a": '),
            'a list for a header': safetensors(b'[1, 2]'), 'no header': safetensors(b''),
            'deep JSON': safetensors(b'{"a":' * 5000 + b'1' + b'}' * 5000),
            'bytes that are no text': safetensors(b'\xff' * 8),
            'overlapping offsets': safetensors({'a': entry([2], [0, 8]), 'b': entry([2], [4, 12])}, bytes(12)),
            'offsets out of range': safetensors({'a': entry([2], [0, 8])}, bytes(4)),
            'offsets backwards': safetensors({'a': entry([2], [8, 0])}, bytes(8)),
            'a hole': safetensors({'a': entry([1], [0, 4]), 'b': entry([1], [8, 12])}, bytes(12)),
            'a negative shape': safetensors({'a': entry([-2], [0, 8])}, bytes(8)),
            'a shape that overflows': safetensors({'a': entry([2**62, 4], [0, 8])}, bytes(8)),
            'a shape of another size': safetensors({'a': entry([3], [0, 8])}, bytes(8)),
            'an unknown type': safetensors({'a': entry([2], [0, 8], 'F33')}, bytes(8)),
            'no type': safetensors({'a': dict(shape=[2], data_offsets=[0, 8])}, bytes(8)),
            'one name twice': safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                          b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', bytes(8)),
            'metadata of numbers': safetensors({'__metadata__': {'a': 1}, 'a': entry([1], [0, 4])}, bytes(4)),
            'a huge empty tensor': safetensors({first: entry([2**40, 0], [0, 0])}), 'bytes behind it': tensors + b'x',
    }.items():
        cases[f'safetensors: {name}'] = Case(content, suffix='.safetensors')

    # What a resume reads beside the weights
    for name, key, value in (
            ('no optimizer', 'optimizer', None), ('an optimizer that is a text', 'optimizer', 'x'),
            ('an optimizer without groups', 'optimizer', {}),
            ('an epoch that is a text', 'meta', dict(epoch='x', iter='y')),
            ('no epoch', 'meta', {}), ('a message hub that is a list', 'message_hub', []),
            ('texts for schedulers', 'param_schedulers', ['x']), ('no schedulers', 'param_schedulers', [])):
        other = {k: v for k, v in checkpoint.items() if k != key} if value is None else dict(checkpoint, **{key: value})
        typed = ' that is a ' in name  # of no type that any door takes
        outcome = 'refused' if typed else 'loads at teacher load_from init_cfg export test'
        cases[f'resume: {name}'] = Case(saved(other), outcome)
    return cases


def _with(weight, value: float):
    weight = weight.clone()
    weight.view(-1)[weight.numel() // 2] = value
    return weight


def _without_checksums(saved: Callable, checkpoint: dict) -> bytes:
    from torch.utils.serialization import config
    if not hasattr(config.save, 'compute_crc32'):
        return saved(checkpoint)
    config.save.compute_crc32 = False
    try:
        return saved(checkpoint)
    finally:
        config.save.compute_crc32 = True


def _torchscript(path: Path) -> None:
    import torch
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


class _Touch:
    """Pickled by any pickler, it is a call of os.system."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}', )


def _numpy_objects(np, marker: Path) -> bytes:
    return pickle.dumps(dict(state_dict=dict(x=np.array([_Touch(marker)], dtype=object))), 2)


def _npy(np, marker: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([_Touch(marker)], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _npz(np, marker: Path) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([_Touch(marker)], dtype=object))
    return stream.getvalue()


def _zip_bomb(path: Path, name: str, size: int = 1536 * MIB) -> None:
    """A record of zeros, a thousandth of their size."""
    pickled = dumps({'a': tensor((size // 4, ), (1, ), size // 4)})
    files = {'data.pkl': pickled, 'byteorder': b'little', 'version': b'3\n'}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for other, content in files.items():
            if other != name:
                file.writestr(f'archive/{other}', content)
        with file.open(f'archive/{name}', 'w', force_zip64=True) as stream:
            for _ in range(size // (16 * MIB)):
                stream.write(bytes(16 * MIB))


def _shared_records(first: str, count: int = 400) -> bytes:
    """Many records, all of them the same eight million bytes of the file."""
    content = bytes(8 * MIB)
    whole = archive(dumps({f'{first}.{i}': tensor((2 * MIB, ), (1, ), 2 * MIB, f'{i:03}') for i in range(count)}),
                    {'000': content})
    directory = whole.index(b'PK\1\2')
    end = whole.rindex(b'PK\5\6')
    entries, place = [], directory
    while whole[place:place + 4] == b'PK\1\2':
        name, extra, comment = struct.unpack('<HHH', whole[place + 28:place + 34])
        entries.append(whole[place:place + 46 + name + extra + comment])
        place += len(entries[-1])
    entries += [entries[-1].replace(b'data/000', f'data/{i:03}'.encode()) for i in range(1, count)]
    listing = b''.join(entries)
    tail = whole[end:end + 8] + struct.pack('<HHII', len(entries), len(entries), len(listing), directory) + b'\0\0'
    return whole[:directory] + listing + tail


def _laughs(depth: int = 40) -> Call:
    """A dict of dicts of ..., each twice the one below: 2^40 of them once somebody copies it."""
    value: dict = dict(a=1)
    for _ in range(depth):
        value = dict(a=value, b=value)
    return Call('mmengine.config.config.ConfigDict', value)


def _encoded(count: int = 3000) -> list:
    text = 'x' * MIB
    return [Call('_codecs.encode', text, 'latin1') for _ in range(count)]


def _copied(count: int = 3000) -> list:
    pairs = [(i, None) for i in range(20000)]
    return [Call('collections.OrderedDict', pairs) for _ in range(count)]


# ---- the doors ----

class Doors:
    """Runs the tools in this process, as from a command line."""

    def __init__(self, folder: Path):
        from sfkd.datasets.digits_wild import generate_cls
        self.folder = folder
        generate_cls(folder / 'data', counts=dict(train=4, val=4, test=4))
        loaders = LOADERS.format(data=folder / 'data')
        for name, channels in dict(narrow=8, wide=16).items():
            text = CONFIG.format(root=ROOT, channels=channels, width=8 * channels, loaders=loaders)
            (folder / f'{name}.py').write_text(text)
        (folder / 'pair.py').write_text(PAIR.format(student=folder / 'narrow.py'))

    def tool(self, name: str, *arguments: object) -> None:
        """Raises what the tool ended in."""
        before = sys.argv
        sys.argv = [f'{name}.py', *map(str, arguments)]
        try:
            runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')
        finally:
            sys.argv = before

    def train(self, name: str, *arguments: object) -> None:
        shutil.rmtree(self.folder / 'work', ignore_errors=True)
        self.tool('train', self.folder / f'{name}.py', '--no-validate', '--work-dir', self.folder / 'work', *arguments)

    def weights(self, name: str) -> dict:
        from mmengine.config import Config

        from sfkd.openmmlab.building import build_model
        return build_model(Config.fromfile(self.folder / f'{name}.py').model, name, scope='mmpretrain').state_dict()

    def checkpoint(self) -> dict:
        from sfkd.checkpoint import read_checkpoint
        self.train('narrow')
        return read_checkpoint(str(self.folder / 'work/epoch_1.pth'), 'epoch_1.pth')

    def open(self, door: str, path: Path) -> None:
        config = self.folder / 'narrow.py'
        if door == 'teacher':
            self.train('pair', '--cfg-options', f'model.teacher_ckpt={path}')
        elif door == 'load_from':
            self.train('narrow', '--cfg-options', f'load_from={path}')
        elif door == 'init_cfg':
            self.train('narrow', '--cfg-options', 'model.init_cfg.type=Pretrained', f'model.init_cfg.checkpoint={path}')
        elif door == 'resume':
            self.train('narrow', '--resume', path)
        elif door == 'export':
            self.tool('export_student', config, path, self.folder / 'out.safetensors')
        elif door == 'test':
            self.tool('test', config, path, '--work-dir', self.folder / 'work')


class CacheDoor:
    """The folder of a teacher cache, one of whose files is changed."""

    SHAPES = {'a': (3, 4, 4), 'b': (5, )}
    ROWS = 4

    def __init__(self, folder: Path):
        import torch
        self.folder, self.inputs = folder / 'cache', torch.zeros(self.ROWS, 3, 8, 8)
        self.open()  # makes it
        self.whole = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        self.victim = folder / 'victim'

    def teacher(self, inputs, mask=None) -> dict:
        import torch
        return {path: torch.ones(len(inputs), *shape) for path, shape in self.SHAPES.items()}

    def open(self) -> None:
        from sfkd.distillation import TeacherCache
        cache = TeacherCache(self.teacher, self.folder, self.ROWS, self.SHAPES, dict(teacher='t'), 1.0)
        features = cache(self.inputs, rows=list(range(self.ROWS)))
        assert all(bool((value == 1).all()) for value in features.values()), 'wrong features'

    def cases(self, rng: random.Random) -> dict[str, tuple[str, Callable[[], None]]]:
        print_ = self.whole['fingerprint.json']

        def put(name: str, content: bytes) -> Callable[[], None]:
            return lambda: (self.folder / name).write_bytes(content)

        def instead(name: str, make: Callable[[Path], None]) -> Callable[[], None]:
            def change() -> None:
                (self.folder / name).unlink()
                make(self.folder / name)
            return change

        def linked(path: Path) -> None:
            self.victim.write_bytes(b'precious')
            path.symlink_to(self.victim)
        cases = {'cache: whole': ('loads', lambda: None)}
        for name, content in {
                'empty': b'', 'text': b'x', 'a list': b'[1]', 'a number': b'1', 'null': b'null', 'no text': b'\xff\xfe',
                'deep': b'[' * 200000, 'cut off': print_[:len(print_) // 2],
                'huge': print_[:-2] + b', "x": "' + b'y' * (64 * MIB) + b'"}', 'other types': json.dumps(
                    {key: 5 for key in json.loads(print_)}).encode(), 'another teacher': print_.replace(b'"t"', b'"u"'),
                'a huge number': re.sub(rb'"rows": \d+', b'"rows": 1' + b'0' * 5000, print_)}.items():
            cases[f'cache: fingerprint {name}'] = 'refused', put('fingerprint.json', content)
        for name in ('a-3x4x4.features.bin', 'a-3x4x4.checksums.bin'):
            content = self.whole[name]
            # without checksums there are no rows; without features there is nothing that checksums could be of
            nothing = 'loads' if 'checksums' in name else 'refused'
            cases[f'cache: {name} empty'] = nothing, put(name, b'')
            for title, other in {'cut off': content[:-3], 'too large': content + b'x' * 999}.items():
                cases[f'cache: {name} {title}'] = 'refused', put(name, other)
            cases[f'cache: {name} all ones'] = 'loads', put(name, b'\xff' * len(content))
            cases[f'cache: {name} zeros'] = 'loads', put(name, bytes(len(content)))
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1
            cases[f'cache: {name} bit flipped'] = 'loads', put(name, bytes(flipped))
            cases[f'cache: {name} a link'] = 'refused', instead(name, linked)
            cases[f'cache: {name} a pipe'] = 'refused', instead(name, os.mkfifo)
            cases[f'cache: {name} a device'] = 'refused', instead(name, lambda path: path.symlink_to('/dev/zero'))
            cases[f'cache: {name} a folder'] = 'refused', instead(name, Path.mkdir)
            cases[f'cache: {name} gone'] = nothing, instead(name, lambda path: None)
        cases['cache: fingerprint gone'] = 'refused', instead('fingerprint.json', lambda path: None)
        cases['cache: fingerprint a folder'] = 'refused', instead('fingerprint.json', Path.mkdir)
        return cases

    def run(self, change: Callable[[], None]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in self.whole.items():
            (self.folder / name).write_bytes(content)
        change()
        self.open()
        assert not self.victim.exists() or self.victim.read_bytes() == b'precious', 'wrote through a link'


# ---- running ----

class Late(BaseException):
    """No Exception, so that nothing takes it for a damaged file."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def late(*_):
        raise Late(f'more than {seconds} s')
    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def memory(key: str) -> int:
    return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024


def observed(work: Callable[[], None], seconds: int) -> dict:
    """What a piece of work ended in: 'loads', 'refused' or an exception's type; its time and growth of memory."""
    import logging

    from mmengine.logging import MessageHub, MMLogger
    from mmengine.visualization import Visualizer

    from sfkd.errors import ConfigError
    with contextlib.suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before, start = memory('VmRSS'), time.process_time()  # of this process: the machine may have others
    said = io.StringIO()
    try:
        with limited(seconds), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            work()
        outcome, message = 'loads', ''
    except ConfigError as error:
        outcome, message = 'refused', str(error)
    except SystemExit as error:
        outcome, message = ('refused' if error.code == 2 else f'exit {error.code}'), said.getvalue()
    except BaseException as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        outcome, message = type(error).__name__, f'{error} ({frame.filename}:{frame.lineno})'
    if outcome == 'refused':
        message = message[message.rindex('\n- ' if '\n- ' in message else '- ') + 1:].strip()
    for name in list(logging.Logger.manager.loggerDict):  # each run opens a log file
        for handler in list(getattr(logging.getLogger(name), 'handlers', ())):
            if isinstance(handler, logging.FileHandler):
                handler.close()
                logging.getLogger(name).removeHandler(handler)
    for kind in (MessageHub, MMLogger, Visualizer):  # runs of one second have one name
        kind._instance_dict.clear()
    return dict(outcome=outcome, message=message[-400:], seconds=round(time.process_time() - start, 2),
                mib=round((memory('VmHWM') - before) / MIB))


def child(args: argparse.Namespace) -> None:
    """Run the cases that are left, and write a line before and after each."""
    import torch
    torch.set_num_threads(1)
    from mmengine.logging import MMLogger

    from sfkd.openmmlab.running import prepare_process
    prepare_process()
    MMLogger.get_current_instance().setLevel('ERROR')
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        report = stack.enter_context(open(args.child, 'a', buffering=1))
        folder = Path(folder)
        doors = Doors(folder)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            checkpoint, wide = doors.checkpoint(), doors.weights('wide')
        cache = CacheDoor(folder)
        cases = corpus(folder, copy.deepcopy(checkpoint), wide, rng)
        listed = [(kind, door, cases[kind].expected(door), None) for kind in cases for door in DOORS]
        listed += [(kind, 'cache', expected, change) for kind, (expected, change) in cache.cases(rng).items()]
        listed = [case for case in listed if re.search(args.only, case[0]) and case[1] in args.doors]
        done = {(row['kind'], row['door']) for row in rows_of(Path(args.child))}
        path, made = None, None
        for kind, door, expected, change in listed[args.offset::args.every]:
            if (kind, door) in done:
                continue
            report.write(json.dumps(dict(kind=kind, door=door, expected=expected)) + '\n')
            if change is None:
                if made != kind:
                    shutil.rmtree(folder / 'files', ignore_errors=True)
                    (folder / 'files').mkdir()
                    path, made = folder / f'files/case{cases[kind].suffix}', kind
                    cases[kind].make(path)
                result = observed(lambda: doors.open(door, path), 3 * args.seconds)
                size = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
            else:
                result, size = observed(lambda: cache.run(change), 3 * args.seconds), 0
            result['ran'] = (folder / 'ran').exists()
            (folder / 'ran').unlink(missing_ok=True)
            report.write(json.dumps(dict(kind=kind, door=door, expected=expected, size=size, **result)) + '\n')


def rows_of(report: Path) -> list[dict]:
    """The last line of each case."""
    lines = map(json.loads, report.read_text().splitlines()) if report.is_file() else ()
    return list({(row['kind'], row['door']): row for row in lines}.values())


def wrong(row: dict, seconds: float) -> str | None:
    if 'outcome' not in row:
        return 'the process died'
    if row['ran']:
        return 'its code has run'
    if row['outcome'] not in ('loads', 'refused'):
        return f"ended in {row['outcome']}"
    if row['expected'] not in ('either', row['outcome']):
        return f"{row['outcome']}, where it should be {row['expected']}"
    if row['seconds'] > seconds:
        return f"took {row['seconds']} s"
    if row['mib'] > 3 * row['size'] / MIB + 512:
        return f"took {row['mib']} MiB"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seed', type=int, default=0, help='of the places of truncation and damage')
    parser.add_argument('--only', default='', metavar='PATTERN', help='kinds in which this is found')
    parser.add_argument('--doors', nargs='+', choices=[*DOORS, 'cache'], default=[*DOORS, 'cache'])
    parser.add_argument('--every', type=int, default=1, help='take one case of so many')
    parser.add_argument('--offset', type=int, default=0)
    parser.add_argument('--seconds', type=float, default=20, help='the most that a case may take')
    parser.add_argument('--json', type=Path, help='also write a row for each case there')
    parser.add_argument('--child', help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.seconds = int(args.seconds)
    if args.child:
        child(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, 'report.jsonl')
        environment = {'OMP_NUM_THREADS': '1', **os.environ, 'PYTHONPATH': str(ROOT)}
        for _ in range(20):  # of processes that die
            before = len(rows_of(report))
            status = subprocess.run([sys.executable, __file__, *sys.argv[1:], '--child', str(report)], cwd=ROOT,
                                    env=environment, stderr=subprocess.PIPE, text=True)
            if not status.returncode:
                break
            if len(rows_of(report)) == before:
                sys.exit(status.stderr[-3000:])
        rows = rows_of(report)
    if args.json:
        args.json.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    show(rows, args.seconds)


def show(rows: list[dict], seconds: float) -> None:
    by_kind = collections.defaultdict(list)
    for row in rows:
        by_kind[re.sub(r' \d+$', '', row['kind'])].append(row)
    print(f"{'kind':<52}{'cases':>6}{'refused':>9}{'loads':>7}{'other':>7}{'most s':>8}{'MiB':>6}")
    for kind, found in by_kind.items():
        outcomes = collections.Counter(row.get('outcome', 'died') for row in found)
        other = len(found) - outcomes['refused'] - outcomes['loads']
        slowest, largest = (max(row.get(key, 0) for row in found) for key in ('seconds', 'mib'))
        print(f"{kind:<52}{len(found):>6}{outcomes['refused']:>9}{outcomes['loads']:>7}{other:>7}{slowest:>8.2f}{largest:>6}")
    print()
    bad = [(row, problem) for row in rows if (problem := wrong(row, seconds))]
    for row, problem in bad:
        print(f"WRONG {row['kind']} at {row['door']}: {problem}: {row.get('message', '')}")
    ran = sum(row.get('ran', False) for row in rows)
    slowest, largest = (max((row.get(key, 0) for row in rows), default=0) for key in ('seconds', 'mib'))
    print(f'{len(rows)} cases, {len(by_kind)} kinds: code ran in {ran}, {len(bad)} wrong; the slowest took '
          f'{slowest:.1f} s, the largest {largest} MiB')
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
