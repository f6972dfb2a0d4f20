"""The teacher cache: what the teacher showed of a picture is kept on disk, and from then on stands in for the
teacher.
"""
from __future__ import annotations

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


class TeacherCache:
    """Stands in for a teacher: rows, one for each augmentation of each picture, of all taps one after the other.

    A folder of three files: ``fingerprint.json`` says of what the rows are, ``features.bin`` holds them,
    ``checksums.bin`` a CRC-32 of each (0: not there yet). The row is written before its checksum, so that an
    interrupted run leaves whole rows only; a row that does not match is computed again, with a warning. Processes of
    one run share the folder.

    Args:
        teacher: shows what is missing.
        folder: made where it does not exist.
        rows: pictures x augmentations.
        shapes: ``{path of a tap: shape of one picture's features}``, in the order in which they lie in a row.
        fingerprint: ``{what: digest}``; a folder is only used by a run of the same.
        max_gib: the most that the whole cache may take.
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
        self.dtype, self.bits = STORED[stored]
        self.folder, self.rows, self.shapes = Path(folder), rows, shapes
        self.widths = [math.prod(shape) for shape in shapes.values()]
        # a list: their order counts
        self._row_bytes = self.bits().itemsize * sum(self.widths)
        self._files = {'features.bin': rows * self._row_bytes, 'checksums.bin': 4 * rows}
        fingerprint = dict(fingerprint, stored=stored, rows=rows,
                           shapes=[[path, *shape] for path, shape in shapes.items()])
        self._agree(fingerprint, max_gib)
        if is_main_process():
            self._make(fingerprint)
        barrier()
        self.features = np.memmap(self.folder / 'features.bin', self.bits, 'r+', shape=(rows, sum(self.widths)))
        self.checksums = np.memmap(self.folder / 'checksums.bin', np.uint32, 'r+', shape=(rows, ))
        print_log(f'teacher cache: {np.count_nonzero(self.checksums):,} of {rows:,} rows are in {self.folder}',
                  'current')

    rest = None  # nothing is kept of what follows the taps

    def __call__(self, inputs: Tensor, mask: Tensor | None = None, rows: list[int] | None = None) -> Features:
        """The teacher's features of a batch; the teacher runs on the pictures whose rows are missing.

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
        kept = [self._read(row) for row in rows]
        missing = [i for i, row in enumerate(kept) if row is None]
        if missing:
            whole = len(missing) == len(rows)
            shown = self._show(inputs if whole else inputs[missing],
                               mask if mask is None or whole else mask[missing])
            for i, row in zip(missing, shown):
                kept[i] = self.features[rows[i]] = row
                self.checksums[rows[i]] = _checksum(row)
        return self._features(torch.from_numpy(np.stack(kept)), inputs.device)

    def _show(self, inputs: Tensor, mask: Tensor | None) -> np.ndarray:
        """Rows of what the teacher makes of some pictures."""
        if self.teacher is None:
            raise RuntimeError(f'teacher cache: a row in {self.folder} was damaged after all had been read whole, and '
                               'the teacher has left the memory; start the run again with --resume: the row will be '
                               'computed anew')
        features = self.teacher(inputs, mask)
        if wrong := {path: tuple(features[path].shape[1:])
                     for path, shape in self.shapes.items() if features[path].shape[1:] != shape}:
            raise ConfigError(f'teacher cache: pictures of {inputs.shape[2]}x{inputs.shape[3]} give {wrong}, where the '
                              f'cache is for { {path: self.shapes[path] for path in wrong} }; only training sets whose '
                              'pictures all have the size of model.input_size can be cached')
        return _bits(torch.cat([features[path].float().flatten(1) for path in self.shapes], 1).to(self.dtype).cpu())

    def _features(self, rows: Tensor, device: torch.device) -> Features:
        """What rows hold, in float32 on a device."""
        batch = rows.view(self.dtype).to(device, non_blocking=True).float()
        return {path: part.unflatten(1, shape).contiguous()
                for (path, shape), part in zip(self.shapes.items(), batch.split(self.widths, dim=1))}

    def release_teacher(self) -> bool:
        """Drop the teacher, and its memory, if every row is there and whole; whether that is so now."""
        rows = range(self.rows)
        if self.teacher is not None and self.checksums.all() and all(self._read(row) is not None for row in rows):
            self.teacher = None
            print_log(f'teacher cache: all {self.rows:,} rows are whole; the teacher leaves the memory', 'current')
        return self.teacher is None

    def _read(self, row: int) -> np.ndarray | None:
        if not self.checksums[row]:
            return None
        kept = np.array(self.features[row])
        if _checksum(kept) != self.checksums[row]:
            print_log(f'teacher cache: row {row} in {self.folder} is damaged and will be computed again', 'current',
                      level=logging.WARNING)
            return None
        return kept

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
        size = self.rows * (self._row_bytes + 4)
        if is_main_process():
            print_log(f'teacher cache: {self.rows:,} rows x {self._row_bytes / 1024:,.1f} KiB = {size / GIB:.3g} '
                      f'GiB in {self.folder}', 'current')
        if size > max_gib * GIB:
            raise ConfigError(f'teacher cache: {size / GIB:.3g} GiB for {self.rows:,} rows is more than '
                              f'max_gib={max_gib:g}; raise it, take fewer variants, or train without the cache')
        if (self.folder / 'fingerprint.json').is_file():
            found = self._read_fingerprint()
            if differ := [key for key in fingerprint if found.get(key) != fingerprint[key]]:
                raise ConfigError(f"teacher cache: '{self.folder}' was made with another {', '.join(differ)} than this "
                                  'run has; its rows would teach something else. Give another folder, or delete that '
                                  'one')
            for name, expected in self._files.items():
                self._check_file(name, expected)
            return
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(f"teacher cache: '{self.folder}' is there and is no teacher cache; give another folder")
        existing = next(parent for parent in (self.folder, *self.folder.absolute().parents) if parent.exists())
        if size > (free := shutil.disk_usage(existing).free):
            raise ConfigError(f'teacher cache: {size / GIB:.3g} GiB do not fit into the {free / GIB:.3g} GiB that are '
                              f"free in '{existing}'")

    def _check_file(self, name: str, expected: int) -> None:
        """A link would have the run write into a file elsewhere; of another size the file is cut off or no one's of
        ours.
        """
        file = self.folder / name
        if file.is_symlink():
            problem = 'is a link'
        elif not file.is_file():
            problem = 'is no file'
        elif (size := file.stat().st_size) != expected:
            problem = f'has {size:,} bytes where {expected:,} belong'
        else:
            return
        raise ConfigError(f"teacher cache: '{file}' {problem}; delete '{self.folder}', or give another folder")

    def _read_fingerprint(self) -> dict:
        """What the folder is of; nothing where the file is damaged."""
        try:
            with open(self.folder / 'fingerprint.json', encoding='utf-8') as file:
                found = json.loads(file.read(MAX_FINGERPRINT))
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def _make(self, fingerprint: dict) -> None:
        if (self.folder / 'fingerprint.json').is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, size in self._files.items():
            with open(self.folder / name, 'xb') as file:
                file.truncate(size)  # zeros that take no space yet
        temporary = self.folder / 'fingerprint.json.part'
        temporary.write_text(json.dumps(fingerprint, indent=1) + '\n')
        os.replace(temporary, self.folder / 'fingerprint.json')  # last: a folder with it is complete

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """See :meth:`Teacher.apply_`."""
        if self.teacher is not None:
            self.teacher.apply_(function)

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


def digest_of_data(dataset) -> str:
    """Of what a data set lists (paths, labels, pictures in memory) and of its files' sizes; a file that is changed and
    keeps its size goes unnoticed.
    """
    def parts() -> Iterable[str | bytes]:
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            path = info.get('img_path')
            for key, value in info.items():
                yield key
                # a picture in memory: as text it would be cut short
                yield value.tobytes() if isinstance(value, np.ndarray) else f'{value}'
            yield f'{os.path.getsize(path) if path and os.path.isfile(path) else ""}'
    return digest_of(*parts())
