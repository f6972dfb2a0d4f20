"""The teacher cache: what the teacher showed of a picture is kept on disk, and from then on stands in for the
teacher.
"""
from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, is_main_process
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import ConfigError
from .teacher import Teacher

Features = dict[str, Tensor]
GIB = 2**30
#: How a row's numbers are stored -> their type, and numpy's type of as many bits (it has no bfloat16).
STORED = dict(fp32=(torch.float32, np.float32), bf16=(torch.bfloat16, np.int16))
MAX_FINGERPRINT = 2**20  # characters; of ours some hundred


class _Kept:
    """Rows of one tap, in two files: ``<tap>.features.bin``, and ``<tap>.checksums.bin`` with a CRC-32 of each (0: not
    there yet). The row is written before its checksum, so that an interrupted run leaves whole rows only.

    Args:
        folder, path: where, and the tap's path.
        rows: how many.
        shape: of one picture's features; a part of the files' names, since a tap's scores and its map are two things.
        bits: numpy's type of a number.
    """

    def __init__(self, folder: Path, path: str, rows: int, shape: tuple[int, ...], bits: type):
        name = f"{path}-{'x'.join(map(str, shape))}"
        self.shape, width = shape, math.prod(shape)
        self._forms = {folder / f'{name}.features.bin': (bits, (rows, width)),
                       folder / f'{name}.checksums.bin': (np.uint32, (rows, ))}
        self.sizes = {file: np.dtype(kind).itemsize * math.prod(form) for file, (kind, form) in self._forms.items()}

    @property
    def missing(self) -> list[Path]:
        """The files that :meth:`open` would make."""
        return [file for file in self.sizes if not file.is_symlink() and (
            not file.exists() or file.is_file() and not file.stat().st_size)]

    def check(self) -> None:
        """A link would have the run write into a file elsewhere; of another size the file is cut off or no one's of
        ours.

        Raises:
            ConfigError: for either.
        """
        _, checksums = self.sizes
        # of a run that was killed in make(); the features alone are missing where somebody took them
        missing = self.missing if checksums in self.missing else []
        for file, expected in self.sizes.items():
            if file.is_symlink():
                problem = 'is a link'
            elif file in missing:
                continue
            elif not file.is_file():
                problem = 'is no file'
            elif (size := file.stat().st_size) != expected:
                problem = f'has {size:,} bytes where {expected:,} belong'
            else:
                continue
            raise ConfigError(f"teacher cache: '{file}' {problem}; delete '{file.parent}', or give another folder")

    def make(self) -> None:
        """Make what is not there."""
        for file in self.missing:
            with open(file, 'ab') as made:  # of two runs that make it at once none cuts off what the other wrote
                made.truncate(self.sizes[file])  # zeros that take no space yet

    def open(self) -> None:
        self.features, self.checksums = (np.memmap(file, kind, 'r+', shape=form)
                                         for file, (kind, form) in self._forms.items())

    def read(self, row: int) -> np.ndarray | None:
        """None if it is not there, with a warning if it is damaged."""
        if not self.checksums[row]:
            return None
        kept = np.array(self.features[row])
        if _checksum(kept) != self.checksums[row]:
            print_log(f'teacher cache: row {row} of {self.features.filename} is damaged and will be computed again',
                      'current', level=logging.WARNING)
            return None
        return kept

    def write(self, row: int, values: np.ndarray) -> None:
        self.features[row] = values
        self.checksums[row] = _checksum(values)


