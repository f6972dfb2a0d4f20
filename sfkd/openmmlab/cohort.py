"""Many methods at once: students that train side by side on the same batches, with one pass of one teacher."""
from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn

from .. import randomness
from ..distillation import Distillation, Teacher
from ..distillation.cache import digest_of, digest_of_network
from ..distillation.counting import StepCount
from ..errors import ConfigError
from ..features.continuation import Continuation
from ..features.taps import Taps
from ..registry import MODELS
from .building import build_model
from .distiller import Distiller


class OnePass:
    """Stands in for the teacher of several distillations: each batch's features are computed once, for whoever asks.

    Args:
        distillations: of the same teacher; all that any of them taps is read.

    Attributes:
        pairs: those of all.
    """

    def __init__(self, distillations: list[Distillation]):
        self.pairs = [pair for distillation in distillations for pair in distillation.pairs]
        taps = [distillation.teacher.taps for distillation in distillations]
        teachers = [distillation.teacher for distillation in distillations]
        anchored = [teacher for teacher in teachers if teacher.rest is not None]
        if len(places := {(teacher.rest.module, *teacher.rest.indices) for teacher in anchored}) > 1:
            raise ConfigError(f'members: their anchors are at {len(places)} places of the teacher; train what has '
                              'another by itself, with tools/train.py')
        self.teacher: Teacher = copy.copy([*anchored, *teachers][0])  # whose rest is that of the network that runs
        self.teacher.read(Taps(self.teacher.network, dict.fromkeys(path for tap in taps for path in tap.paths),
                               raw=set().union(*(tap.raw for tap in taps)), stop=not anchored,
                               copied=set().union(*(tap.copied for tap in taps))))
        self.forget()

    def __call__(self, images: Tensor, mask: Tensor | None = None, rows: list[int] | None = None) -> dict[str, Tensor]:
        if images is not self.images:
            self.forget()
            self.features, self.images = self.teacher(images, mask, rows), images
        return dict(self.features)  # which they empty

    @property
    def rest(self) -> Continuation | None:
        return self.teacher.rest

    def forget(self) -> None:
        """Let go of the last batch."""
        if self.rest is not None:
            self.rest.forget()
        self.features: dict[str, Tensor] = {}
        self.images: Tensor | None = None

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        self.teacher.apply_(function)

    def changed_by(self, function: Callable[[Tensor], Tensor]) -> bool:
        return self.teacher.changed_by(function)

    def copied(self) -> OnePass:
        other = copy.copy(self)
        other.teacher = self.teacher.copied()
        return other

    def __deepcopy__(self, memo) -> OnePass:
        return self


