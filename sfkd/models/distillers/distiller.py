"""The distiller: a student that trains as in its stock config, plus what its teacher shows it."""
from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

from mmengine.logging import MMLogger, print_log
from mmengine.model import BaseModel
import torch
from torch import Tensor, nn

from ... import randomness
from ...errors import ConfigError, nearest
from ...registry import MODELS, register_entry_point
from ..connectors import WaveletConnector
from ..connectors.align import muted
from .building import build_model
from .cache import TeacherCache
from .padding import on_grid, picture_mask, taught_mask
from .pairing import MIN_GRID, Probe, Stage, match, probe
from .pairing import stages as find_stages
from .taps import Taps
from .teacher import Teacher, normalisation_of


class Pair(nn.Module):
    """One tap of the student and one of the teacher, the connector between them, and the losses on what it gives.

    Args:
        name: part of the losses' names.
        student, teacher: the tapped stages.
        connector: ``(student, teacher[, mask]) -> (student, teacher)``; None compares the outputs as they are.
        losses: ``{name: (weight, loss)}``; one that is no mean over the grid says so by ``mean_over_grid = False``.
    """

    def __init__(self, name: str, student: Stage, teacher: Stage, connector: nn.Module | None,
                 losses: dict[str, tuple[float, nn.Module]]):
        super().__init__()
        self.name, self.stages, self.connector = name, (student, teacher), connector
        self.student, self.teacher = student.path, teacher.path
        self.weights = {key: weight for key, (weight, _) in losses.items()}
        self.losses = nn.ModuleDict({key: loss for key, (_, loss) in losses.items()})

    def summary(self) -> str:
        """One line: both stages, the grid, the levels, the weighted losses."""
        s, t = self.stages
        grid = tuple(map(min, s.grid, t.grid))
        text = f'{s.path} {s.channels}x{s.grid[0]}x{s.grid[1]} <- {t.path} {t.channels}x{t.grid[0]}x{t.grid[1]}'
        if isinstance(self.connector, WaveletConnector):
            levels = self.connector.levels_on(grid)
            text += f', {levels} of {self.connector.levels} levels' + (' (more do not fit)' if levels < self.connector.levels else '')
        return text + ': ' + ', '.join(f'{weight:g} x {key}' for key, weight in self.weights.items())

    def forward(self, student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """
        Args:
            student, teacher: the tapped outputs.
            mask: (N, 1, H, W), 1 where there is something to teach; None where that is everywhere. Only maps are masked, not scores.

        Returns:
            dict: ``{'distill.<pair>.loss_<name>': weighted scalar}``; mmengine sums what has 'loss' in its name.

        Raises:
            ConfigError, RuntimeError: naming the pair, both shapes and what can be done, where this batch does not fit.
        """
        try:
            return self._losses(student, teacher, mask)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            kind = ConfigError if isinstance(error, ValueError) else RuntimeError
            raise kind(
                f"pair '{self.name}': the student's '{self.student}' gives {tuple(student.shape)} and the teacher's '{self.teacher}' "
                f'{tuple(teacher.shape)}: {error}. Leave the pair out with model.stages, name others in model.pairs, or give the size of the '
                'smallest batch as input_size, so that what does not fit is left out') from error

    def _losses(self, student: Tensor, teacher: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        scale, grid = 1.0, tuple(map(min, student.shape[2:], teacher.shape[2:]))
        if isinstance(self.connector, WaveletConnector) and not self.connector.levels_on(grid):
            raise ValueError(f'a grid of {grid[0]}x{grid[1]} is too small for any level')
        if mask is not None and teacher.dim() == 4:
            outline, mask = mask, on_grid(mask, grid)
            scale = mask.numel() / mask.sum().clamp_min(1)  # for losses that are means over the whole grid
        else:
            mask = None
        if self.connector is not None:
            student, teacher = self.connector(student, teacher) if mask is None else self.connector(student, teacher, mask)
        elif mask is not None and student.shape != teacher.shape:  # for a loss that pools each side
            student, teacher = (x * on_grid(outline, x.shape[2:]) for x in (student, teacher))
        elif mask is not None:  # the same on both sides, and low: a softmax over the positions must not follow the padding
            student, teacher = muted(student, teacher, mask)
        return {f'distill.{self.name}.loss_{key}': self.weights[key] * (scale if getattr(loss, 'mean_over_grid', True) else 1.0)
                * loss(student, teacher) for key, loss in self.losses.items()}


@register_entry_point
class Distiller(BaseModel):
    """Trains a student of any task with its own losses and a frozen teacher's features or logits.

    In ``predict`` and ``tensor`` mode the distiller *is* the student. With no pair left (every weight 0) training is the student's own,
    bit for bit. Config problems are reported together, before the first batch.

    Args:
        student: config path, model dict or built module; the path's or dict's own ``data_preprocessor`` comes before the argument.
        teacher: the same.
        teacher_ckpt: checkpoint file or address; 'init' takes the weights that the teacher's own ``init_cfg`` gives (random where it has
            none). Needed unless ``teacher`` is a module.
        pairs: 'auto' (stage with stage, by stride or relative depth, see pairing.py), 'head' (each of the student's stages with the
            teacher's class scores), or a list of these and of ``dict(student=path, teacher=path)``, each with optional ``connector``
            and ``losses`` of its own. A path is a module's, with an index where it gives several maps: ``neck[0]``.
        stages: which of the automatic pairs, as indices from shallow to deep (``[-1]``: the deepest); None for all.
        connector: default connector config; receives ``student_channels`` and ``teacher_channels``.
        losses: default list of loss configs for each pair; ``weight`` (default 1) and ``name`` (default: the type) are ours, the rest is
            the loss's. A loss of weight 0 is not built, nor a pair without losses.
        logits: list of loss configs on the outputs of both ``head`` modules.
        input_size: (H, W) of the training pictures, for the dry run; None takes ``img_size`` of the student's or the teacher's backbone,
            or 224.
        teacher_input_size: (H, W) to which pictures are resized for the teacher.
        data_preprocessor: default for a student whose own config has none (mmengine's runner passes it).

    Raises:
        ConfigError: with every problem found.
    """

    def __init__(self,
                 student: str | dict | nn.Module,
                 teacher: str | dict | nn.Module,
                 teacher_ckpt: str | None = None,
                 pairs: str | list[str | dict] = 'auto',
                 stages: list[int] | None = None,
                 connector: dict | None = None,
                 losses: list[dict] = (),
                 logits: list[dict] = (),
                 input_size: int | tuple[int, int] | None = None,
                 teacher_input_size: int | tuple[int, int] | None = None,
                 data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None):
        student = build_model(student, 'model.student', data_preprocessor)
        super().__init__(data_preprocessor=student.data_preprocessor, init_cfg=init_cfg)
        self.student = student
        self.cache: TeacherCache | None = None  # TeacherCacheHook sets it
        with randomness.preserved():  # the student's training must not depend on what is built beside it
            self.teacher = self._build_teacher(teacher, teacher_ckpt, teacher_input_size, data_preprocessor)
            self.input_size = _size(input_size or _image_size(student) or _image_size(self.teacher.network) or 224)
            missing = self._check_checkpoint(teacher, teacher_ckpt)
            self.pairs = nn.ModuleList(self._build_pairs(pairs, stages, connector, losses, logits, missing))
            if self.pairs:
                self._wire(teacher_ckpt)
        self._report()

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """The student's forward; in mode 'loss' with the distillation losses added.

        Args:
            inputs: (N, 3, H, W), normalised.
            data_samples: one a picture.
            mode: 'loss', 'predict' or 'tensor'.
        """
        if mode == 'loss' and self.pairs:
            return self.loss(inputs, data_samples)
        return self.student(inputs, data_samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Task losses of the student, and of each pair the distillation losses.

        Returns:
            dict: ``{student losses..., 'distill.<pair>.loss_<name>': scalar}``; a student loss called 'loss' becomes 'task.loss'.
        """
        mask = picture_mask(inputs, data_samples)                    # (N, 1, H, W), or None: nothing is padded
        # {path: (N, C', h', w')}; before the student, so that its memory is free again
        teacher = self.teacher(inputs, mask) if self.cache is None else self.cache(self.teacher, inputs, mask, data_samples)
        with self.taps.capture(inputs.shape[2:]) as student:         # {path: (N, C, h, w)}
            losses = self.student(inputs, data_samples, mode='loss')
        if 'loss' in losses:  # mmengine logs the total under this name
            losses['task.loss'] = losses.pop('loss')
        mask = taught_mask(mask, data_samples)                       # the teacher sees what has no label, but does not teach it
        for pair in self.pairs:
            losses |= pair(student[pair.student], teacher[pair.teacher], mask)
        return losses

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.teacher.apply_(fn)
        return self

    # ---- building ----

    def _build_teacher(self, teacher, checkpoint, input_size, data_preprocessor) -> Teacher:
        network = build_model(teacher, 'model.teacher', data_preprocessor)
        if checkpoint == 'init' and hasattr(network, 'init_weights'):
            logger = MMLogger.get_current_instance()
            level = logger.level
            logger.setLevel('WARNING')  # one entry a parameter says nothing about a teacher
            network.init_weights()
            logger.setLevel(level)
        return Teacher(network, normalisation_of(self.student, always=True), _size(input_size) if input_size else None)

    @staticmethod
    def _check_checkpoint(teacher, checkpoint: str | None) -> list[str]:
        if checkpoint is None and not isinstance(teacher, nn.Module):
            return ["model.teacher_ckpt: None, so the teacher would be random; give its checkpoint, or 'init' for what the teacher's own "
                    'init_cfg loads']
        if checkpoint not in (None, 'init') and '://' not in checkpoint and not Path(checkpoint).is_file():
            return [f"model.teacher_ckpt: there is no checkpoint '{checkpoint}'"]
        return []

    def _build_pairs(self, pairs, stages, connector, losses, logits, missing) -> list[Pair]:
        """Check every pair against a dry run of both networks and build it; ``missing`` are problems already found."""
        losses, logits = _weighted(losses), _weighted(logits)
        entries = [pairs] if isinstance(pairs, str) else list(pairs)
        if problems := [f"model.pairs: '{entry}' is neither 'auto', 'head', nor a dict(student=path, teacher=path)" for entry in entries
                        if isinstance(entry, str) and entry not in ('auto', 'head')]:
            raise ConfigError([*missing, *problems])
        entries = [entry if isinstance(entry, str) else dict(entry, losses=_weighted(entry.get('losses', losses))) for entry in entries]
        entries = [entry for entry in entries if (losses if isinstance(entry, str) else entry['losses'])]
        if not (entries or logits):
            return []
        if lacking := [f"model.pairs[{i}]: no '{side}'; each pair is dict(student=path, teacher=path)" for i, entry in enumerate(entries)
                       for side in ('student', 'teacher') if side not in entry and not isinstance(entry, str)]:
            raise ConfigError([*missing, *lacking])
        if blind := [f"model.{side}: '{type(network).__name__}' has no backbone, whose stages could be paired; give the model within it that has"
                     for side, network in (('student', self.student), ('teacher', self.teacher.network)) if not hasattr(network, 'backbone')]:
            raise ConfigError([*missing, *blind])
        head = bool(logits) or any('head' in (entry if isinstance(entry, str) else entry['student'] + entry['teacher']) for entry in entries)
        student = probe(self.student, self.input_size, head, learns=True)
        teacher = probe(self.teacher.network, self.teacher.input_size or self.input_size, head)
        named = []
        for entry in entries:
            named += [entry] if isinstance(entry, dict) else [
                dict(student=s, teacher=t, losses=losses) for s, t in self._match(entry, stages, student, teacher)]
        wanted = [partial(self._build_pair, f'model.pairs[{i}]', pair, pair.get('connector', connector), student, teacher)
                  for i, pair in enumerate(named)]
        if logits:
            wanted.append(partial(self._build_logits, logits, student, teacher))
        problems, built = list(missing), []
        for build in wanted:
            try:
                built.append(build())
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        names = [pair.name for pair in built]
        for i, pair in enumerate(built):  # one student stage may learn from several teacher stages
            if names.count(pair.name) > 1:
                pair.name = f'{pair.name}_{i}'
        return built

    def _match(self, pairs: str, chosen: list[int] | None, student: Probe, teacher: Probe) -> list[tuple[str, str]]:
        """Paths of the automatic pairs."""
        if pairs == 'head':
            matched = [(stage.path, 'head') for stage in find_stages(self.student, student)]
        else:
            matched = [(s.path, t.path) for s, t in match(self.student, self.teacher.network, student, teacher)]
        if not matched:
            raise ConfigError(f"model.pairs: '{pairs}' found no stages of the same stride in student and teacher; name the pairs: "
                              'pairs=[dict(student=path, teacher=path)]')
        if outside := [i for i in chosen or () if not -len(matched) <= i < len(matched)]:
            raise ConfigError(f'model.stages: {outside} of {len(matched)} automatic pairs; give indices from {-len(matched)} to {len(matched) - 1}')
        return matched if chosen is None else [matched[i] for i in chosen]

    def _build_pair(self, where: str, pair: dict, connector: dict | None, student: Probe, teacher: Probe) -> Pair:
        taps = [_scores(found, pair[side]) if pair[side] == 'head' or len(found.shapes.get(pair[side], ())) == 2
                else _tap(found, pair[side], f'{where}.{side}') for side, found in (('student', student), ('teacher', teacher))]
        problems = [tap for tap in taps if isinstance(tap, str)]
        if problems:
            raise ConfigError(problems)
        s, t = taps
        if s.is_scores and connector is not None:
            raise ConfigError(f"{where}: '{s.path}' gives class scores, {s.layout}, and a connector takes a map; set connector=None for this "
                              'pair, or give the losses in logits=')
        grid = s.grid if t.is_scores else tuple(map(min, s.grid, t.grid))
        if connector is not None:
            connector = _build(dict(connector, student_channels=s.channels, teacher_channels=t.channels), f'{where}.connector')
        if min(grid) < MIN_GRID and not s.is_scores or isinstance(connector, WaveletConnector) and not connector.levels_on(grid):
            raise ConfigError(f"{where}: '{s.path}' gives {s.grid[0]}x{s.grid[1]} and '{t.path}' {t.grid[0]}x{t.grid[1]} for an input of "
                              f'{self.input_size[0]}x{self.input_size[1]}; that is too small a grid for any level: tap earlier stages, or '
                              'train at a larger input_size')
        name = s.path.removeprefix('backbone.').replace('.', '_').replace('[', '_').replace(']', '')
        built = Pair(name, s, t, connector, _build_losses(pair['losses'], where))
        if connector is None:  # nothing brings the two to one shape
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings('error', 'Using a target size')  # torch only warns of shapes that broadcast
                    built(*(torch.zeros(2, stage.channels, *(() if stage.is_scores else stage.grid)) for stage in (s, t)))
            except (RuntimeError, ValueError, UserWarning) as error:
                remedy = 'give a teacher of the same classes' if s.is_scores else "give connector=dict(type='Align')"
                raise ConfigError(f"{where}: without a connector, '{s.path}' {s.channels}x{s.grid[0]}x{s.grid[1]} and '{t.path}' "
                                  f"{t.channels}x{t.grid[0]}x{t.grid[1]} cannot be compared ({error}); {remedy}") from error
        return built

    @staticmethod
    def _build_logits(losses, student: Probe, teacher: Probe) -> Pair:
        heads = [_scores(found) for found in (student, teacher)]
        if any(isinstance(head, str) for head in heads):
            student, teacher = ('has none' if isinstance(head, str) else f'has {head.channels}' for head in heads)
            raise ConfigError(f'model.logits: these losses compare the class scores of whole pictures, of which the student {student} and the '
                              f"teacher {teacher}. Set the logit weight to 0; class maps are a pair of their own: pairs=['auto', dict("
                              "student='decode_head.conv_seg', teacher='decode_head.conv_seg', connector=dict(type='CommonGrid'), losses=[...])]")
        if heads[0].channels != heads[1].channels:
            raise ConfigError(f'model.logits: the student has {heads[0].channels} classes and the teacher {heads[1].channels} '
                              'classes; a logit loss compares the same classes: give a teacher of the same classes, or set the logit weight to 0')
        return Pair('logits', *heads, None, _build_losses(losses, 'model.logits'))

    def _wire(self, checkpoint: str | None) -> None:
        """Set the taps of both networks and load the teacher."""
        students, teachers = ([pair.stages[side] for pair in self.pairs] for side in (0, 1))

        def taps(network, found, **kwargs):
            return Taps(network, [stage.path for stage in found], [stage.path for stage in found if stage.is_scores], **kwargs)
        self.taps = taps(self.student, students, copied=[stage.path for stage in students if stage.overwritten])
        self.teacher.tap(taps(self.teacher.network, teachers, stop=True), self.input_size)
        if checkpoint not in (None, 'init'):
            self.teacher.load(checkpoint)

    def _report(self) -> None:
        weights = sum(p.numel() for p in self.student.parameters())
        extra = sum(p.numel() for p in self.pairs.parameters())
        refinement = sum(p.numel() for name, p in self.pairs.named_parameters() if '.refine.' in name)
        share = f' ({refinement:,} of them, {refinement / weights:.1%}, in DS2S)' if refinement else ''
        lines = [f'distillation: {len(self.pairs)} pairs; beside the student\'s {weights:,} weights, connectors train {extra:,}{share}; '
                 'none is in the exported student']
        print_log('\n'.join(lines + [f'  {pair.summary()}' for pair in self.pairs]), 'current')


def _size(size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _image_size(network: nn.Module):
    return getattr(getattr(network, 'backbone', None), 'img_size', None)


def _scores(found: Probe, path: str = 'head') -> Stage | str:
    """The class scores that a module of a network gives, or that it gives none."""
    shape = found.shapes.get(path)
    if shape is None or len(shape) != 2:
        return f"model.pairs: '{path}' gives no class scores (N, classes)"
    return Stage(path, shape[1], (1, 1), 0, f'a tensor {tuple(shape)}')


def _tap(found: Probe, path: str, where: str) -> Stage | str:
    """The stage at a path, or what is wrong with it."""
    output = found.outputs.get(path)
    if isinstance(output, Stage):
        return output
    maps = [p for p, o in found.outputs.items() if isinstance(o, Stage)]
    near = nearest(path, maps)
    if output is None:
        return f"{where}: no module '{path}' gives an output; nearest: {near}"
    return f"{where}: '{path}' gives {output}, which is no feature map; nearest: {near}"


def _build(config: dict, where: str) -> nn.Module:
    """Build a connector or loss of ours, or with a prefix in its type of another library, whatever the config's default scope."""
    try:
        return MODELS.build(dict(dict(_scope_='sfkd'), **config))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{where}: cannot build '{config.get('type')}': {error}") from error


def _weighted(losses) -> list[dict]:
    return [loss for loss in losses if loss.get('weight', 1)]


def _build_losses(configs, where: str) -> dict[str, tuple[float, nn.Module]]:
    built = {}
    for config in map(dict, configs):
        weight, name = config.pop('weight', 1), config.pop('name', config['type'].rpartition('.')[2])
        if name in built:
            raise ConfigError(f"{where}.losses: two are called '{name}'; give each a name of its own: name='...'")
        built[name] = float(weight), _build(config, f'{where}.losses')
    return built
