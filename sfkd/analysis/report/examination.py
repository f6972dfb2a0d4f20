"""What a report measures within a student and its teacher, on some pictures of a split."""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import set_random_seed
from torch import Tensor

from ...checkpoint import load_weights, read_checkpoint, weights_of
from ...connectors import WaveletConnector, map_of
from ...distillation.pair import Pair
from ...features.probe import Stage, probe
from ...features.taps import Taps
from ...losses import GaussianFrequencyLoss
from ...openmmlab.building import initialise
from ...openmmlab.distiller import Distiller
from ...ops.dwt import max_levels
from ..cka import debiased_cka, gram
from ..pair_picture import tappable
from ..terms import PairReport, report_terms
from ..trial import built
from .pictures import LeftOut

GRID = 16  # cells a side, to which larger maps are pooled before their samples are compared


def build_distiller(config: Config, checkpoint: str | None, device: torch.device | str = 'cpu') -> Distiller:
    """The distilling student of a run, built from the run's seed as mmengine's runner does, in eval mode.
    :func:`initialise_student` is to follow at once: it goes on drawing where this has ended.

    Args:
        config: of the run.
        checkpoint: the run's; knows the seed where the config has none. None for none.
        device: where it computes.

    Raises:
        ConfigError: if it cannot be built, such as where the teacher's weights are missing.
        LeftOut: if it has nothing to distil.
    """
    seed = (config.get('randomness') or {}).get('seed')
    if seed is None and checkpoint is not None:
        seed = read_checkpoint(checkpoint, 'RUN').get('meta', {}).get('seed')
    set_random_seed(seed or 0)
    config = copy.deepcopy(config)
    config.model.teacher_compile = False  # which would take minutes, for a few passes
    distiller = built(config, load_teacher=True)
    if not distiller.distillation.pairs:
        raise LeftOut('every weight of the distillation is 0: nothing is compared')
    return distiller.to(device).eval()


def initialise_student(distiller: Distiller, config: Config) -> None:
    """Give the student of :func:`build_distiller` the weights that it had before its first step.

    Raises:
        ConfigError, LeftOut: if a file that its config names for that is missing or does not fit.
    """
    try:
        initialise(distiller)
    except (OSError, RuntimeError) as error:
        raise LeftOut(f'the student as it was before training cannot be made: {error}') from error
    if config.get('load_from') and not config.get('resume'):
        load_weights(distiller, config.load_from, 'load_from')


def load_run(distiller: Distiller, checkpoint: str) -> None:
    """Load the student and the connectors of a run's full checkpoint.

    Raises:
        LeftOut: if it is of another model.
    """
    try:
        distiller.load_state_dict(weights_of(read_checkpoint(checkpoint, 'RUN')))
    except RuntimeError as error:
        raise LeftOut(f"'{checkpoint}' does not fit the run's config: {error}") from error


@dataclass
class PairMaps:
    """What a pair's losses compare, on one batch.

    Attributes:
        pair: of the distillation.
        student, teacher: (n, C, h, w), aligned and standardised, where the pair's connector does that.
        refined: the student's as DS2S refined it; None where none runs.
        levels, wavelet: of the connector; of a connector without wavelets as SFKD would have them on this grid.
        sigma: of the Gaussian of the pair's frequency loss; None where it has none.
    """
    pair: Pair
    student: Tensor
    teacher: Tensor
    refined: Tensor | None
    levels: int
    wavelet: str
    sigma: float | None


@torch.no_grad()
def pair_maps(distiller: Distiller, inputs: Tensor, samples: list) -> list[PairMaps]:
    """What is compared in each pair of maps of one shape; pairs of scores, and of maps of different shapes, are left
    out, and those whose grid allows no level.

    Args:
        distiller: in eval mode.
        inputs: (n, 3, H, W), normalised, without padding.
        samples: one a picture.
    """
    companion, found = distiller.distillation, []
    theirs = companion.teacher(inputs)
    with companion.taps.capture(inputs.shape[2:]) as ours:
        distiller.student(inputs, samples, mode='tensor')
    for pair in companion.pairs:
        connected = pair.connect(ours[pair.student_path], theirs[pair.teacher_path])
        student, teacher = map(map_of, connected)
        if student.dim() != 4 or student.shape != teacher.shape or not max_levels(student.shape[2:]):
            continue
        refined = map_of(connected[0], refined=True)
        wavelet = isinstance(pair.connector, WaveletConnector) and pair.connector.levels
        sigmas = [loss.sigma for loss in pair.losses.values() if isinstance(loss, GaussianFrequencyLoss)]
        found.append(PairMaps(
            pair, student, teacher, None if refined is student else refined,
            pair.connector.levels_on(student.shape[2:]) if wavelet else min(2, max_levels(student.shape[2:])),
            pair.connector.wavelet if wavelet else 'haar', sigmas[0] if sigmas else None))
    return found


