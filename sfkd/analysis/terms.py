"""What each term of a distillation asks of the student, and what its bands hold."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..connectors import Decomposed, map_of
from ..distillation.pair import common_grid
from ..features.padding import TaughtCells
from ..openmmlab.distiller import Distiller
from ..openmmlab.masks import ignored_label, picture_mask, rows_of, taught_mask
from ..ops import gaussian_frequency_loss
from .cka import linear_cka


@dataclass
class PairReport:
    """One pair, on one batch.

    Attributes:
        name: the pair's.
        losses: ``{term: weighted value}``.
        gradients: ``{term, and 'task': norm of its gradient in the student's weights}``.
        cosine: between the gradients of the task and of all the pair's terms together.
        bands: ``{band: (share of the teacher's energy, share of the residual's energy, residual / teacher energy)}``;
            shares sum to 1.
        kept: share of the (teacher's, residual's) energy that the GFFL's Gaussian of ``sigma`` keeps; None where scores
            are compared.
        cka: linear CKA of the two tapped outputs on their common grid, positions and pictures as samples; None where
            the teacher's are scores.
    """
    name: str
    losses: dict[str, float]
    gradients: dict[str, float]
    cosine: float
    bands: dict[str, tuple[float, float, float]]
    kept: tuple[float, float] | None
    cka: float | None


def report_terms(distiller: Distiller, inputs: Tensor, data_samples: list, sigma: float = 0.5) -> list[PairReport]:
    """Measure every feature pair of a distiller on one batch, in the mode (train or eval) that it is in; no weight
    changes.

    Args:
        distiller: with at least one pair.
        inputs: (N, 3, H, W), normalised.
        data_samples: one a picture; what is padding or has no label counts nowhere.
        sigma: of the Gaussian in ``kept``.
    """
    companion, student = distiller.distillation, distiller.student
    picture = picture_mask(inputs, data_samples)
    pixels = taught_mask(picture, data_samples, ignored_label(student))
    teacher_features = companion.teacher(inputs, picture, rows_of(data_samples))
    with companion.taps.capture(inputs.shape[2:]) as student_features:
        task, _ = student.parse_losses(student(inputs, data_samples, mode='loss'))
    weights = [p for p in student.parameters() if p.requires_grad]

    def gradient(loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(weights, found)])
    from_task, reports = gradient(task), []
    for pair in companion.pairs:
        if pair.student_stage.is_scores:
            continue
        tap, target = student_features[pair.student_path], teacher_features[pair.teacher_path]
        cells = None if pixels is None or target.dim() != 4 else TaughtCells(pixels, [common_grid(tap, target)])
        losses = {key.rpartition('.loss_')[2]: value for key, value in pair(tap, target, cells).items()}
        each = {key: gradient(loss) for key, loss in losses.items()}
        with torch.no_grad():
            connected = pair.connect(tap, target, cells)
            reports.append(PairReport(
                pair.name, {key: value.item() for key, value in losses.items()},
                {key: float(g.norm()) for key, g in {**each, 'task': from_task}.items()},
                float(F.cosine_similarity(from_task, sum(each.values()), dim=0)),
                _bands(*connected) if isinstance(connected[0], Decomposed) else {}, _kept(*connected, sigma),
                _cka(tap, target, cells)))
    return reports


def _kept(student: Tensor | Decomposed, teacher: Tensor | Decomposed, sigma: float) -> tuple[float, float] | None:
    s, t = map_of(student), map_of(teacher)
    if t.dim() != 4 or s.shape != t.shape:
        return None
    return tuple(float(gaussian_frequency_loss(x, torch.zeros_like(x), sigma) / x.square().mean()) for x in (t, t - s))


def _cka(student: Tensor, teacher: Tensor, cells: TaughtCells | None) -> float | None:
    if teacher.dim() != 4:
        return None
    grid = common_grid(student, teacher)
    counts = slice(None) if cells is None else cells.on(grid).flatten() > 0
    return linear_cka(*(F.adaptive_avg_pool2d(x, grid).transpose(0, 1).flatten(1).T[counts]
                        for x in (student, teacher)))


def _bands(student: Decomposed, teacher: Decomposed) -> dict[str, tuple[float, float, float]]:
    levels = len(teacher.bands.details)
    names = [f'LL{levels}', *(f'{kind}{j}' for j in range(1, levels + 1) for kind in ('LH', 'HL', 'HH'))]
    energy = [(float(t.square().sum()), float((s - t).square().sum()))
              for s, t in zip(student.bands.each(), teacher.bands.each())]
    totals = [sum(column) for column in zip(*energy)]
    return {name: (t / totals[0], r / totals[1], r / t) for name, (t, r) in zip(names, energy)}

