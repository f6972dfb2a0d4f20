"""From what a config asks for to pairs that fit: every path, shape and argument is checked against a dry run of both
networks.
"""
from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from .. import randomness
from ..connectors import WaveletConnector
from ..errors import ConfigError, Problems, nearest
from ..features.matching import match, match_class_maps
from ..features.probe import PICTURES, UNTAUGHT, Probe, Stage, probe
from ..features.stages import MIN_GRID, class_maps, stages
from ..features.taps import split_path
from ..losses.base import takes_refined
from ..registry import MODELS
from .options import problems_of
from .pair import Pair

HEAD = 'head'  # the module whose output are a classifier's scores, in OpenMMLab and of most of timm
TRUNK = {'backbone', 'neck'}  # what a dry run ends with unless more is asked for
Size = tuple[int, int]


def as_size(size: int | Sequence[int]) -> Size:
    """(H, W) of one number or two."""
    return tuple(size) if isinstance(size, Sequence) else (size, size)


def teaches(pairs: str | Sequence[str | dict], losses: Sequence[dict], logits: Sequence[dict]) -> bool:
    """Whether anything is left to teach once what has weight 0 is taken out."""
    if problems_of(pairs, None, losses, logits, None):
        return True  # assemble() says what is wrong
    return bool(_weighted(logits)) or any(_weighted(_losses_of(entry, losses)) for entry in _entries(pairs))


def assemble(student: nn.Module, teacher: nn.Module, input_size: Size, teacher_input_size: Size, *,
             pairs: str | Sequence[str | dict], connector: dict | None, losses: Sequence[dict], logits: Sequence[dict],
             chosen: Sequence[int] | None) -> tuple[list[Pair], list[Pair]]:
    """Find, check and build the pairs of two networks: those that ``pairs`` names, and of ``logits``.

    Args:
        student, teacher: any modules that take pictures (N, 3, H, W).
        input_size, teacher_input_size: (H, W) of the dry runs.
        pairs, connector, losses, logits: see :class:`~sfkd.distillation.Distillation`.
        chosen: indices of the automatic pairs; None for all.

    Raises:
        ConfigError: with every problem found, each by its key.
    """
    sizes = dict(input_size=input_size)
    if teacher_input_size != input_size:
        sizes['teacher_input_size'] = teacher_input_size
    if wrong := problems_of(pairs, connector, losses, logits, chosen, **sizes):
        raise ConfigError(wrong)
    entries = [entry for entry in _entries(pairs) if _weighted(_losses_of(entry, losses))]
    logits = _weighted(logits)
    if not (entries or logits):
        return [], []
    _check_entries(entries)
    head = bool(logits) or any(entry != 'auto' if isinstance(entry, str) else
                               not {_part(entry[side]) for side in ('student', 'teacher')} <= TRUNK
                               for entry in entries)
    workshop = _Workshop(probe(student, input_size, head, learns=True), probe(teacher, teacher_input_size, head))
    named: list[dict] = []
    for entry in entries:
        if isinstance(entry, str):
            matched = _automatic(entry, student, teacher, workshop.student_probe, workshop.teacher_probe)
            named += [dict(student=s, teacher=t) for s, t in _choose(matched, chosen)]
        else:
            named.append(entry)
    problems, built, scored = Problems(), [], []
    for i, entry in enumerate(named):
        with problems.collected():
            built.append(workshop.pair(f'pairs[{i}]', entry['student'], entry['teacher'],
                                       entry.get('connector', connector), _weighted(_losses_of(entry, losses))))
    if logits:
        with problems.collected():
            scored = workshop.logits(logits)
    problems.raise_all()
    _make_names_unique(built + scored)
    return built, scored


# ---- what was asked for ----

def _entries(pairs: str | Sequence[str | dict]) -> list[str | dict]:
    return [pairs] if isinstance(pairs, str) else list(pairs)


def _check_entries(entries: list[str | dict]) -> None:
    if lacking := [(i, side) for i, entry in enumerate(entries) for side in ('student', 'teacher')
                   if not isinstance(entry, str) and side not in entry]:
        raise ConfigError([f"pairs[{i}]: no '{side}'; each pair is dict(student=path, teacher=path)"
                           for i, side in lacking])


def _part(path: str) -> str:
    """The part of the network, such as 'backbone', that a path begins with."""
    return split_path(path)[0].partition('.')[0]


def _losses_of(entry: str | dict, losses: Sequence[dict]) -> Sequence[dict]:
    return losses if isinstance(entry, str) else entry.get('losses', losses)


def _weighted(losses: Sequence[dict]) -> list[dict]:
    return [loss for loss in losses if loss.get('weight', 1)]


