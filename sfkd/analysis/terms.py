"""What each term of a distillation asks of the student, and what its bands hold."""
from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.connectors import Decomposed
from ..models.distillers import Distiller
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
        bands: ``{band: (share of the teacher's energy, share of the residual's energy, residual / teacher energy)}``; shares sum to 1.
        kept: share of the (teacher's, residual's) energy that the GFFL's Gaussian of ``sigma`` keeps.
        cka: linear CKA of the two tapped outputs on their common grid, positions and pictures as samples.
    """
    name: str
    losses: dict[str, float]
    gradients: dict[str, float]
    cosine: float
    bands: dict[str, tuple[float, float, float]]
    kept: tuple[float, float]
    cka: float


def report_terms(distiller: Distiller, inputs: Tensor, data_samples: list, sigma: float = 0.5) -> list[PairReport]:
    """Measure every feature pair of a distiller on one batch, in the mode (train or eval) that it is in; no weight changes.

    Args:
        distiller: with at least one pair.
        inputs: (N, 3, H, W), normalised.
        data_samples: one a picture.
        sigma: of the Gaussian in ``kept``.
    """
    with distiller.taps.capture(inputs.shape[2:]) as student:
        task = distiller.student(inputs, data_samples, mode='loss')
    teacher = distiller.teacher(inputs)
    task = sum(value for key, value in task.items() if 'loss' in key)
    pairs = [pair for pair in distiller.pairs if pair.connector is not None]
    weights = [p for p in distiller.student.parameters() if p.requires_grad]

    def gradient(loss: Tensor) -> Tensor:
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return torch.cat([torch.zeros_like(p).flatten() if g is None else g.flatten() for p, g in zip(weights, found)])
    from_task, reports = gradient(task), []
    for pair in pairs:
        tap, target = student[pair.student], teacher[pair.teacher]
        losses = {key.rpartition('.loss_')[2]: value for key, value in pair(tap, target).items()}
        each = {key: gradient(loss) for key, loss in losses.items()}
        with torch.no_grad():
            s, t = pair.connector(tap, target)
            bands = _bands(s, t) if isinstance(s, Decomposed) else {}
            s, t = (side.map if isinstance(side, Decomposed) else side for side in (s, t))
            zero = torch.zeros_like(t)
            kept = tuple(float(gaussian_frequency_loss(x, zero, sigma) / x.square().mean()) for x in (t, t - s))
            grid = tuple(map(min, tap.shape[2:], target.shape[2:]))
            samples = [F.adaptive_avg_pool2d(x, grid).transpose(0, 1).flatten(1).T for x in (tap, target)]
        reports.append(PairReport(
            pair.name, {key: value.item() for key, value in losses.items()},
            {key: float(g.norm()) for key, g in {**each, 'task': from_task}.items()},
            float(F.cosine_similarity(from_task, sum(each.values()), dim=0)), bands, kept, linear_cka(*samples)))
    return reports


def _bands(student: Decomposed, teacher: Decomposed) -> dict[str, tuple[float, float, float]]:
    levels = len(teacher.bands.details)
    names = [f'LL{levels}', *(f'{kind}{j}' for j in range(1, levels + 1) for kind in ('LH', 'HL', 'HH'))]
    energy = [(float(t.square().sum()), float((s - t).square().sum()))
              for s, t in zip(student.bands.each(), teacher.bands.each())]
    totals = [sum(column) for column in zip(*energy)]
    return {name: (t / totals[0], r / totals[1], r / t) for name, (t, r) in zip(names, energy)}

