"""What a report is about: a run, and what is measured of it once."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np

from ...checkpoint import load_strictly, read_checkpoint, stock_weights
from ...distillation.pair import Pair
from ...errors import ConfigError
from ...openmmlab.configs import is_distillation
from ...openmmlab.distiller import Distiller
from ..cka import SAMPLES
from ..runs import Run
from ..terms import PairReport
from .examination import (
    PairMaps,
    build_distiller,
    cka_table,
    compared_stages,
    initialise_student,
    load_run,
    pair_maps,
    student_grams,
    teacher_grams,
    terms,
)
from .pictures import LeftOut, Pictures
from .predictions import alone, per_class, predict, teacher_of

BEFORE, AFTER = 'before', 'after'


@dataclass
class Within:
    """What was measured within student and teacher; ``{'before' or 'after' training: ...}``, without 'before' where
    that student cannot be made, and without 'after' where its connectors are missing.

    Attributes:
        stages: names of all stages, of the student and of the teacher.
        paired: of these, the pairs of the distillation.
        cka: tables.
        terms: gradients and losses.
        maps: what each pair compares.
        positions: of the pictures that maps and gradients are of.
        missing: what is missing of these, and why.
    """
    stages: tuple[list[str], list[str]]
    paired: list[tuple[int, int]]
    cka: dict[str, np.ndarray] = field(default_factory=dict)
    terms: dict[str, list[PairReport]] = field(default_factory=dict)
    maps: dict[str, list[PairMaps]] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def term_names(self) -> list[str]:
        return list(dict.fromkeys(term for reports in self.terms.values() for report in reports
                                  for term in report.losses))

    def maps_by_pair(self) -> list[dict[str, PairMaps]]:
        """``{when: maps}`` of each pair.

        Raises:
            LeftOut: if there are none.
        """
        if not self.maps:
            raise LeftOut('; '.join(self.missing))
        if not any(self.maps.values()):
            raise LeftOut('this method compares no maps of one shape')
        return [dict(zip(self.maps, of_pair)) for of_pair in zip(*self.maps.values())]


class Subject:
    """A run, and what is measured of it, each thing at the first question for it.

    Args:
        run: of a distillation, or of a student alone.
        alone: the run of the same student alone; None for none.
        number: of pictures that go through the networks.
        teacher: the teacher's scores on the whole validation split, by metric; empty where nobody measured them.

    Raises:
        ConfigError: if ``alone`` is of a distillation, or of another student.
    """

    def __init__(self, run: Run, alone: Run | None = None, number: int = 64, teacher: dict[str, float] | None = None):
        self.run, self.alone, self.number, self.teacher = run, alone, number, teacher or run.teacher
        self.distils = is_distillation(run.config)
        if alone is not None:
            self._check_alone(alone)

    def _check_alone(self, alone: Run) -> None:
        if is_distillation(alone.config):
            raise ConfigError(f"--alone: the student of '{alone.folder}' was taught; give the run of the same student "
                              'alone')
        files = [run.checkpoint or run.student for run in (self.run, alone)]
        shapes = [{key: tuple(value.shape) for key, value in stock_weights(read_checkpoint(file, '--alone')).items()}
                  for file in files if file]
        if len(shapes) == 2 and shapes[0] != shapes[1]:
            raise ConfigError(f"--alone: '{alone.folder}' is of another student: its weights have other names or "
                              f"shapes than those of '{self.run.folder}'")

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.run.config, self.number)

    @cached_property
    def _distiller(self) -> tuple[Distiller, str]:
        """With the weights of before, and why it has none."""
        distiller = build_distiller(self.run.config, self.run.checkpoint)
        try:
            initialise_student(distiller, self.run.config)
        except (ConfigError, LeftOut) as error:
            return distiller, str(error)
        return distiller, ''

    @property
    def pairs(self) -> Sequence[Pair]:
        return self._distiller[0].distillation.pairs

    @cached_property
    def within(self) -> Within:
        """What is measured within student and teacher; leaves the distiller with the weights of after."""
        run, pictures = self.run, self.pictures
        if len(pictures.indices) < SAMPLES:
            raise LeftOut(f'{len(pictures.indices)} pictures are too few: CKA needs {SAMPLES}')
        distiller, uninitialised = self._distiller
        batches = list(pictures.batches(distiller.data_preprocessor))
        stages = compared_stages(distiller)
        paths = [[stage.path for stage in side] for side in stages]
        found = Within(tuple([path.removeprefix('backbone.') for path in side] for side in paths), [
            (paths[0].index(pair.student_path), paths[1].index(pair.teacher_path)) for pair in self.pairs
            if pair.student_path in paths[0] and pair.teacher_path in paths[1]])
        found.positions, inputs, samples = batches[0]
        of_teacher = teacher_grams(distiller, stages[1], batches)

        def measure(when: str, whole: bool = True) -> None:
            found.cka[when] = cka_table(student_grams(distiller, stages[0], batches), of_teacher)
            if whole:
                found.maps[when] = pair_maps(distiller, inputs, samples)
                found.terms[when] = terms(distiller, inputs, samples)
        if uninitialised:
            found.missing.append(uninitialised)
        else:
            measure(BEFORE)
        if run.checkpoint is not None:
            load_run(distiller, run.checkpoint)
            measure(AFTER)
        elif run.student is not None:
            load_strictly(distiller.student, run.student)
            measure(AFTER, whole=False)
            found.missing.append(f"there is no full checkpoint in '{run.folder}', and '{run.student}' holds no "
                                 'connectors')
        else:
            found.missing.append(f"there is no checkpoint in '{run.folder}'")
        return found

    @cached_property
    def predicted(self) -> tuple[dict[str, list], list[str]]:
        """``{who: data samples}``, and why somebody is not among them."""
        found, missing = {}, []
        who = {}
        if self.distils:
            who['teacher'] = lambda: teacher_of(self._distiller[0], self.run.config.model.get('teacher_ckpt'))
        if self.alone is not None:
            who['student alone'] = partial(alone, self.alone.config, self.alone.checkpoint or self.alone.student,
                                           str(self.alone.folder))
        who['student taught' if self.distils else 'student'] = partial(
            alone, self.run.config, self.run.checkpoint or self.run.student, str(self.run.folder))
        for name, make in who.items():
            try:
                found[name] = predict(make(), self.pictures, f'the {name}')
            except (LeftOut, ConfigError) as error:
                missing.append(f'{name}: {error}')
        if self.distils and self.alone is None:
            missing.append('student alone: no run of it was given (--alone WORK_DIR)')
        if not found:
            raise LeftOut('; '.join(missing))
        return found, missing

    @cached_property
    def judged(self) -> dict[str, tuple[np.ndarray, float, np.ndarray]]:
        """:func:`per_class` of each that predicts."""
        return {who: per_class(samples, self.pictures) for who, samples in self.predicted[0].items()}
