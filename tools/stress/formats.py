"""The formats of checkpoints, written byte by byte: what no library would write into them."""
from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile

MIB = 2**20


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
