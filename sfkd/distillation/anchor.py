"""The anchor: the student's map judged by what of the frozen teacher comes after the tap."""
from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from .. import randomness
from ..connectors import map_of
from ..errors import ConfigError
from ..features.continuation import Continuation, last_to_end
from ..features.layouts import describe
from ..features.probe import random_pictures
from ..features.taps import split_path
from ..ops import area_pool, processes
from .assembly import build
from .counting import StepCount
from .pair import Pair
from .teacher import Teacher


class Anchor(nn.Module):
    """The student's maps, refined where DS2S runs, in the place of the teacher's: with the scale and shift of these,
    they go through the rest of the frozen teacher, and the class scores that come out are compared with those that the
    teacher gave. So a loss that cannot shrink by itself says what a refinement is worth. Ours; that a frozen head
    judges is SRRL's idea (Yang et al., ICLR 2021).

    Args:
        where: indices of the pairs whose maps are judged together.
        loss: on class scores (M, classes).
        weight: of that loss; the first one, where a share is given.
        share: how large the gradient that the anchor sends into the student shall be where it is tapped, relative to
            the task's: to all that reaches the tap but the losses of the anchored pair, so that logit distillation and
            other pairs count as the task. Measured every :attr:`INTERVAL` steps, for the steps that follow. None keeps
            the weight.
        standardised: of each of the pairs, whether the compared maps have lost the teacher's scale and shift.
    """

    INTERVAL = 10

    def __init__(self, where: list[int], loss: nn.Module, weight: float = 1.0, share: float | None = None,
                 standardised: Sequence[bool] | None = None):
        super().__init__()
        self.where, self.loss, self.share = where, loss, share
        self.standardised = standardised or [True] * len(where)
        self.register_buffer('weight', torch.tensor(float(weight)))
        self.steps = StepCount()
        self.register_buffer('norms', torch.zeros(2))  # squared: of the task's and of the anchor's gradient

    def forward(self, compared: Sequence[tuple], rest: Continuation) -> dict[str, Tensor]:
        """
        Args:
            compared: what the connectors of the pairs at :attr:`where` gave.
            rest: of the teacher, which has just run.

        Returns:
            dict: ``{'distill.anchor.loss': weighted scalar}``.
        """
        maps = [as_teachers(*(map_of(side, refined=True) for side in sides), *rest_of)
                for sides, *rest_of in zip(compared, rest.maps, self.standardised)]
        ours, theirs = (torch.cat(class_scores(output, rest.network)).to(maps[0].dtype)
                        for output in (rest(maps), rest.returned))
        return {'distill.anchor.loss': self.weight.clone() * self.loss(ours, theirs)}  # the weight changes in place

    # ---- the weight by the share of the task's gradient ----

    def split(self, tapped: list[tuple[Tensor, Tensor]], sources: list[tuple[Tensor, Tensor]]) -> tuple[list, list]:
        """What each pair taps, (student's, teacher's), for the pairs and for the anchor: apart in a step that measures
        how much of the gradient at a tap is from where.

        Args:
            tapped: by pair.
            sources: by pair, the student's tensor, and its view that what is tapped is or was copied from.
        """
        for_pairs, for_anchor = list(tapped), list(tapped)
        if self.share is None or not self._counted():
            return for_pairs, for_anchor
        for i in self.where:
            tap, theirs = tapped[i]
            views = [tap.view_as(tap) for _ in range(2)]
            for_pairs[i], for_anchor[i] = ((view, theirs) for view in views)
            self._measure(*views, *sources[i])
        return for_pairs, for_anchor

    def _measure(self, for_pairs: Tensor, for_anchor: Tensor, source: Tensor, view: Tensor) -> None:
        """Note, on the way back, how large the task's and the anchor's gradients are at the source of a tap."""
        # Geometry alone: a hook that held its own source would keep it for ever, as no collector sees autograd's cycles
        taught_part = for_pairs.shape, view.stride(), view.storage_offset() - source.storage_offset()
        whole = dict(size=source.shape, stride=source.stride(), dtype=source.dtype, device=source.device)
        gradients: dict[str, Tensor] = {}
        joined = processes() > 1

        def note(key):
            return lambda gradient: gradients.update({key: gradient.detach()})

        def note_all(gradient):
            if 'anchor' not in gradients:
                return  # the task's loss went back by itself: no step to measure in
            with torch.enable_grad():  # the taught part in the layout of the source, of which the tap is a view
                twin = torch.empty_strided(**whole, requires_grad=True)
                taught, = torch.autograd.grad(twin.as_strided(*taught_part), twin,
                                              sum(gradients.values()).to(twin.dtype))
            parts = gradient.float() - taught.float(), gradients['anchor'].float()
            gradients.clear()
            norms = torch.stack([part.square().sum() for part in parts])
            if joined:
                dist.all_reduce(norms)  # now: a checkpoint holds one process's buffers for all
            self.norms += norms
        for_pairs.register_hook(note('pairs'))
        for_anchor.register_hook(note('anchor'))
        source.register_hook(note_all)

    def _counted(self) -> bool:
        """Count a step; whether it is one that measures. What the last one measured is taken in first."""
        if not (self.training and torch.is_grad_enabled()):
            return False
        step = self.steps.next()
        if step % self.INTERVAL == 1 % self.INTERVAL and step:  # the step before this one has measured
            wanted = self.weight * self.share * (self.norms[0] / self.norms[1]).sqrt()
            if step > self.INTERVAL:
                wanted = (wanted * self.weight).sqrt()  # one batch is no measure of the next hundred
            self.weight.copy_(torch.where(wanted.isfinite() & (wanted > 0), wanted, self.weight))
        if step % self.INTERVAL:
            return False
        self.norms.zero_()
        return True

    def summary(self) -> str:
        """How much of what is judged, for the log."""
        aim = f'weight {self.weight:g}' if self.share is None else f"{self.share:.0%} of the task's gradient there"
        return f'anchor at {len(self.where)} maps, {aim}'


