"""Short real trainings of what stock recipes ask of a model by the names of its parts, as rows of the matrix."""
from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path

from ...errors import ConfigError
from ..matrix.stock import one_line
from .instances import instances, small_mask2former, small_mask_rcnn
from .layer_decay import beit, mask_rcnn, upernet
from .settings import (
    accumulation,
    amp_bfloat16,
    amp_of_another_wrapper,
    ema,
    save_best_list,
    sync_bn,
    sync_bn_two_processes,
    yolox,
)
from .small import LIBRARY, PAIRS, Findings, make_data
from .stock_tools import stock_tools

#: In the order of the page.
ALL: dict[str, Callable[[Path, Path], Findings]] = {
    function.__name__: function
    for function in (beit, upernet, mask_rcnn, ema, yolox, sync_bn, sync_bn_two_processes, accumulation, amp_bfloat16,
                     amp_of_another_wrapper, save_best_list)
} | {f'{LIBRARY[task]}_tools': functools.partial(stock_tools, task) for task in PAIRS} | {
    'mask_rcnn_instances': functools.partial(instances, small_mask_rcnn, 40),
    'mask2former_instances': functools.partial(instances, small_mask2former, 40)}


class Trainings:
    """Rows ``seam/run/<name>``."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.data = make_data(Path(self.folder.name, 'digits_wild'))

    @staticmethod
    def names() -> list[str]:
        return [f'seam/run/{name}' for name in ALL]

    def row(self, name: str) -> dict:
        name = name.rpartition('/')[2]
        folder = Path(self.folder.name, name)
        folder.mkdir()
        try:
            findings = ALL[name](folder, self.data)
        except (ConfigError, RuntimeError) as error:
            findings = {ALL[name].__doc__: (False, one_line(error))}
        return dict(roles={what: dict(passes=passes, found=found, **({} if passes else dict(why=found)))
                           for what, (passes, found) in findings.items()})
