"""What a work directory of tools/train.py says of its run."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mmengine.config import Config

from ..errors import ConfigError
from ..openmmlab.configs import load_config
from ..openmmlab.resuming import newest_checkpoint

#: What mmengine writes beside scores and losses.
BOOKKEEPING = ('base_lr', 'lr', 'data_time', 'grad_norm', 'time', 'memory', 'epoch', 'iter', 'step', 'loss')
#: Metric -> its name for people, and the factor that makes it a percentage.
METRICS = {'accuracy/top1': ('top-1 (%)', 1), 'coco/bbox_mAP': ('box AP (%)', 100), 'mIoU': ('mIoU (%)', 1)}
HOW = 'give the work directory of tools/train.py, the folder of tools/quickstart.py, or a rows file of tools/compare.py'
#: At the start of each entry of a log.
TIME = re.compile(r'^(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - ', re.MULTILINE)


@dataclass
class Run:
    """One training, over all its starts.

    Attributes:
        folder: the work directory.
        config: as the last start had it.
        config_file: the copy of it in the folder.
        losses: a dict for each entry of training in the log: the terms by name, ``step`` and ``loss``, the total.
        scores: a dict for each validation: the metrics by name, and ``step``, an epoch or iteration.
        teacher: the teacher's scores by name, where :class:`~sfkd.openmmlab.hooks.TeacherReportHook` logged them.
        seconds: from the first to the last entry of each start's log.
        checkpoint: the newest full one; None where there is none.
        student: ``student_latest.pth``, where it lies beside.
    """
    folder: Path
    config: Config
    config_file: Path
    losses: list[dict]
    scores: list[dict]
    teacher: dict[str, float]
    seconds: float
    checkpoint: str | None
    student: str | None

    @property
    def name(self) -> str:
        """Of the config."""
        return self.config_file.stem

    @property
    def metric(self) -> str | None:
        """What the best checkpoint is chosen by: the first metric of the validation, unless ``save_best`` says which.
        None where nothing was scored.
        """
        metrics = [key for key in (self.scores[0] if self.scores else {}) if key not in BOOKKEEPING]
        wanted = (self.config.get('default_hooks', {}).get('checkpoint') or {}).get('save_best')
        return wanted if wanted in metrics else metrics[0] if metrics else None

    @property
    def by_epoch(self) -> bool:
        """Whether validations are counted in epochs rather than iterations."""
        loop = self.config.get('train_cfg', {})
        return loop.get('by_epoch', 'max_iters' not in loop)  # mmseg's schedules name the loop's type instead

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """(step, value, in % where :data:`METRICS` knows how) of each validation."""
        return [(row['step'], scaled(metric, row[metric])) for row in self.scores if metric in row]

    def terms(self) -> dict[str, list[tuple[int, float]]]:
        """``{loss: [(iteration, value)]}`` of all terms; where the total is the only one, of the total."""
        names = dict.fromkeys(key for row in self.losses for key in row if 'loss' in key and key not in BOOKKEEPING)
        return {name: [(row['step'], row[name]) for row in self.losses if name in row] for name in names or ['loss']}


def scaled(metric: str, value: float) -> float:
    """A metric's value as it is shown."""
    return METRICS.get(metric, ('', 1))[1] * value


def shown(metric: str) -> str:
    """A metric's name as it is shown."""
    return METRICS.get(metric, (metric, 1))[0]


def read_run(folder: str | Path, where: str = 'RUN') -> Run:
    """Read a work directory.

    Args:
        folder: of tools/train.py.
        where: the argument that named it, for messages.

    Raises:
        ConfigError: if there is no such folder, no run in it, one of many students, or a log that is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"{where}: '{folder}' is {'a file' if folder.exists() else 'not there'}; {HOW}")
    configs = {path.parent: load_config(str(path), str(folder))
               for path in sorted(folder.glob('*/vis_data/config.py'))}
    starts = [start for start, config in configs.items() if config.get('train_cfg')]  # the others are tests
    if not starts:
        held = ', '.join(sorted(path.name for path in folder.iterdir())[:6]) or 'nothing'
        raise ConfigError(f"{where}: '{folder}' is no work directory of a training: it holds no "
                          f'<time>/vis_data/config.py with a train_cfg, but {held}; {HOW}')
    config = configs[starts[-1]]
    if 'members' in config.model:
        raise ConfigError(f"{where}: '{folder}' is of tools/train_together.py, whose many students share one log; give "
                          'the rows file of tools/compare.py, or train one of them with tools/train.py')
    first, rows = _rows([start / 'scalars.json' for start in starts], where)
    logs = [file.read_text(errors='replace') for start in starts[first:] for file in sorted(start.parent.glob('*.log'))]
    student = folder / 'student_latest.pth'
    dumped = sorted(folder.glob('*.py'), key=lambda file: file.stat().st_mtime)
    return Run(folder, config, dumped[-1] if dumped else starts[-1] / 'config.py',
               [row for row in rows if 'loss' in row], [row for row in rows if 'loss' not in row],
               _teacher(logs), sum(map(_seconds, logs)), newest_checkpoint(folder),
               str(student) if student.is_file() else None)


def _rows(files: list[Path], where: str) -> tuple[int, list[dict]]:
    """The entries of all starts since the last that began anew, and which that is. What a resumed start went through
    again counts once: its own.
    """
    kinds: dict[bool, list[dict]] = {True: [], False: []}
    first_start = 0
    for start, file in enumerate(files):
        found: dict[bool, list[dict]] = {True: [], False: []}
        for number, line in enumerate(file.read_text().splitlines() if file.is_file() else (), 1):
            try:
                row = json.loads(line)
                found['loss' in row].append(dict(row, step=row['step']))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{where}: line {number} of '{file}' is no entry of mmengine's log ({error}); the "
                                  'file is damaged: take the line out, or give another run') from error
        anew = found[True] and kinds[True] and found[True][0]['step'] <= kinds[True][0]['step']
        first_start = start if anew else first_start
        for kind, rows in found.items():
            first = rows[0]['step'] if rows else float('inf')
            kinds[kind] = [] if anew else [row for row in kinds[kind] if row['step'] < first]
            kinds[kind] += rows
    return first_start, kinds[True] + kinds[False]


def _seconds(log: str) -> float:
    times = TIME.findall(log)
    first, last = (datetime.strptime(time, '%Y/%m/%d %H:%M:%S') for time in (times[0], times[-1])) if times else (0, 0)
    return (last - first).total_seconds() if times else 0.0


def _teacher(logs: list[str]) -> dict[str, float]:
    lines = [line for log in logs for line in re.findall(r'teacher on the validation set: (.*)', log)]
    return {key: float(value) for key, value in re.findall(r'(\S+): ([-\d.]+)', lines[-1])} if lines else {}
