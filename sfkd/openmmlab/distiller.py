"""OpenMMLab's face of a distillation: a model that *is* the stock student, with a companion under one name."""
from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .. import randomness
from ..distillation import Distillation, Teacher, sfkd
from ..distillation.assembly import teaches
from ..distillation.distillation import as_size
from ..distillation.precision import check_precision
from ..errors import ConfigError, Problems, nearest
from ..features.layouts import lay_out
from ..features.probe import probe
from ..registry import register_entry_point
from ..shipped import located
from .building import build_model, initialise, normalisation_of
from .masks import ignored_label, picture_mask, rows_of, taught_mask

NAME = 'distillation'  # of the companion in the student


@register_entry_point
class Distiller:
    """Trains a student of any task with its own losses and a frozen teacher's features or logits.

    ``Distiller(...)`` builds the stock student and gives it as an object of a subclass of its own class, which differs
    in one thing: the training losses have the companion's beside the student's own. So the student keeps its class, its
    attributes, the names and the order of its weights, and whatever finds a part by its name (layer decay,
    ``load_from``, hooks of others) finds it. The companion is the module ``distillation``
    (:class:`~sfkd.distillation.Distillation`). With no pair left (every weight 0) training is the student's own, bit
    for bit. Config problems are reported together, before the first batch.

    Args:
        student: config path, model dict or built module; the path's or dict's own ``data_preprocessor`` comes before
            the argument.
        teacher: the same.
        teacher_ckpt: checkpoint file or address; 'init' takes the weights that the teacher's own ``init_cfg`` gives
            (random where it has none). Needed unless ``teacher`` is a module.
        pairs, stages, connector, losses, logits, anchor, every, until, share: see
            :class:`~sfkd.distillation.Distillation`; here without losses there are none.
        input_size: (H, W) of the training pictures, for the dry run; None takes ``img_size`` of the student's or the
            teacher's backbone, or 224.
        teacher_input_size: (H, W) to which pictures are resized for the teacher.
        teacher_precision, teacher_compile: what the teacher computes in, and whether it is compiled, see
            :class:`~sfkd.distillation.Teacher`.
        channels_last: lay the student's convolutions out channels last, for which CPUs and, in half precision, GPUs
            have faster kernels. Its numbers are the same up to rounding, but those that dropout draws for a map; the
            student that is exported lies as ever.
        data_preprocessor: default for a student whose own config has none (mmengine's runner passes it).
        task_weight: by what the student's own losses are multiplied. 0: they are not computed, no label is looked at,
            and the student runs no further than to its features, or to its scores where these are taught. What lies
            behind gets no gradient then (a head keeps its weights), of which DDP must know: ``find_unused_parameters
            = True`` in the config, which tools/train.py sets by itself.
        student_options: what of the student's config is to be different, merged as a config's own override is:
            ``dict(bbox_head=dict(num_classes=10))``.

    Raises:
        ConfigError: with every problem found.
    """

    def __new__(cls, student: str | dict | nn.Module, *_, data_preprocessor: dict | None = None,
                student_options: dict | None = None, **others):
        known = [name for base in cls.__mro__ if issubclass(base, Distiller) for name in _parameters(base.__init__)]
        known += _parameters(sfkd) if issubclass(cls, SFKD) else []
        if unknown := [key for key in others if key not in known]:
            raise ConfigError([f'model.{key}: no option of {cls.__name__}; nearest: {nearest(key, known)}'
                               for key in unknown])
        network = build_model(student, 'model.student', data_preprocessor, options=student_options)
        if hasattr(network, NAME):
            raise ConfigError(
                f"model.student: '{type(network).__name__}' has a part called '{NAME}' already: it is itself "
                'distilled, or its own needs another name')
        return view(network, taught_class(cls, type(network)))  # Python now calls its __init__, the one below

    def __init__(self,
                 student: str | dict | nn.Module,
                 teacher: str | dict | nn.Module,
                 teacher_ckpt: str | None = None,
                 pairs: str | list[str | dict] = 'auto',
                 stages: list[int] | None = None,
                 connector: dict | None = None,
                 losses: Sequence[dict] = (),
                 logits: Sequence[dict] = (),
                 anchor: dict | None = None,
                 every: int = 1,
                 until: int | None = None,
                 share: float = 1.0,
                 input_size: int | tuple[int, int] | None = None,
                 teacher_input_size: int | tuple[int, int] | None = None,
                 teacher_precision: str = 'auto',
                 teacher_compile: bool = False,
                 channels_last: bool = False,
                 task_weight: float = 1.0,
                 data_preprocessor: dict | None = None,
                 student_options: dict | None = None):
        with randomness.preserved():  # the student's training must not depend on what is built beside it
            network = build_model(teacher, 'model.teacher', data_preprocessor)
            if teacher_ckpt == 'init':
                initialise(network)
            problems = Problems()
            with problems.collected('model.'):
                check_precision(teacher_precision, 'teacher_precision')
            frozen = Teacher(network, normalisation_of(network), normalisation_of(self, always=True),
                             teacher_input_size,
                             'auto' if problems.found else teacher_precision, teacher_compile)
            size = input_size or image_size_of(self) or image_size_of(network) or 224
            with problems.collected('model.'):
                if channels_last:
                    _lay_out_channels_last(self, as_size(size))
            with problems.collected('model.'):
                _check_task_weight(task_weight, teaches(pairs, losses, logits), anchor, every, until)
            with problems.collected('model.'):
                _check_checkpoint(teacher, teacher_ckpt)
            with problems.collected('model.'):
                if teaches(pairs, losses, logits):
                    _check_backbones(student=self, teacher=network)
                companion = Distillation(self, frozen, pairs, stages=stages, connector=connector, losses=losses,
                                         logits=logits, anchor=anchor, every=every, until=until, share=share,
                                         input_size=size)
            problems.raise_all()
            if companion.pairs and teacher_ckpt not in (None, 'init'):
                frozen.load(teacher_ckpt)
        # There, as the student's own attributes stay the stock model's
        companion.task_weight, companion.channels_last = task_weight, channels_last
        self.distillation = companion
        print_log(companion.summary(), 'current')
        if not task_weight and (rest := companion.untaught()):
            print_log(f"model.task_weight: 0, and nothing teaches the {len(rest)} layers of the student that run after "
                      f"the deepest pair, first of them '{rest[0]}'; name a pair behind them in model.pairs", 'current',
                      level=logging.WARNING)

    def loss(self, inputs: Tensor, data_samples: list, **kwargs) -> dict[str, Tensor]:
        """Task losses of the student, and of each pair the distillation losses.

        Args:
            inputs: (N, 3, H, W), normalised.
            data_samples: one a picture.

        Returns:
            dict: ``{student losses..., 'distill.<pair>.loss_<name>': scalar}``; a student loss called 'loss' becomes
                'task.loss'. With ``task_weight=0`` the second alone.
        """
        return self._taught(super().loss, inputs, data_samples, **kwargs)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor', **kwargs):
        """The student's forward; in mode 'loss' see :meth:`loss`, also for a student whose forward does without a
        ``loss`` of its own.
        """
        stock = functools.partial(super().forward, mode=mode)
        return self._taught(stock, inputs, data_samples, **kwargs) if mode == 'loss' else stock(
            inputs, data_samples, **kwargs)

    def _taught(self, stock_losses: Callable[..., dict[str, Tensor]], inputs: Tensor, data_samples: list | None,
                **kwargs) -> dict[str, Tensor]:
        companion = self.distillation
        weight = companion.task_weight
        if companion.watching or not companion.pairs and weight == 1:  # watching: forward has called loss
            return stock_losses(inputs, data_samples, **kwargs)
        picture = picture_mask(inputs, data_samples)                # (N, 1, H, W), or None: nothing is padded
        # The teacher sees what has no label, but does not teach it
        teaches = taught_mask(picture, data_samples, ignored_label(self)) if weight else picture
        with companion(inputs, picture, teaches, rows_of(data_samples)) as taught:
            losses = stock_losses(inputs, data_samples, **kwargs) if weight else self._show(inputs, data_samples)
        if weight != 1:
            losses = {key: _times(weight, value) if 'loss' in key else value for key, value in losses.items()}
        if 'loss' in losses:  # mmengine logs the total under this name
            losses['task.loss'] = losses.pop('loss')
        return losses | taught.losses

    def _show(self, inputs: Tensor, data_samples: list | None) -> dict[str, Tensor]:
        """Run the student for the taps alone: no further than its neck, where none of them lies behind."""
        parts = {path.partition('.')[0] for path in self.distillation.taps.modules}
        if parts <= {'backbone', 'neck'} and hasattr(self, 'extract_feat'):
            self.extract_feat(inputs)
        else:
            super().forward(inputs, data_samples, mode='tensor')
        return {}

    # ---- the student as a stock model ----

    def init_weights(self) -> None:
        """The student's; an ``init_cfg`` of the whole model reaches every layer in it, and must not reach the
        connectors. Random numbers are drawn in the order in which weights usually lie.
        """
        with self._laid_out_as_usual(), self._alone():
            super().init_weights()

    @contextlib.contextmanager
    def _laid_out_as_usual(self):
        if not self.distillation.channels_last:
            yield
            return
        lay_out(self.student, torch.contiguous_format)
        yield
        lay_out(self.student, torch.channels_last)

    @contextlib.contextmanager
    def _alone(self):
        companion = self._modules.pop(NAME)
        try:
            yield
        finally:
            self._modules[NAME] = companion

    @property
    def student(self) -> nn.Module:
        """The student without its companion, of its stock class: the same layers and weights."""
        stock = view(self, type(self).__bases__[-1])
        stock._modules.pop(NAME)
        return stock

    def __reduce_ex__(self, protocol):
        kind, stock = type(self).__bases__
        return _restored, (kind, stock), self.__dict__  # the class itself has no name under which pickle could find it