def _automatic(kind: str, student: nn.Module, teacher: nn.Module, student_probe: Probe,
               teacher_probe: Probe) -> list[tuple[str, str]]:
    """Paths of the pairs that 'auto', 'head' or 'classes' stand for."""
    if kind == 'classes':
        if matched := match_class_maps(student_probe, teacher_probe):
            return [(s.path, t.path) for s, t in matched]
        counts = ' and '.join(f'{len(class_maps(probed))} in the {role}' for role, probed in
                              dict(student=student_probe, teacher=teacher_probe).items())
        raise ConfigError(f"pairs: 'classes' found no maps of class scores of the same stride ({counts}): segmentors "
                          "and one-stage detectors end with such maps; use 'auto', which matches features")
    if kind == 'head':
        head = _class_scores(teacher_probe)
        matched = [(stage.path, HEAD if head is None else head.path) for stage in stages(student, student_probe)]
    else:
        matched = [(s.path, t.path) for s, t in match(student, teacher, student_probe, teacher_probe)]
    untaught = sum(UNTAUGHT in str(output) for output in student_probe.outputs.values())
    if not matched and untaught:
        raise ConfigError(f"pairs: '{kind}' found no stage of the student that a loss could teach: no gradient leaves "
                          f'{untaught} of its {len(student_probe.outputs)} modules, which are frozen or reversible; '
                          'leave fewer of its stages frozen, or name pairs behind them')
    if not matched:
        raise ConfigError(f"pairs: '{kind}' found no stages of the same stride in student and teacher; name the pairs: "
                          'pairs=[dict(student=path, teacher=path)]')
    return matched


def _choose(matched: list[tuple[str, str]], chosen: Sequence[int] | None) -> list[tuple[str, str]]:
    count = len(matched)
    if outside := [i for i in chosen or () if not -count <= i < count]:
        raise ConfigError(f'stages: {outside} of {count} automatic pairs; give indices from {-count} to {count - 1}')
    return matched if chosen is None else [matched[i] for i in chosen]


def _make_names_unique(pairs: list[Pair]) -> None:
    names = [pair.name for pair in pairs]
    taken = {name for name in names if names.count(name) == 1}
    for i, pair in enumerate(pairs):  # one student stage may learn from several teacher stages
        if names.count(pair.name) > 1:
            pair.name = f'{pair.name}_{i}'
            while pair.name in taken:
                pair.name += '_'
            taken.add(pair.name)


# ---- what is built ----

class _Workshop:
    """Builds pairs between what two dry runs showed."""

    def __init__(self, student_probe: Probe, teacher_probe: Probe):
        self.student_probe, self.teacher_probe = student_probe, teacher_probe

    def pair(self, where: str, student_path: str, teacher_path: str, connector: dict | None,
             losses: list[dict]) -> Pair:
        problems = Problems()
        with problems.collected():
            student_stage = _stage(self.student_probe, student_path, f'{where}.student')
        with problems.collected():
            teacher_stage = _stage(self.teacher_probe, teacher_path, f'{where}.teacher')
        problems.raise_all()
        if student_stage.is_scores and connector is not None:
            raise ConfigError(f"{where}: '{student_path}' gives class scores, {student_stage.layout}, and a connector "
                              'takes a map; set connector=None for this pair, or give the losses in logits=')
        if connector is not None:
            channels = dict(student_channels=student_stage.channels, teacher_channels=teacher_stage.channels)
            connector = build(dict(connector, **channels), f'{where}.connector')
        self._check_grid(where, student_stage, teacher_stage, connector)
        name = student_path.removeprefix('backbone.').replace('.', '_').replace('[', '_').replace(']', '')
        built = Pair(name, student_stage, teacher_stage, connector, _build_losses(losses, where))
        if getattr(connector, 'refine', None) is not None and not any(map(takes_refined, built.losses.values())):
            raise ConfigError(f"{where}: no loss of this pair takes what DS2S (refine= of its connector) gives, so it "
                              "would never learn; give dict(type='BandMSE', refined=True) or a "
                              'GaussianFrequencyLoss, or leave refine out')
        _compare_once(built, where)
        return built

    def logits(self, losses: list[dict]) -> list[Pair]:
        """Of the class scores of whole pictures or, where both networks end with them, of maps of class scores."""
        heads = [_class_scores(probed) for probed in (self.student_probe, self.teacher_probe)]
        whole = None not in heads
        matched = [tuple(heads)] if whole else match_class_maps(self.student_probe, self.teacher_probe)
        if not matched:
            raise ConfigError(f'logits: the student gives {_judgement(self.student_probe)} and the teacher '
                              f'{_judgement(self.teacher_probe)}; these losses compare scores of whole pictures, or '
                              'class maps of the same stride. Set the logit weight to 0')
        for ours, theirs in matched:
            if ours.channels != theirs.channels:
                raise ConfigError(f'logits: the student has {ours.channels} classes and the teacher {theirs.channels} '
                                  'classes; a logit loss compares the same classes: give a teacher of the same '
                                  'classes, or set the logit weight to 0')
        built = [self.pair('logits', ours.path, theirs.path, None if whole else dict(type='CommonGrid'), losses)
                 for ours, theirs in matched]
        for pair in built:
            pair.name = 'logits'
        return built

    def _check_grid(self, where: str, student_stage: Stage, teacher_stage: Stage, connector: nn.Module | None) -> None:
        grids = student_stage.grid, teacher_stage.grid
        grid = student_stage.grid if teacher_stage.is_scores else tuple(map(min, *grids))
        decomposes = isinstance(connector, WaveletConnector)
        if not student_stage.is_scores and min(grid) < MIN_GRID or decomposes and not connector.takes(grid):
            ours, theirs, size = (f'{h}x{w}' for h, w in (*grids, self.student_probe.image_size))
            raise ConfigError(f"{where}: '{student_stage.path}' gives {ours} and '{teacher_stage.path}' {theirs} for "
                              f'an input of {size}; that is too small a grid for any level: tap earlier stages, or '
                              'train at a larger input_size')