@MODELS.register_module()
class Cohort(BaseModel):
    """Students of one config, each taught by another method, that share batches and the teacher's forward pass.

    Each student starts, and is updated, as in a run of its own with the same seed: to the last bit, as long as no layer
    draws random numbers in training (dropout; the students then share one stream). The optimizers come from
    :class:`CohortOptimizers`. In ``predict`` and ``tensor`` mode the cohort is its member number ``shown``. A member
    that cannot be built, whose step raises or whose loss is not finite drops out, and the others go on, without it in a
    resumed run too; before a checkpoint also one whose weights are not finite. One process: no distributed training.

    Args:
        members: ``{name: model config}``; distillers, all of the same student and teacher, or that student by itself
            (also as a path). One whose teacher has other weights, another normalisation, input size or precision than
            the first's drops out.
        data_preprocessor: default for a student whose own config has none.

    Raises:
        ConfigError: if no member can be built.
    """

    #: Steps between two looks at whether the losses are finite: each waits for the device.
    LOOK = 50

    def __init__(self, members: dict[str, dict | str], data_preprocessor: dict | None = None):
        built, self.dropped, self._random_states = {}, {}, {}
        start = end = randomness.get_state()
        for name, config in members.items():
            randomness.set_state(start)
            try:
                member = build_model(config, f'members.{name}', data_preprocessor)
            except ConfigError as error:
                self._left_out(name, str(error))
                continue
            built[name] = member
            self._random_states[name] = end = randomness.get_state()
        randomness.set_state(end)
        distillations = self._of_one_teacher(built)
        if not built:
            raise ConfigError([f'{name}: {problem}' for name, problem in self.dropped.items()])
        super().__init__(data_preprocessor=next(iter(built.values())).data_preprocessor)
        self.names, self.members, self.shown = list(built), nn.ModuleList(built.values()), 0
        self.steps = StepCount()
        self.register_buffer('gone', torch.zeros(len(built), dtype=torch.bool))  # for checkpoints: who has dropped out
        self.one_pass = OnePass(distillations) if distillations else None
        for distillation in distillations:
            distillation.teacher = self.one_pass  # frees the teacher that it was built with

    def _of_one_teacher(self, built: dict[str, nn.Module]) -> list[Distillation]:
        """The members' distillations; a member whose teacher is not that of the first is dropped."""
        found: dict[str, tuple] = {}
        for name, member in list(built.items()):
            if not isinstance(member, Distiller) or not member.distillation.pairs:
                continue
            teacher = member.distillation.teacher
            found[name] = (digest_of_network(teacher.network), digest_of(str(teacher.affine)), teacher.input_size,
                           teacher.precision)
            first, *_ = found
            names = 'weights', 'normalisation', 'input size', 'precision'
            if differ := [what for what, own, other in zip(names, found[name], found[first]) if own != other]:
                self._left_out(name, f"its teacher has another {' and '.join(differ)} than that of '{first}'; a "
                               'cohort has one teacher')
                del built[name], found[name]
        return [built[name].distillation for name in found]

    def init_weights(self) -> None:
        """Initialise each member from where the random numbers stand after building it."""
        for name, member in zip(self.names, self.members):
            randomness.set_state(self._random_states[name])
            member.init_weights()

    def student(self, name: str) -> nn.Module:
        """A member's student, a stock model."""
        member = self.members[self.names.index(name)]
        return member.student if isinstance(member, Distiller) else member

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor'):
        """The forward pass of the member that is shown; see :class:`Distiller`."""
        return self.members[self.shown](inputs, data_samples, mode)

    def train_step(self, data, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """A step of each member that has not dropped out.

        Returns:
            dict: ``{'<name>.<loss>': scalar}``, for the log.
        """
        data = self.data_preprocessor(data, True)
        step, log = self.steps.next(), {}
        for name, member in zip(self.names, self.members):
            if name not in self.dropped:
                try:
                    log |= {f'{name}.{key}': value for key, value in self._step(
                        member, data, optim_wrapper[name], looks=step % self.LOOK == 0).items()}
                except (RuntimeError, ValueError, ArithmeticError) as error:
                    self._drop(name, f'step {step + 1}: {error}')
        if self.one_pass is not None:
            self.one_pass.forget()
        if not log:
            raise RuntimeError(f'every member has dropped out: {self.dropped}')
        return log

    def _left_out(self, name: str, why: str) -> None:
        self.dropped[name] = why
        print_log(f'{name} drops out: {why}', 'current', level=logging.ERROR)  # tools/compare.py looks for this line

    def _drop(self, name: str, why: str) -> None:
        self._left_out(name, why)
        i = self.names.index(name)
        self.gone[i] = True
        for tensor in self.members[i].state_dict().values():
            tensor.nan_to_num_()  # a checkpoint with NaN would be refused

    def _save_to_state_dict(self, *args, **kwargs):
        for name, member in zip(self.names, self.members):
            if name not in self.dropped:
                broken = next((key for key, value in member.state_dict().items() if not value.isfinite().all()), None)
                if broken:  # since the last look
                    self._drop(name, f"its weight '{broken}' has values that are no numbers")
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        for name, gone in zip(self.names, self.gone.tolist()):
            if gone:
                self.dropped.setdefault(name, 'before the run was resumed')

    @staticmethod
    def _step(member: BaseModel, data: dict, optim_wrapper, looks: bool) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(member):
            loss, log = member.parse_losses(member._run_forward(data, mode='loss'))
        if looks and not torch.isfinite(loss):
            raise FloatingPointError(f'the loss is {loss.item()}')
        optim_wrapper.update_params(loss)
        return log


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class CohortOptimizers:
    """One optimizer for each member of a :class:`Cohort`: ``optim_wrapper = dict(constructor='CohortOptimizers',
    each=dict(...))``.

    Args:
        optim_wrapper_cfg: holds ``each``, the config of one, as a run of its own has it.
        paramwise_cfg: unused; it is a part of ``each``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: None = None):
        self.each = optim_wrapper_cfg['each']

    def __call__(self, cohort: Cohort) -> OptimWrapperDict:
        return OptimWrapperDict(**{name: build_optim_wrapper(member, self.each)
                                   for name, member in zip(cohort.names, cohort.members)})