@register_entry_point
class SFKD(Distiller):
    """The method of arXiv 2607.01906 in one line of config: :class:`Distiller` with the connector and losses of
    :func:`sfkd.distillation.sfkd`.

    Args:
        student, teacher, teacher_ckpt, pairs: see :class:`Distiller`.
        kwargs: the options of :func:`sfkd.distillation.sfkd`, and of :class:`Distiller`.
    """

    def __init__(self, student, teacher, teacher_ckpt=None, pairs='auto', **kwargs):
        options = {key: kwargs.pop(key) for key in _parameters(sfkd) if key in kwargs}
        super().__init__(student, teacher, teacher_ckpt, pairs, **sfkd(**options), **kwargs)


@functools.cache
def taught_class(kind: type[Distiller], stock: type[nn.Module]) -> type:
    """The subclass of a student's class that its distillation makes it an object of; by name and module it is the
    student's own.
    """
    return type(stock.__name__, (kind, stock),
                dict(__module__=stock.__module__, __doc__=stock.__doc__, __qualname__=stock.__qualname__))


def view(network: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A network as an object of another class: the same layers and weights, and a list of children of its own."""
    seen = object.__new__(cls)
    seen.__dict__.update(network.__dict__, _modules=dict(network._modules))
    return seen


def _restored(kind: type[Distiller], stock: type[nn.Module]) -> nn.Module:
    """What copies and pickles of a distilling student begin as."""
    return object.__new__(taught_class(kind, stock))


def _check_backbones(**networks: nn.Module) -> None:
    if blind := [(side, network) for side, network in networks.items() if not hasattr(network, 'backbone')]:
        raise ConfigError([
            f"{side}: '{type(network).__name__}' has no backbone, whose stages could be paired; give the model within "
            'it that has' for side, network in blind
        ])


def _lay_out_channels_last(student: nn.Module, size: tuple[int, int]) -> None:
    lay_out(student, torch.channels_last)
    try:
        probe(student, size)
    except Exception as error:  # whatever the network's own code raises
        lay_out(student, torch.contiguous_format)
        probe(student, size)  # raises what is not of the layout
        raise ConfigError(f"channels_last: '{type(student).__name__}' does not run so ({error.__cause__ or error}); "
                          'leave it out') from error


def _parameters(function: Callable) -> list[str]:
    """The names of what a function takes by name."""
    return [name for name, parameter in inspect.signature(function).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != 'self']


def image_size_of(network: nn.Module) -> int | tuple[int, int] | None:
    """The size of pictures that a backbone was made for, where it has one."""
    return getattr(getattr(network, 'backbone', None), 'img_size', None)


def _times(weight: float, loss: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """A loss, or one a level, times a weight."""
    return [weight * part for part in loss] if isinstance(loss, (list, tuple)) else weight * loss


def _check_task_weight(weight: float, taught: bool, anchor: dict | None, every: int, until: int | None) -> None:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise ConfigError(f'task_weight: {weight!r} is no number from 0 on; 0 trains without labels, 1 (the default) '
                          "as in the student's own config")
    if weight:
        return
    problems = Problems()
    if not taught:
        problems.found.append('task_weight: 0, and every weight of the distillation is 0 too: nothing is left to '
                              'learn; give one of them another weight')
    for key, value, default in (('every', every, 1), ('until', until, None)):
        if value != default:
            problems.found.append(f'{key}: {value!r} with task_weight=0 leaves steps in which nothing is learned; '
                                  'leave out one of the two')
    if isinstance(anchor, dict) and 'share' in anchor:
        problems.found.append("anchor: a share of the task's gradient, which there is not with task_weight=0; give "
                              'anchor=dict(weight=...)')
    problems.raise_all()


def _check_checkpoint(teacher, checkpoint: str | None) -> None:
    if checkpoint is None and not isinstance(teacher, nn.Module):
        raise ConfigError(
            "teacher_ckpt: None, so the teacher would be random; give its checkpoint, or 'init' for what the teacher's "
            'own init_cfg loads')
    if not isinstance(checkpoint, str | None):
        raise ConfigError(f"teacher_ckpt: {checkpoint!r} is no file, address or 'init'")
    if checkpoint not in (None, 'init') and '://' not in checkpoint:
        if not Path(located(checkpoint, 'teacher_ckpt')).is_file():
            raise ConfigError(f"teacher_ckpt: there is no checkpoint '{checkpoint}'")
