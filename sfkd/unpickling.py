"""Reads a file that a stranger may have made, as :func:`torch.save` does: none of its code runs, and it takes no more
memory than such a file needs.
"""
from __future__ import annotations

import argparse
import contextlib
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import Tensor

#: Bytes that reading may take beside three times the file (its pickle becomes larger objects).
SLACK = 2**28
MAX_CONFIG = 10**6  # parts of one ConfigDict, whose copies share nothing
_NUMBERS = {np.dtype(code).str[1:] for code in '?bBhHiIlLqQefd'}


class Refused(Exception):
    """Why a file is not what torch.save writes."""


# ---- what takes the place of a name in a pickle ----

def _history_method(owner, name: str):
    """Stands in for ``getattr``: mmengine's HistoryBuffer stores references to its own four methods."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')
    return getattr(owner, name)


class _NumberType:
    """Stands in for ``np.dtype``, whose own pickled state can turn numbers into pointers or point outside of an
    array.
    """

    def __init__(self, code: str, *_):
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f'Unsupported global: GLOBAL numpy.dtype({code!r})')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """Stands in for ``np.ndarray``, which allocates and points as a pickle says: only numbers, and as many as are
    there. Pickled, it is a plain array again.
    """

    def __new__(cls, *_):
        raise pickle.UnpicklingError('Unsupported global: GLOBAL numpy.ndarray(...)')

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, fortran, data = state
        if type(kind) is not _NumberType or self.shape != (0, ):  # a second state would free what may be in use
            raise pickle.UnpicklingError('an array that numpy does not write')
        super().__setstate__((1, shape, kind.dtype, fortran, data))

    def __reduce__(self):
        return self.view(np.ndarray).__reduce__()


def _array(*_) -> np.ndarray:
    """Stands in for numpy's ``_reconstruct``: an empty array, whose state follows."""
    return np.ndarray.__new__(_Array, (0, ), np.int8)


def _scalar(kind: _NumberType, data: bytes):
    """Stands in for numpy's ``scalar``."""
    if type(kind) is not _NumberType:
        raise pickle.UnpicklingError('a number that numpy does not write')
    number, = np.frombuffer(data, kind.dtype)
    return number


def _config(content: dict) -> ConfigDict:
    """Stands in for mmengine's ConfigDict, which copies what it is given as often as it is named there."""
    rest = [content]
    for _ in range(MAX_CONFIG):
        if not rest:
            return ConfigDict(content)
        part = rest.pop()
        if isinstance(part, dict):
            rest += dict.values(part)
        elif isinstance(part, (list, tuple)):
            rest += part
    raise pickle.UnpicklingError(f'a config of more than {MAX_CONFIG - 1:,} parts')


#: What a checkpoint may contain besides tensors and plain containers: what mmengine's own runner writes, the options
#: that many a training script adds, and nothing that can call code.
SAFE_GLOBALS = [
    argparse.Namespace, HistoryBuffer, slice, (_config, 'mmengine.config.config.ConfigDict'),
    (_history_method, 'builtins.getattr'), (_NumberType, 'numpy.dtype'), (_Array, 'numpy.ndarray'),
    *((stand_in, f'numpy.{core}.multiarray.{name}') for core in ('core', '_core')  # before and since NumPy 2
      for stand_in, name in ((_array, '_reconstruct'), (_scalar, 'scalar')))
]


# ---- reading ----

def load(file: Path):
    """What torch.save wrote into a file, on the CPU.

    Raises:
        pickle.UnpicklingError: it names what is neither a tensor nor on the list, as ``GLOBAL <name>``.
        Refused: it is no such file, is damaged, or takes more memory than it should.
        Exception: of any type, from torch, for a damaged one.
    """
    size = file.stat().st_size
    _check_archive(file, size)
    try:
        with bounded_memory(3 * size + SLACK), torch.serialization.safe_globals(SAFE_GLOBALS):
            found = torch.load(file, map_location='cpu', weights_only=True)
    except MemoryError as error:
        raise Refused(f'it would take more than {(3 * size + SLACK) / 2**20:,.0f} MiB') from error
    for path, tensor in _tensors_in(found):
        _check_tensor(path, tensor, size)
    return found


@contextlib.contextmanager
def bounded_memory(most: int) -> Iterator[None]:
    """Have the system refuse this process more than so many bytes of new memory; on Linux, elsewhere without effect."""
    try:
        import resource
        used = int(re.search(r'VmData:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024
    except (ImportError, OSError):
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + most
    resource.setrlimit(resource.RLIMIT_DATA, (limit if soft == resource.RLIM_INFINITY else min(limit, soft), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _check_archive(file: Path, size: int) -> None:
    """Refuse a zip archive with records that are compressed, share bytes, or are not those of their CRC-32, which torch
    does not look at.
    """
    with open(file, 'rb') as stream:
        if stream.read(4) != b'PK\3\4':
            return  # torch's format before 1.6, which has no checksum, or no checkpoint at all
    try:
        with zipfile.ZipFile(file) as archive:
            records = archive.infolist()
            if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                raise Refused('its records are compressed, which torch.save does not do')
            if sum(record.file_size for record in records) > size:
                raise Refused('its records share bytes, which torch.save does not do')
            for record in records:
                if record.CRC:  # 0: written without
                    with archive.open(record) as content:
                        while content.read(2**20):
                            pass
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Refused(str(error) or 'an incomplete archive') from error


def _tensors_in(found) -> Iterator[tuple[tuple, Tensor]]:
    """Every tensor in nested dicts, lists and tuples, and where it is: ``(where what holds it is, key)``."""
    seen, rest = set(), [((), found)]
    while rest:
        path, value = rest.pop()
        if torch.is_tensor(value):
            yield path, value
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            parts = dict.items(value) if isinstance(value, dict) else enumerate(value)
            rest += [((path, key), part) for key, part in parts]


def _check_tensor(path: tuple, tensor: Tensor, size: int) -> None:
    """Refuse a tensor that is of no plain kind, or of more values than the file has bytes: a copy of it would take what
    the file did not.
    """
    plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout is torch.strided and not tensor.is_quantized
    if not plain or tensor.device.type != 'cpu':
        raise Refused(f"'{path[-1]}' is no plain tensor" if path else 'it holds one tensor')
    if max(tensor.numel(), tensor.untyped_storage().nbytes()) > size:
        raise Refused(f"'{path[-1]}' of shape {tuple(tensor.shape)} has more values than the file has bytes")
