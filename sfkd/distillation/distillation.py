"""The whole flow of a distillation, in plain PyTorch: a companion beside a student that it does not own."""
from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ..errors import ConfigError, Problems
from ..features.padding import TaughtCells
from ..features.probe import probe, unwrapped
from ..features.taps import Taps, split_path
from .agreement import Agreement
from .anchor import anchor_on
from .assembly import as_size, assemble
from .counting import StepCount
from .method import sfkd
from .options import problems_of_rest
from .pair import Pair, common_grid
from .precision import handed_on
from .teacher import Teacher, teacher_of


class Taught:
    """What a student was taught in one pass; there once the ``with`` block has ended.

    Attributes:
        losses: ``{'distill.<pair>.loss_<name>': weighted scalar}``.
    """

    _losses: dict[str, Tensor] | None = None

    @property
    def losses(self) -> dict[str, Tensor]:
        if self._losses is None:
            raise RuntimeError("the distillation's losses are there after its with block, in which the student runs")
        return self._losses

    @property
    def loss(self) -> Tensor | float:
        """The sum of the losses; 0.0 where there is none."""
        return sum(self.losses.values(), 0.0)


class Distillation(nn.Module):
    """A frozen teacher beside a student: watches the student's own forward pass, and says by how much its features miss
    the teacher's.

    The student stays what it is: no hook, wrapper or extra weight outside of the ``with`` block. The module's own
    parameters are the connectors'; the teacher is none of its children (:class:`Teacher`)::

        distillation = Distillation(student, teacher, input_size=224)
        optimizer = torch.optim.AdamW([*student.parameters(), *distillation.parameters()])
        with distillation(images) as taught:
            loss = F.cross_entropy(student(images), labels)
        (loss + taught.loss).backward()

    Args:
        student: any module whose ``forward`` takes pictures (N, 3, H, W), also within DDP or ``torch.compile``.
        teacher: the same, or a :class:`Teacher` (own normalisation, own size of pictures). Becomes frozen and eval.
        pairs: 'auto' (stage with stage, by stride or relative depth, see features/matching.py), 'head' (each of the
            student's stages with the teacher's class scores), 'classes' (the class maps of two segmentors or one-stage
            detectors), or a list of these and of ``dict(student=path, teacher=path)``, each with optional
            ``connector`` and ``losses`` of its own. A path is a module's, with an index where it gives several maps:
            ``neck[0]``.
        stages: which of the automatic pairs, as indices from shallow to deep (``[-1]``: the deepest); None for all.
        connector: default connector config; receives ``student_channels`` and ``teacher_channels``. None compares
            outputs as they are.
        losses: default list of loss configs for each pair; ``weight`` (default 1) and ``name`` (default: the type) are
            ours, the rest is the loss's. A loss of weight 0 is not built, nor a pair without losses. None takes SFKD's
            connector and losses.
        logits: list of loss configs on the class scores of both: what ``head`` gives, or the module whose output the
            network returns; of two segmentors or one-stage detectors their class maps, on the smaller grid of the two.
        anchor: a loss config with ``weight`` or ``share``: the deepest map in the teacher's place, see
            :func:`~sfkd.distillation.anchor.anchor_on`; None for none.
        every: in training, teach in every so manieth step alone; the teacher does not run in the others.
        until: in training, teach in the first so many steps alone; None: to the end.
        share: teach with so large a part of each batch, its first pictures; the teacher does not see the others.
        input_size: of the training pictures, (H, W) or one number, for the dry run.
        student_mean, student_std, teacher_mean, teacher_std: how each network's pictures are normalised, a number a
            channel, in one unit (of values 0 to 1, say); all four, where the two differ. The teacher then gets the
            student's pictures as it expects them.

    Raises:
        ConfigError: with every problem found.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module | Teacher, pairs: str | Sequence[str | dict] = 'auto', *,
                 stages: Sequence[int] | None = None, connector: dict | None = None,
                 losses: Sequence[dict] | None = None, logits: Sequence[dict] = (),
                 anchor: dict | None = None, every: int = 1, until: int | None = None, share: float = 1.0,
                 input_size: int | tuple[int, int] = 224, student_mean: Sequence[float] | None = None,
                 student_std: Sequence[float] | None = None, teacher_mean: Sequence[float] | None = None,
                 teacher_std: Sequence[float] | None = None):
        super().__init__()
        if losses is None:
            method = sfkd()
            connector, losses = connector or method['connector'], method['losses']
        student = unwrapped(student)
        if student is (teacher.network if isinstance(teacher, Teacher) else unwrapped(teacher)):
            raise ConfigError('teacher: it is the student itself, and would be frozen; give copy.deepcopy(student)')
        if not isinstance(teacher, Teacher) and student_mean is student_std is teacher_mean is teacher_std is None:
            _warn_of_normalisation(student, unwrapped(teacher))
        self.teacher = teacher_of(teacher, student_mean=student_mean, student_std=student_std,
                                  teacher_mean=teacher_mean, teacher_std=teacher_std)
        self.input_size = as_size(input_size)
        self.watching = False  # whether a with block is open
        self._borrows = False  # whether the teacher is that of the one that this is a copy of
        teachers_size = self.teacher.input_size or self.input_size
        problems = Problems(problems_of_rest(every, until, share))
        with problems.collected():
            pairs, scored = assemble(student, self.teacher.network, self.input_size, teachers_size, pairs=pairs,
                                     connector=connector, losses=losses, logits=logits, chosen=stages)
        problems.raise_all()
        self.every, self.until, self.share = every, math.inf if until is None else until, share
        self.steps = StepCount() if every > 1 or until else None
        self.agreement = Agreement()
        self.pairs: Sequence[Pair] = nn.ModuleList(pairs + scored)
        self.anchor = anchor_on(pairs, anchor, self.teacher, teachers_size) if anchor is not None else None
        self.taps = Taps.on(student, [pair.student_stage for pair in self.pairs])
        if self.pairs:
            teacher_stages = [pair.teacher_stage for pair in self.pairs]
            self.teacher.tap(Taps.on(self.teacher.network, teacher_stages, stop=self.anchor is None), self.input_size)

    @contextlib.contextmanager
    def forward(self, images: Tensor, picture_mask: Tensor | None = None, taught_mask: Tensor | None = None,
                rows: list[int] | None = None) -> Iterator[Taught]:
        """Within the context, run the student once on the same pictures; afterwards the context's value holds the
        losses.

        Args:
            images: (N, 3, H, W), as normalised for the student.
            picture_mask: (N, 1, H, W), 1 where there is picture; None where nothing is padded.
            taught_mask: (N, 1, H, W), 1 where there is something to teach; None where that is everywhere. Of several
                processes that train together all give one, or none.
            rows: of the teacher cache, one a picture.

        Raises:
            RuntimeError: if the student did not run just once within the context, on as many pictures, with gradients;
                if the connectors' weights are no longer those of the other processes, or if some of these gave a
                taught_mask and others none.
        """
        taught = Taught()
        if not self.pairs:
            with self._watch():
                yield taught
            taught._losses = {}
            return
        if self.training and torch.is_grad_enabled():
            self.agreement.check(self, masked=taught_mask is not None)
        if self._rests():
            with self._watch(), self.taps.capture(images.shape[2:]):  # or a compiled student would run without taps on
                yield taught
            taught._losses = self._nothing()
            return
        pictures = len(images)
        if self.share < 1:
            count = math.ceil(self.share * len(images))
            images, picture_mask, taught_mask, rows = (
                x if x is None else x[:count] for x in (images, picture_mask, taught_mask, rows))
        # First, so that its memory is free again when the student's activations pile up
        teacher_features = self.teacher(images, picture_mask, rows)                   # {path: (N, C', h', w')}
        # A student may train in mixed precision of which the block knows nothing (Accelerate's, in its forward)
        full = handed_on(images, next((weight.dtype for weight in self.parameters()), None))
        with self._watch(), self.taps.capture(images.shape[2:], full) as student_features:  # {path: (N, C, h, w)}
            yield taught
        self._check(student_features, pictures)
        taught._losses = self.compare(student_features, teacher_features, taught_mask)

    def _check(self, features: dict[str, Tensor], pictures: int) -> None:
        """Raise where the student ran on others than the block's pictures, or where nothing would teach it."""
        for path, feature in features.items():
            if len(feature) != pictures:
                raise RuntimeError(f"the student ran on {len(feature)} pictures (tap '{path}'), the with block's are "
                                   f'{pictures}: give both the same')
        if torch.is_grad_enabled() and not any(feature.requires_grad for feature in features.values()) and any(
                p.requires_grad for p in self.taps.network.parameters()):  # an averaged copy has none
            raise RuntimeError('the student ran without gradients, so only the connectors would learn: leave no_grad '
                               'out, or put it around the whole with block')

    @contextlib.contextmanager
    def _watch(self) -> Iterator[None]:
        self.watching = True
        try:
            yield
        finally:
            self.watching = False

    def _rests(self) -> bool:
        """Whether this is one of the steps in which nothing is taught."""
        if self.steps is None or not (self.training and torch.is_grad_enabled()):
            return False  # a validation is no step
        step = self.steps.next()
        return step % self.every != 0 or step >= self.until

    def _nothing(self) -> dict[str, Tensor]:
        """A loss of 0 in which all of the connectors' weights are: each process of a distributed training waits for
        their gradients in every step.
        """
        weights = [p for p in self.parameters() if p.requires_grad]
        return {'distill.rest.loss': 0.0 * sum(p.sum() for p in weights)} if weights else {}

    def compare(self, student_features: dict[str, Tensor], teacher_features: dict[str, Tensor],
                taught_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The losses of all pairs, and the anchor's.

        Args:
            student_features, teacher_features: ``{path: tapped output}`` of the same pictures. The teacher's dict is
                emptied: each of its maps is free as soon as no pair is left that compares it.
            taught_mask: see :meth:`forward`.

        Returns:
            dict: ``{'distill.<pair>.loss_<name>': weighted scalar}``.
        """
        losses: dict[str, Tensor] = {}
        tapped = [(student_features[pair.student_path], teacher_features[pair.teacher_path]) for pair in self.pairs]
        tapped = [(ours[:len(theirs)], theirs) for ours, theirs in tapped]            # of the pictures that teach
        teacher_features.clear()
        grids = [common_grid(ours, theirs) for ours, theirs in tapped if theirs.dim() == 4]
        cells = None if taught_mask is None else TaughtCells(taught_mask, grids)
        for_anchor, judged = tapped, []
        if self.anchor is not None:
            sources = getattr(student_features, 'sources', {path: (x, x) for path, x in student_features.items()})
            tapped, for_anchor = self.anchor.split(tapped, [sources[pair.student_path] for pair in self.pairs])
        for i, pair in enumerate(self.pairs):
            tap, tapped[i] = tapped[i], None
            connected = pair.connect(*tap, cells)
            losses |= pair.losses_of(connected, tap, cells)
            if self.anchor is not None and i in self.anchor.where:                    # in a step that measures, apart
                judged.append(connected if for_anchor[i] is tap else pair.connect(*for_anchor[i], cells))
            del connected                                        # or its maps would lie beside those of the next pair
        if self.anchor is not None:
            losses |= self.anchor(judged, self.teacher.rest)
        return losses

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        if self._borrows and self.teacher.changed_by(fn):
            self.teacher, self._borrows = self.teacher.copied(), False
        if not self._borrows:
            self.teacher.apply_(fn)  # it is no child, and is moved and cast with the connectors
        return self

    def __deepcopy__(self, memo) -> Distillation:
        memo[id(self)] = copied = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo), _borrows=True)
        return copied

    def untaught(self) -> list[str]:
        """Paths of the student's layers that run after the deepest pair: without losses of its own they stay what they
        are. Of a student with ``backbone`` and ``neck``, those of these two.
        """
        network, tapped = self.taps.network, set(self.taps.modules)
        ended = list(dict.fromkeys(
            split_path(path)[0] for path in probe(network, self.input_size, learns=True).outputs))
        if not tapped <= set(ended):
            return []  # one is behind them
        last = max(map(ended.index, tapped))
        around = {path for path in ended if any(tap.startswith(f'{path}.') for tap in tapped)}
        return [path for path in ended[last + 1:]
                if path not in around and next(network.get_submodule(path).parameters(recurse=False), None) is not None]

    def summary(self) -> str:
        """How many pairs and weights there are, and a line for each pair."""
        own = set(self.parameters())
        weights = sum(p.numel() for p in self.taps.network.parameters() if p not in own)
        extra = sum(p.numel() for p in own)
        refinement = sum(p.numel() for name, p in self.named_parameters() if '.refine.' in name)
        share = f' ({refinement:,} of them, {refinement / weights:.1%}, in DS2S)' if refinement else ''
        first = (f"distillation: {len(self.pairs)} pairs; beside the student's {weights:,} weights, connectors train "
                 f'{extra:,}{share}; none is in the exported student')
        rest = [] if self.anchor is None else [f'  {self.anchor.summary()}']
        return '\n'.join([first, *(f'  {pair.summary()}' for pair in self.pairs), *rest])


def _warn_of_normalisation(student: nn.Module, teacher: nn.Module) -> None:
    """Where timm notes of both how their pictures are normalised, and it is not the same."""
    noted = [getattr(network, 'pretrained_cfg', None) or {} for network in (student, teacher)]
    ours, theirs = ([tuple(cfg.get(key) or ()) for key in ('mean', 'std')] for cfg in noted)
    if all((*ours, *theirs)) and ours != theirs:
        warnings.warn(f"teacher: timm notes mean and std {theirs} for its pictures, {ours} for the student's, and "
                      "it is shown the student's as they are; say how both are normalised: student_mean=, student_std=,"
                      ' teacher_mean=, teacher_std=', stacklevel=3)