def compared_stages(distiller: Distiller) -> tuple[list[Stage], list[Stage]]:
    """All stages of the student and of the teacher that automatic pairing knows, shallow to deep."""
    companion = distiller.distillation
    teacher = companion.teacher
    return (tappable(distiller.student, probe(distiller.student, companion.input_size, learns=True)),
            tappable(teacher.network, probe(teacher.network, teacher.input_size or companion.input_size)))


@torch.no_grad()
def grams(run: Callable[[Tensor], dict[str, Tensor]], stages: Sequence[Stage],
          batches: Sequence[tuple[list[int], Tensor, list]]) -> list[Tensor]:
    """The kernel of each stage over all pictures, (n, n) each. A sample is a picture's whole map, pooled to at most
    ``GRID`` cells a side, and to the smallest grid that any picture gives.

    Args:
        run: ``inputs -> {path: map}``.
        stages: whose paths are read.
        batches: as :meth:`Pictures.batches` gives them.
    """
    maps: dict[str, dict[int, Tensor]] = {stage.path: {} for stage in stages}
    for positions, inputs, _ in batches:
        for path, found in run(inputs).items():
            grid = tuple(min(GRID, side) for side in found.shape[2:])
            maps[path] |= zip(positions, F.adaptive_avg_pool2d(found.float(), grid).cpu())
    kernels = []
    for by_picture in maps.values():
        grid = tuple(min(sides) for sides in zip(*(found.shape[1:] for found in by_picture.values())))
        kernels.append(gram(torch.stack([F.adaptive_avg_pool2d(by_picture[i], grid) for i in sorted(by_picture)])))
    return kernels


def student_grams(distiller: Distiller, stages: Sequence[Stage], batches: Sequence) -> list[Tensor]:
    """:func:`grams` of the student as it is now."""
    student, taps = distiller.student, Taps.on(distiller.student, stages, stop=True)

    def run(inputs: Tensor) -> dict[str, Tensor]:
        with taps.capture(inputs.shape[2:]) as maps:
            student(inputs, mode='tensor')
        return maps
    return grams(run, stages, batches)


def teacher_grams(distiller: Distiller, stages: Sequence[Stage], batches: Sequence) -> list[Tensor]:
    """:func:`grams` of the teacher, on its own pictures."""
    companion, teacher = distiller.distillation, distiller.distillation.teacher
    own = teacher.taps
    teacher.read(Taps.on(teacher.network, stages, stop=companion.anchor is None))
    try:
        return grams(teacher, stages, batches)
    finally:
        teacher.read(own)


def cka_table(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> np.ndarray:
    """The debiased CKA of each of the student's kernels with each of the teacher's, (students, teachers)."""
    return np.array([[debiased_cka(ours, theirs) for theirs in teachers] for ours in students])


def terms(distiller: Distiller, inputs: Tensor, samples: list) -> list[PairReport]:
    """:func:`~sfkd.analysis.report_terms` as in training: in train mode. Statistics of normalisation layers are put
    back afterwards.
    """
    before = {key: value.clone() for key, value in distiller.state_dict().items()}
    distiller.train()
    try:
        return report_terms(distiller, inputs, samples)
    finally:
        distiller.load_state_dict(before)
        distiller.eval()


def gradient_shares(reports: Sequence[PairReport]) -> dict[str, float]:
    """``{'task' or '<pair> <term>': its share of the sum of the norms of all terms' gradients}``."""
    norms = {'task': reports[0].gradients['task']}
    for report in reports:
        norms |= {f'{report.name} {term}': report.gradients[term] for term in report.losses}
    return {name: norm / sum(norms.values()) for name, norm in norms.items()}
