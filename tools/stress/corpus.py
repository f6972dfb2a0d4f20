"""Checkpoints that are hostile, broken or whole, each with what it must end in."""
from __future__ import annotations

import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from formats import MIB, Call, Name, archive, dumps, legacy, safetensors, tar, tensor


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

    def options(**state) -> dict:
        return dict(bare, args=Call('argparse.Namespace', state=state))

    forms = {'a list': [code], 'itself': code, 'a key': {code: 1}, 'a tuple': (code, ), 'metadata': dict(
        bare, state_dict=Call('collections.OrderedDict', state=dict(_metadata=code))), 'options': options(x=code),
        'a method of options': options(__setstate__=Name('os.system'))}
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
        'all keys renamed': Case(saved(dict(checkpoint, state_dict={f'{k}x': v for k, v in weights.items()}))),
        'all keys below one name': Case(saved(dict(checkpoint, state_dict={f'x.{k}': v for k, v in weights.items()})),
                                        'loads at teacher test'),
        'one key renamed': Case(saved(dict(checkpoint, state_dict={
            k if k != first else 'renamed': v for k, v in weights.items()})), 'refused at teacher resume export test'),
        'no weights': Case(saved(dict(checkpoint, state_dict={}))),
        'nothing in it': Case(saved({})), 'a list': Case(saved([1, 2])), 'a tensor': Case(saved(torch.ones(3))),
        'weights in a list': Case(saved(dict(checkpoint, state_dict=[*weights.values()]))),
        'numbers for keys': Case(saved(dict(checkpoint, state_dict=dict(enumerate(weights.values()))))),
        'texts for weights': Case(saved(dict(checkpoint, state_dict={k: 'x' for k in weights}))),
        'meta is a text': Case(saved(dict(checkpoint, meta='x')), 'loads at teacher load_from init_cfg export test'),
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
        'bomb: compressed weights': Case(lambda path: zip_bomb(path, 'data/0')),
        'bomb: compressed pickle': Case(lambda path: zip_bomb(path, 'data.pkl')),
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
        cases[f'resume: {name}'] = Case(saved(other), 'loads at teacher load_from init_cfg export test')
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


def zip_bomb(path: Path, name: str, size: int = 1536 * MIB) -> None:
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