class TeacherCache:
    """Stands in for a teacher: each tap's rows, one for each augmentation of each picture.

    A folder: ``fingerprint.json`` says of what the rows are, and each tap has files of its own (:class:`_Kept`), so
    that runs that read other taps of the same teacher share what they have in common. A row that does not match its
    checksum is computed again, with a warning. Processes of one run share the folder.

    Args:
        teacher: shows what is missing.
        folder: made where it does not exist.
        rows: pictures x augmentations.
        shapes: ``{path of a tap: shape of one picture's features}``.
        fingerprint: ``{what: digest}``; a folder is only used by a run of the same.
        max_gib: the most that the whole folder may take.
        stored: 'fp32', or 'bf16', which takes half the space and keeps 8 bits of each number's mantissa; what is taught
            is then rounded in every epoch, also in the one that fills the cache.

    Raises:
        ConfigError: ``stored`` is neither; or, for any of the processes, the folder is of something else or is no
            cache, or the cache would not fit; nothing in the folder is changed then.
    """

    def __init__(self, teacher: Teacher, folder: str | Path, rows: int, shapes: dict[str, tuple[int, ...]],
                 fingerprint: dict[str, str], max_gib: float, stored: str = 'fp32'):
        if stored not in STORED:
            raise ConfigError(f"teacher cache: stored={stored!r} is neither of {', '.join(map(repr, STORED))}")
        self.teacher: Teacher | None = teacher
        self.dtype, bits = STORED[stored]
        self.folder, self.rows = Path(folder), rows
        self.taps = {path: _Kept(self.folder, path, rows, tuple(shape), bits) for path, shape in shapes.items()}
        fingerprint = dict(fingerprint, stored=stored, rows=rows)
        self._agree(fingerprint, max_gib)
        if is_main_process():
            self._make(fingerprint)
        barrier()
        for tap in self.taps.values():
            tap.open()
        whole = np.count_nonzero(np.all([tap.checksums for tap in self.taps.values()], axis=0))
        print_log(f'teacher cache: {whole:,} of {rows:,} rows are in {self.folder}', 'current')

    rest = None  # nothing is kept of what follows the taps

    def __call__(self, inputs: Tensor, mask: Tensor | None = None, rows: list[int] | None = None) -> Features:
        """The teacher's features of a batch; the teacher runs on the pictures of which a row is missing.

        Args:
            inputs, mask: see :class:`Teacher`.
            rows: which row is whose picture's.

        Raises:
            ConfigError: no rows, or pictures of another size than the cache is for.
            RuntimeError: a damaged row after :meth:`release_teacher`.
        """
        if rows is None:
            raise ConfigError('teacher cache: the samples of a batch do not say which row is theirs; wrap the training '
                              "set: train_dataloader.dataset=dict(type='sfkd.ReplayedDataset', dataset=...)")
        kept = {path: [tap.read(row) for row in rows] for path, tap in self.taps.items()}
        if missing := [i for i, parts in enumerate(zip(*kept.values())) if any(part is None for part in parts)]:
            whole = len(missing) == len(rows)
            shown = self._show(inputs if whole else inputs[missing],
                               mask if mask is None or whole else mask[missing])
            for path, values in shown.items():
                for i, row in zip(missing, values):
                    kept[path][i] = row
                    self.taps[path].write(rows[i], row)
        return {path: self._features(np.stack(parts), self.taps[path].shape, inputs.device)
                for path, parts in kept.items()}

    def _show(self, inputs: Tensor, mask: Tensor | None) -> dict[str, np.ndarray]:
        """Rows of what the teacher makes of some pictures."""
        if self.teacher is None:
            raise RuntimeError(f'teacher cache: a row in {self.folder} was damaged after all had been read whole, and '
                               'the teacher has left the memory; start the run again with --resume: the row will be '
                               'computed anew')
        features = self.teacher(inputs, mask)
        if wrong := {path: tuple(features[path].shape[1:])
                     for path, tap in self.taps.items() if features[path].shape[1:] != tap.shape}:
            raise ConfigError(f'teacher cache: pictures of {inputs.shape[2]}x{inputs.shape[3]} give {wrong}, where the '
                              f'cache is for { {path: self.taps[path].shape for path in wrong} }; only training sets '
                              'whose pictures all have the size of model.input_size can be cached')
        return {path: _bits(features[path].float().flatten(1).to(self.dtype).cpu()) for path in self.taps}

    def _features(self, rows: np.ndarray, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """What rows of a tap hold, in float32 on a device."""
        batch = torch.from_numpy(rows).view(self.dtype).to(device, non_blocking=True).float()
        return batch.unflatten(1, shape)

    def release_teacher(self) -> bool:
        """Drop the teacher, and its memory, if every row is there and whole; whether that is so now."""
        if self.teacher is not None and all(tap.checksums.all() for tap in self.taps.values()) and all(
                tap.read(row) is not None for tap in self.taps.values() for row in range(self.rows)):
            self.teacher = None
            print_log(f'teacher cache: all {self.rows:,} rows are whole; the teacher leaves the memory', 'current')
        return self.teacher is None

    def _agree(self, fingerprint: dict, max_gib: float) -> None:
        """Raise in every process what any of them finds, before one of them writes: a process alone would leave the
        others waiting.
        """
        try:
            self._check(fingerprint, max_gib)
            problems = []
        except ConfigError as error:
            problems = error.problems
        if found := dict.fromkeys(problem for of_process in all_gather_object(problems) for problem in of_process):
            raise ConfigError(list(found))

    def _check(self, fingerprint: dict, max_gib: float) -> None:
        sizes = {file: size for tap in self.taps.values() for file, size in tap.sizes.items()}
        needed = sum(sizes.values())
        if is_main_process():
            print_log(f'teacher cache: {self.rows:,} rows x {needed / self.rows / 1024:,.1f} KiB = {needed / GIB:.3g} '
                      f'GiB in {self.folder}', 'current')
        ours = (self.folder / 'fingerprint.json').is_file()
        others = [file for file in self.folder.glob('*.bin') if file not in sizes] if ours else []
        size = needed + sum(file.stat().st_size for file in others if file.is_file())
        if size > max_gib * GIB:
            beside = f', beside {(size - needed) / GIB:.3g} GiB of other taps,' if others else ''
            raise ConfigError(f'teacher cache: {needed / GIB:.3g} GiB for {self.rows:,} rows{beside} is more than '
                              f'max_gib={max_gib:g}; raise it, take fewer variants, or train without the cache')
        if ours:
            found = self._read_fingerprint()
            if differ := [key for key in {**fingerprint, **found} if found.get(key) != fingerprint.get(key)]:
                raise ConfigError(f"teacher cache: '{self.folder}' was made with another {', '.join(differ)} than this "
                                  'run has; its rows would teach something else. Give another folder, or delete that '
                                  'one')
            for tap in self.taps.values():
                tap.check()
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(f"teacher cache: '{self.folder}' is there and is no teacher cache; give another folder")
        new = sum(sizes[file] for tap in self.taps.values() for file in tap.missing)
        existing = next(parent for parent in (self.folder, *self.folder.absolute().parents) if parent.exists())
        if new > (free := shutil.disk_usage(existing).free):
            raise ConfigError(f'teacher cache: {new / GIB:.3g} GiB do not fit into the {free / GIB:.3g} GiB that are '
                              f"free in '{existing}'")

    def _read_fingerprint(self) -> dict:
        """What the folder is of; nothing where the file is damaged."""
        try:
            with open(self.folder / 'fingerprint.json', encoding='utf-8') as file:
                found = json.loads(file.read(MAX_FINGERPRINT))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _make(self, fingerprint: dict) -> None:
        if not (self.folder / 'fingerprint.json').is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            # beside the folder: what lies in one without a fingerprint is not ours
            temporary = self.folder.with_name(f'{self.folder.name}.{os.getpid()}.part')
            temporary.write_text(json.dumps(fingerprint, indent=1) + '\n')
            os.replace(temporary, self.folder / 'fingerprint.json')
        for tap in self.taps.values():
            tap.make()

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """See :meth:`Teacher.apply_`."""
        if self.teacher is not None:
            self.teacher.apply_(function)

    def changed_by(self, function: Callable[[Tensor], Tensor]) -> bool:
        """See :meth:`Teacher.changed_by`; not once the teacher has left the memory."""
        return self.teacher is not None and self.teacher.changed_by(function)

    def copied(self) -> TeacherCache:
        """One with a teacher of its own, on the same rows."""
        other = copy.copy(self)
        other.teacher = self.teacher.copied()
        return other

    def __deepcopy__(self, memo) -> TeacherCache:
        return self  # an EMA copy of the student needs no second one


def tap_shapes(distillation: nn.Module) -> dict[str, tuple[int, ...]]:
    """``{path of each of the teacher's taps: shape of one picture's output}`` of a :class:`Distillation`."""
    return {pair.teacher_path: pair.teacher_stage.shape for pair in distillation.pairs}


def _bits(values: Tensor) -> np.ndarray:
    """A tensor's memory as numpy has it."""
    return (values.view(torch.int16) if values.dtype == torch.bfloat16 else values).numpy()


def _checksum(row: np.ndarray) -> int:
    return zlib.crc32(row.tobytes()) or 1  # 0 says that there is no row


def digest_of(*parts: str | bytes) -> str:
    """A short digest of texts and bytes, in order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, 'little') + data)
    return digest.hexdigest()[:16]


def digest_of_network(network: nn.Module) -> str:
    """Of a network's layers and weights."""
    def parts() -> Iterable[str | bytes]:
        yield str(network)
        for name, tensor in sorted(network.state_dict().items()):
            yield name
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return digest_of(*parts())


def _parts(value) -> Iterable[str | bytes]:
    """Texts and bytes that tell a value from others: of arrays all numbers, which as text would be cut short."""
    if torch.is_tensor(value):
        value = _bits(value.detach().cpu().contiguous())
    if isinstance(value, np.ndarray):
        yield f'{value.dtype} {value.shape}'
        yield value.tobytes()
    elif isinstance(value, dict):
        for key, held in value.items():
            yield f'{key}'
            yield from _parts(held)
    elif isinstance(value, (list, tuple)) and not all(isinstance(held, (str, int, float)) for held in value):
        yield f'{len(value)}'
        for held in value:
            yield from _parts(held)
    else:
        yield f'{value}'


def digest_of_data(dataset) -> str:
    """Of what a data set lists (paths, labels, pictures in memory) and of its files' sizes; a file that is changed and
    keeps its size goes unnoticed.
    """
    def parts() -> Iterable[str | bytes]:
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            path = info.get('img_path')
            yield from _parts(info)
            yield f'{os.path.getsize(path) if path and os.path.isfile(path) else ""}'
    return digest_of(*parts())