def anchor_on(pairs: Sequence[Pair], config: dict, teacher: Teacher, image_size: tuple[int, int]) -> Anchor:
    """The anchor of a distillation: at the pair of maps whose layer of the teacher ends last, and where that is a level
    of a neck at all levels that are paired; of several with one map of the teacher the last counts. The teacher keeps
    from now on what the anchor needs of each pass.

    Args:
        pairs: as assembled.
        config: of a loss on class scores (default: ``type='KLDivergence'``), with ``weight`` or ``share`` as of
            :class:`Anchor`.
        teacher: gets ``rest``.
        image_size: (H, W) of the teacher's dry run.

    Raises:
        ConfigError: if there is no such pair, if the teacher gives no class scores of pictures alone, or if it is to
            compute in float16.
    """
    config = dict(dict(type='KLDivergence'), **config)
    weight, share = config.pop('weight', 1.0), config.pop('share', None)
    for key, value in dict(weight=weight, share=1.0 if share is None else share).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ConfigError(f'anchor.{key}: {value!r} is no number above 0')
    if teacher.asked == 'fp16':
        raise ConfigError("teacher_precision: 'fp16' beside an anchor, whose gradients come back through the teacher: "
                          "small ones vanish; give 'bf16' or 'fp32', or leave it out")
    maps = [i for i, pair in enumerate(pairs) if not any(stage.is_scores for stage in pair.stages)]
    if not maps:
        raise ConfigError("anchor: there is no pair of maps, one of which could take the teacher's place; give pairs, "
                          'or leave anchor out')
    network, pictures = teacher.network, random_pictures(teacher.network, image_size)
    judged = partial(judged_by, network)
    with _from_pictures_alone(network), teacher.computing():
        module = last_to_end(network, [split_path(pairs[i].teacher_path)[0] for i in maps], partial(judged, pictures))
    where = list({pairs[i].teacher_path: i for i in maps if split_path(pairs[i].teacher_path)[0] == module}.values())
    if share is not None and (gone := [pairs[i].student_path for i in where if pairs[i].student_stage.overwritten]):
        raise ConfigError(f"anchor.share: a later layer overwrites the student's '{gone[0]}', so that the task's "
                          'gradient there cannot be measured; give anchor.weight, or pair the layer that overwrites it')
    rest = Continuation(network, [pairs[i].teacher_path for i in where], judged, teacher.computing)
    with torch.no_grad():
        with _from_pictures_alone(network):
            rest.look(pictures)
            rest.record(pictures)
        class_scores(rest.returned, network)
        for i, own in zip(where, rest.maps):
            with randomness.preserved():
                given, _ = copy.deepcopy(pairs[i]).eval().connect(
                    *(torch.zeros(2, *stage.shape) for stage in pairs[i].stages))
            given = map_of(given, refined=True)
            if given.dim() != 4 or given.shape[1] != own.shape[1]:
                raise ConfigError(f"anchor: the connector of pair '{pairs[i].name}' gives {describe(given)}, which "
                                  f"cannot take the place of the teacher's map, {describe(own)}; use a "
                                  'WaveletConnector or an Align')
    rest.forget()
    teacher.rest = rest
    return Anchor(where, build(config, 'anchor'), weight, share, [_standardises(pairs[i].connector) for i in where])


