"""Which stage of the student goes with which stage of the teacher."""
from __future__ import annotations

import math

from torch import nn

from .probe import Probe, Stage
from .stages import class_maps, pyramid, stages


def pair_stages(student: list[Stage], teacher: list[Stage]) -> list[tuple[Stage, Stage]]:
    """Stages of the same stride (without dilation); by relative depth where one of the networks has a single stride."""
    if len({s.scale for s in student}) > 1 and len({t.scale for t in teacher}) > 1:
        return _by_stride(student, teacher)
    count = min(len(student), len(teacher))

    def spread(side):
        return [side[math.ceil(len(side) * (i + 1) / count) - 1] for i in range(count)]
    return list(zip(spread(student), spread(teacher)))


def _by_stride(student: list[Stage], teacher: list[Stage]) -> list[tuple[Stage, Stage]]:
    """Each teacher stage with the student stage of the nearest stride, if it is nearer than half an octave."""
    def apart(s: Stage, t: Stage) -> float:
        return abs(math.log2(s.scale / t.scale))
    nearest = [(min(student, key=lambda s: apart(s, t)), t) for t in teacher]
    return [(s, t) for s, t in nearest if apart(s, t) < 0.5]


def match(student: nn.Module, teacher: nn.Module, student_probe: Probe,
          teacher_probe: Probe) -> list[tuple[Stage, Stage]]:
    """The automatic pairs of two networks: levels of their necks where both have pyramids of common strides, else
    stages.

    Args:
        student, teacher: the networks.
        student_probe, teacher_probe: their dry runs.
    """
    levels = _by_stride(pyramid(student_probe), pyramid(teacher_probe)) if pyramid(student_probe) else []
    if len(levels) > 1:
        return levels
    return pair_stages(stages(student, student_probe), stages(teacher, teacher_probe))


def match_class_maps(student_probe: Probe, teacher_probe: Probe) -> list[tuple[Stage, Stage]]:
    """The maps of class scores of two detectors or segmentors: by stride where both have several levels of them. Empty
    where one has none, or no level of theirs has the stride of another.

    Args:
        student_probe, teacher_probe: their dry runs, heads included.
    """
    ours, theirs = class_maps(student_probe), class_maps(teacher_probe)
    return list(zip(ours, theirs)) if len(ours) == len(theirs) == 1 else _by_stride(ours, theirs) if ours else []
