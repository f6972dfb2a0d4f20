"""A picture of two networks' stages and of which teaches which."""
from __future__ import annotations

from pathlib import Path

from torch import nn

from ..features.probe import Probe, Stage, probe
from ..features.stages import pyramid, stages
from ..openmmlab.distiller import Distiller


def tappable(network: nn.Module, probed: Probe) -> list[Stage]:
    """What automatic pairing chooses from in a network: the stages of its backbone and the levels of its neck."""
    return [*stages(network, probed), *pyramid(probed)]


def draw_pairs(distiller: Distiller, file: str | Path) -> None:
    """Draw the student's stages left and the teacher's right, shallow at the top, linked where one teaches the other.

    Args:
        distiller: a built one.
        file: a picture file, in any format of matplotlib.
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    companion = distiller.distillation
    teacher = companion.teacher
    teacher_size = teacher.input_size or companion.input_size
    sides = []
    for name, network, size, learns in (('student', distiller.student, companion.input_size, True),
                                        ('teacher', teacher.network, teacher_size, False)):
        has_trunk = hasattr(network, 'backbone')
        title = f'{name}: {type(network).__name__}, {type(network.backbone).__name__}' if has_trunk else name
        sides.append((title, tappable(network, probe(network, size, learns=learns))))
    for side, (_, drawn) in enumerate(sides):  # those that the user named, and heads
        known = {stage.path for stage in drawn}
        drawn += {pair.stages[side].path: pair.stages[side]
                  for pair in companion.pairs if pair.stages[side].path not in known}.values()
    rows = max(len(drawn) for _, drawn in sides)
    figure, axis = plt.subplots(figsize=(8, 0.6 + 0.5 * rows), layout='constrained')
    centres: list[dict[str, float]] = []
    for x, (title, drawn) in zip((0, 1), sides):
        heights = {stage.path: -(i + 0.5) * rows / len(drawn) for i, stage in enumerate(drawn)}
        centres.append(heights)
        taught = {pair.stages[x].path for pair in companion.pairs}
        axis.text(x, 0.35, title, ha='center', weight='bold')
        for stage in drawn:
            grid = f"{stage.channels} x {'x'.join(map(str, stage.grid))}"
            grid += f', stride {stage.stride}' if stage.stride else ''
            colour = 'tab:blue' if stage.path in taught else '0.75'
            axis.text(x, heights[stage.path], f'{stage.path}\n{grid}', ha='center', va='center', fontsize=8,
                      bbox=dict(boxstyle='round', facecolor='white', edgecolor=colour, linewidth=1.5))
    for pair in companion.pairs:
        ours, theirs = (heights[stage.path] for heights, stage in zip(centres, pair.stages))
        axis.annotate('', (0.27, ours), (0.73, theirs), arrowprops=dict(arrowstyle='->', color='tab:blue'))
    axis.set(xlim=(-0.35, 1.35), ylim=(-rows, 0.8))
    axis.axis('off')
    figure.savefig(file, dpi=120)
    plt.close(figure)
