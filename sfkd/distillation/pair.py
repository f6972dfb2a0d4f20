"""A pair: one tap of the student, one of the teacher, the connector between them, and the losses."""
from __future__ import annotations

import inspect

from torch import Tensor, nn

from ..connectors import Decomposed, WaveletConnector
from ..errors import ConfigError
from ..features.padding import TaughtCells
from ..features.probe import Stage
from ..losses import is_mean_over_grid, takes_mask


class Pair(nn.Module):
    """What one stage of the student learns from one of the teacher.

    Args:
        name: part of the losses' names.
        student_stage, teacher_stage: what is tapped.
        connector: ``(student, teacher[, mask]) -> (student, teacher)``; of one that takes no mask the maps that it
            gives are masked. None compares the outputs as they are.
        losses: ``{name: (weight, loss)}``.
    """

    def __init__(self, name: str, student_stage: Stage, teacher_stage: Stage, connector: nn.Module | None,
                 losses: dict[str, tuple[float, nn.Module]]):
        super().__init__()
        self.name, self.student_stage, self.teacher_stage = name, student_stage, teacher_stage
        self.connector, self.hands_mask = connector, connector is not None and _takes_third(connector)
        self.weights = {key: weight for key, (weight, _) in losses.items()}
        self.losses = nn.ModuleDict({key: loss for key, (_, loss) in losses.items()})

    @property
    def stages(self) -> tuple[Stage, Stage]:
        """The student's and the teacher's."""
        return self.student_stage, self.teacher_stage

    @property
    def student_path(self) -> str:
        return self.student_stage.path

    @property
    def teacher_path(self) -> str:
        return self.teacher_stage.path

    def forward(self, student: Tensor, teacher: Tensor, taught: TaughtCells | None = None) -> dict[str, Tensor]:
        """
        Args:
            student, teacher: the tapped outputs, (N, C, h, w) or class scores (N, classes).
            taught: where there is something to teach; None where that is everywhere. Only maps are masked, not scores.

        Returns:
            dict: ``{'distill.<pair>.loss_<name>': weighted scalar}``; mmengine sums what has 'loss' in its name.

        Raises:
            ConfigError: naming the pair, both shapes and what can be done, where this batch does not fit.
        """
        return self.losses_of(self.connect(student, teacher, taught), (student, teacher), taught)

    def losses_of(self, connected: tuple, tapped: tuple[Tensor, Tensor],
                  taught: TaughtCells | None = None) -> dict[str, Tensor]:
        """The losses of what :meth:`connect` gave. Where a part of the batch teaches, means over a whole grid are
        scaled up to one over it, and losses that ask for the mask get it.

        Args:
            connected: (student's, teacher's).
            tapped: what they were connected from, (student, teacher) of :meth:`forward`.
            taught: see there.
        """
        scale, mask = 1.0, None
        if taught is not None and tapped[1].dim() == 4:
            scale, mask = taught.scale(common_grid(*tapped)), taught.pixels
        losses = {}
        for key, loss in self.losses.items():
            value = loss(*connected, mask=mask) if mask is not None and takes_mask(loss) else loss(*connected)
            factor = self.weights[key] * (scale if is_mean_over_grid(loss) else 1.0)
            losses[f'distill.{self.name}.loss_{key}'] = factor * value
        return losses

    def connect(self, student: Tensor, teacher: Tensor,
                taught: TaughtCells | None = None) -> tuple[Tensor | Decomposed, Tensor | Decomposed]:
        """What the losses compare. Arguments and errors as of :meth:`forward`."""
        grid = common_grid(student, teacher)
        self._check(student, teacher, grid)
        masked = taught is not None and teacher.dim() == 4
        if masked and self.hands_mask:
            return self.connector(student, teacher, taught.on(grid))
        connected = (student, teacher) if self.connector is None else self.connector(student, teacher)
        return tuple(self._masked(x, taught) for x in connected) if masked else connected

    def _masked(self, x: Tensor | Decomposed, taught: TaughtCells) -> Tensor:
        if not isinstance(x, Tensor):
            raise ConfigError(f"pair '{self.name}': {type(self.connector).__name__} takes no mask, and what it gives, "
                              f'{type(x).__name__}, cannot be masked; give its forward a third argument, mask')
        return x * taught.on(tuple(x.shape[2:])) if x.dim() == 4 else x

    def _check(self, student: Tensor, teacher: Tensor, grid: tuple[int, ...]) -> None:
        """Raise where this batch gives other shapes than the pair was built for."""
        problem = None
        if isinstance(self.connector, WaveletConnector) and not self.connector.takes(grid):
            problem = f'a grid of {grid[0]}x{grid[1]} is too small for any level'
        elif (self.connector is None and student.shape[2:] != teacher.shape[2:]
              and self.student_stage.grid == self.teacher_stage.grid):
            problem = 'without a connector their grids must be the same, as they were in the dry run'
        if problem:
            raise ConfigError(
                f"pair '{self.name}': the student's '{self.student_path}' gives {tuple(student.shape)} and the "
                f"teacher's '{self.teacher_path}' {tuple(teacher.shape)}: {problem}. Leave the pair out with stages=, "
                'name others in pairs=, or give the size of the smallest batch as input_size=, so that what does not '
                'fit is left out')

    def summary(self) -> str:
        """One line: both stages, the grid, the levels, the weighted losses."""
        s, t = self.student_stage, self.teacher_stage
        text = f'{s.path} {s.channels}x{s.grid[0]}x{s.grid[1]} <- {t.path} {t.channels}x{t.grid[0]}x{t.grid[1]}'
        if isinstance(self.connector, WaveletConnector):
            levels = self.connector.levels_on(tuple(map(min, s.grid, t.grid)))
            text += f', {levels} of {self.connector.levels} levels'
            text += ' (more do not fit)' if levels < self.connector.levels else ''
        return text + ': ' + ', '.join(f'{weight:g} x {key}' for key, weight in self.weights.items())


def _takes_third(connector: nn.Module) -> bool:
    """Whether a third positional argument fits."""
    kinds = [parameter.kind for parameter in inspect.signature(connector.forward).parameters.values()]
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return sum(kind in positional for kind in kinds) > 2 or inspect.Parameter.VAR_POSITIONAL in kinds


def common_grid(student: Tensor, teacher: Tensor) -> tuple[int, ...]:
    """The smaller of two maps' sides in each direction; empty for class scores."""
    return tuple(map(min, student.shape[2:], teacher.shape[2:]))