@contextlib.contextmanager
def _from_pictures_alone(network: nn.Module) -> Iterator[None]:
    """Within it, without gradients, a network that takes more than pictures is a mistake of the config."""
    try:
        with torch.no_grad():
            yield
    except (TypeError, AttributeError, NotImplementedError) as error:
        raise ConfigError(f"anchor: '{type(network).__name__}' does not run to its end from pictures alone "
                          f'({error}); leave anchor out') from error


def _standardises(connector: nn.Module | None) -> bool:
    """Whether the maps that a connector gives have lost their scale and shift; True where it does not say."""
    return connector is not None and getattr(getattr(connector, 'align', connector), 'standardised', True)


def as_teachers(ours: Tensor, theirs: Tensor, own: Tensor, standardised: bool = True) -> Tensor:
    """A compared map (N, C, h, w) with the scale, shift and grid of the teacher's own, as far as these are known from
    the compared map of the teacher.

    Args:
        ours, theirs: as a connector gives them; both 0 where there is padding.
        own: the teacher's map (N, C, H, W), of which ``theirs`` was made by pooling and, per channel, one affine map.
        standardised: whether there was such an affine map. A channel that it made 0 everywhere stays constant.

    Returns:
        Tensor: (N, C, H, W); in the padding the teacher's own.
    """
    pooled = area_pool(own, theirs.shape[2:]).to(theirs.dtype)
    inside = (theirs != 0).any(1, keepdim=True).to(theirs)
    if standardised:
        ours = _rescaled(ours, theirs, pooled, inside)
    ours = torch.where(inside > 0, ours, pooled)
    return ours if own.shape == theirs.shape else F.interpolate(ours, own.shape[2:], mode='bilinear')


def _rescaled(ours: Tensor, theirs: Tensor, pooled: Tensor, inside: Tensor) -> Tensor:
    """``ours`` under the affine map of each channel that makes ``pooled`` of ``theirs``."""
    count = inside.sum().clamp_min(1)

    def centred(x):
        mean = (x * inside).sum((0, 2, 3), keepdim=True) / count
        return mean, (x - mean) * inside
    (mean, x), (shift, y) = centred(pooled), centred(theirs)
    scale = (x * y).sum((0, 2, 3), keepdim=True) / y.square().sum((0, 2, 3), keepdim=True).clamp_min(1e-12)
    return (ours - shift) * scale + mean


def judged_by(network: nn.Module, pictures: Tensor):
    """What a teacher says of pictures (N, 3, H, W): its scores; of a detector in two stages the proposals'."""
    if isinstance(getattr(network, 'rpn_head', None), nn.Module):
        return network.rpn_head(network.extract_feat(pictures))
    return network(pictures)


def class_scores(output, network: nn.Module) -> list[Tensor]:
    """The class scores in what :func:`judged_by` gave, a row each: (M, classes).

    Args:
        output: (N, classes); class maps (N, classes, h, w); or a dense detector's ``(class maps of each level, boxes,
            ...)``.
        network: whose head says how scores become probabilities. Each score of a sigmoid is a class and its contrary.

    Raises:
        ConfigError: if there are no class scores in it.
    """
    head = next((part for name in ('bbox_head', 'rpn_head')
                 if isinstance(part := getattr(network, name, None), nn.Module)), None)
    if torch.is_tensor(output) and output.dim() == 2:
        return [output]
    if torch.is_tensor(output) and output.dim() == 4 and head is None:
        return [output.movedim(1, -1).flatten(0, 2)]
    levels = output[0] if isinstance(output, (tuple, list)) and output else None
    if head is None or not isinstance(levels, (tuple, list)) or not all(
            torch.is_tensor(level) and level.dim() == 4 for level in levels):
        raise ConfigError(f"anchor: '{type(network).__name__}' gives no class scores of pictures alone; leave anchor "
                          'out')
    if getattr(head, 'use_sigmoid_cls', True):
        return [torch.stack([level.flatten(), torch.zeros_like(level).flatten()], 1) for level in levels]
    classes = head.cls_out_channels
    return [level.unflatten(1, (-1, classes)).movedim(2, -1).flatten(0, -2) for level in levels]