def _scores(probed: Probe, path: str) -> Stage | None:
    """The class scores that a module gives; None if it gives none."""
    shape = probed.shapes.get(path, ())
    return Stage(path, shape[1], (1, 1), 0, f'a tensor {tuple(shape)}') if len(shape) == 2 else None


def _class_scores(probed: Probe) -> Stage | None:
    """The class scores of whole pictures: what ``head`` gives, or a module whose output the network itself returns
    (``fc``, ``classifier``); None if there are none.
    """
    returned = [path for path in probed.returned if probed.shapes.get(path, (0, ))[0] == PICTURES]
    return next(filter(None, (_scores(probed, path) for path in (HEAD, *returned))), None)


def _judgement(probed: Probe) -> str:
    """What class scores a network ends with."""
    if _class_scores(probed) is not None:
        return 'scores of whole pictures'
    strides = ', '.join(str(stage.stride) for stage in class_maps(probed))
    return f'class maps (stride {strides})' if strides else 'no class scores'


def _stage(probed: Probe, path: str, where: str) -> Stage:
    """The map or the class scores at a path."""
    if scores := _scores(probed, path):
        return scores
    if path == HEAD:
        raise ConfigError(f"{where}: '{path}' gives no class scores (N, classes)")
    output = probed.outputs.get(path)
    if isinstance(output, Stage):
        return output
    near = nearest(path, [p for p, o in probed.outputs.items() if isinstance(o, Stage)])
    if output is None:
        raise ConfigError(f"{where}: no module '{path}' gives an output; nearest: {near}")
    raise ConfigError(f"{where}: '{path}' gives {output}, which is no feature map; nearest: {near}")


@torch.no_grad()
def _compare_once(pair: Pair, where: str) -> None:
    """Raise if the losses of a pair cannot compare what its connector makes of the two shapes, or the shapes as they
    are.
    """
    pair = copy.deepcopy(pair).eval()  # no statistics are to change
    try:
        with warnings.catch_warnings(), randomness.preserved():
            warnings.filterwarnings('error', 'Using a target size')  # torch only warns of shapes that broadcast
            pair(*(torch.zeros(2, *stage.shape) for stage in pair.stages))
    except (RuntimeError, ValueError, IndexError, UserWarning, AttributeError, TypeError) as error:
        ours, theirs = ('x'.join(map(str, (stage.channels, *stage.grid))) for stage in pair.stages)
        if pair.connector is not None:
            losses = ' or '.join(type(loss).__name__ for loss in pair.losses.values())
            raise ConfigError(f"{where}: {losses} cannot compare what {type(pair.connector).__name__} gives of "
                              f"'{pair.student_path}' {ours} and '{pair.teacher_path}' {theirs} ({error}); give this "
                              'pair another connector or other losses') from error
        remedy = ("give connector=dict(type='Align')" if not pair.student_stage.is_scores else
                  'give other losses' if ours == theirs else 'give a teacher of the same classes')
        raise ConfigError(f"{where}: without a connector, '{pair.student_path}' {ours} and '{pair.teacher_path}' "
                          f'{theirs} cannot be compared ({error}); {remedy}') from error


def build(config: dict, where: str) -> nn.Module:
    """Build a connector or loss of ours, or with a prefix in its type of another library, whatever the config's default
    scope.
    """
    try:
        return MODELS.build(dict(dict(_scope_='sfkd'), **config))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{where}: cannot build '{config.get('type')}': {error}") from error


def _build_losses(configs: list[dict], where: str) -> dict[str, tuple[float, nn.Module]]:
    built: dict[str, tuple[float, Callable]] = {}
    for config in map(dict, configs):
        weight, name = config.pop('weight', 1), config.pop('name', config['type'].rpartition('.')[2])
        if name in built:
            raise ConfigError(f"{where}.losses: two are called '{name}'; give each a name of its own: name='...'")
        built[name] = float(weight), build(config, f'{where}.losses')
    return built
