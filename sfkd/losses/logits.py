"""Losses on class scores."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import MODELS
from .base import DistillationLoss, at_least, positive


def log_probabilities(scores: Tensor, temperature: float) -> Tensor:
    """Logarithm of the softmax of scores / T over dimension 1; float32 at least, as exponentials overflow in half
    precision.
    """
    return F.log_softmax((scores if scores.dtype == torch.float64 else scores.float()) / temperature, dim=1)


def of_pictures(loss: nn.Module, scores: Tensor) -> None:
    """Raise ValueError for what are not scores of pictures (N, classes)."""
    if scores.dim() != 2:
        raise ValueError(f'{type(loss).__name__} compares scores of pictures (N, classes), not {tuple(scores.shape)}; '
                         "for maps of scores give dict(type='KLDivergence') or dict(type='DKD')")


@MODELS.register_module()
class KLDivergence(DistillationLoss):
    """Knowledge distillation: T^2 KL(teacher || student) of softened class scores (Hinton et al., arXiv 1503.02531,
    section 2).

    Args:
        temperature: T > 0.
        reduction: 'batchmean', the mean over pictures (and over the cells of class maps, each of which has scores of
            its own); 'mean', over classes besides, as mmrazor's configs of FitNets have it; or 'picture', the sum over
            the cells of a picture and the mean over pictures, which is what mmrazor calls 'batchmean'.
    """

    REDUCTIONS = ('batchmean', 'mean', 'picture')

    def __init__(self, temperature: float = 1.0, reduction: str = 'batchmean'):
        super().__init__()
        if reduction not in self.REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(map(repr, self.REDUCTIONS))}, not {reduction!r}")
        self.temperature, self.reduction = positive('temperature', temperature), reduction
        self.mean_over_grid = reduction != 'picture'

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, classes) scores before the softmax, or maps of them (N, classes, h, w).

        Returns:
            Tensor: scalar, in nats.
        """
        with torch.autocast(student.device.type, enabled=False):
            s, t = (log_probabilities(x, self.temperature) for x in (student, teacher))
            scored = dict(batchmean=s[:, 0].numel(), mean=s.numel(), picture=len(s))[self.reduction]
            return F.kl_div(s, t, log_target=True, reduction='sum') / scored * self.temperature**2


@MODELS.register_module()
class DKD(DistillationLoss):
    """Decoupled knowledge distillation: T^2 (alpha TCKD + beta NCKD) (Zhao et al., arXiv 2203.08679, section 3).

    TCKD is the KL divergence of (target, all others), NCKD that of the other classes among themselves; per picture,
    KL(teacher || student) = TCKD + (1 - teacher's target probability) NCKD. Departure: the target is the teacher's most
    probable class, not the label, which a loss does not get.

    Args:
        alpha: weight of TCKD.
        beta: weight of NCKD.
        temperature: T > 0.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 2.0, temperature: float = 1.0):
        super().__init__()
        self.alpha, self.beta = at_least(0, 'alpha', alpha), at_least(0, 'beta', beta)
        self.temperature = positive('temperature', temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, classes) scores before the softmax, or maps of them (N, classes, h, w); of two classes
                or more.

        Returns:
            Tensor: scalar, the mean over pictures, or over cells, in nats.
        """
        student, teacher = (x.movedim(1, -1).flatten(0, -2) for x in (student, teacher))  # a row of scores each
        with torch.autocast(student.device.type, enabled=False):
            s, t = (log_probabilities(x, self.temperature) for x in (student, teacher))
            target = t.argmax(1, keepdim=True)                                 # (N, 1)
            others = torch.arange(t.shape[1] - 1, device=t.device)
            # (N, classes - 1), every index but the target
            others = others + (others >= target)

            def parts(x):
                rest = x.gather(1, others)
                all_others = rest.logsumexp(1, keepdim=True)  # log(1 - p) without the cancellation
                return torch.cat([x.gather(1, target), all_others], 1), rest - all_others
            (s_binary, s_rest), (t_binary, t_rest) = parts(s), parts(t)
            tckd, nckd = (F.kl_div(a, b, log_target=True, reduction='batchmean')
                          for a, b in ((s_binary, t_binary), (s_rest, t_rest)))
            return (self.alpha * tckd + self.beta * nckd) * self.temperature**2


@MODELS.register_module()
class DIST(DistillationLoss):
    """T^2 (beta inter-class + gamma intra-class) Pearson distances of softened probabilities (Huang et al., arXiv
    2205.10536, section 4).

    The distance 1 - correlation ignores scale and shift: of a picture's probabilities over the classes (inter), of a
    class's probabilities over the batch (intra; the batch of one process). Departure: constants are met by a floor
    under each norm, not by a sum with the product of norms, which would mute rare classes.

    Args:
        beta: weight of the inter-class relation.
        gamma: weight of the intra-class relation.
        temperature: T > 0.
    """

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0):
        super().__init__()
        self.beta, self.gamma = at_least(0, 'beta', beta), at_least(0, 'gamma', gamma)
        self.temperature = positive('temperature', temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, classes) scores before the softmax.

        Returns:
            Tensor: scalar in T^2 [0, 2 (beta + gamma)].

        Raises:
            ValueError: for maps of scores. (The authors' code for segmentation takes the cells for a batch.)
        """
        of_pictures(self, student)
        with torch.autocast(student.device.type, enabled=False):
            s, t = (log_probabilities(x, self.temperature).exp() for x in (student, teacher))

            def distance(dim):
                correlation = F.cosine_similarity(*(x - x.mean(dim, keepdim=True) for x in (s, t)), dim=dim)
                return 1 - correlation.mean()
            return (self.beta * distance(1) + self.gamma * distance(0)) * self.temperature**2


@MODELS.register_module()
class OFALoss(DistillationLoss):
    """Cross-entropy with the teacher's probabilities, the target class enhanced (Hao et al., arXiv 2310.19444, section
    3).

    ``-((1 + p)^gamma - 1) log q - sum over the other classes of p log q`` with the teacher's p and the student's q; at
    gamma = 1 this is KL(teacher || student) plus the teacher's entropy, whatever the target. The paper's term is (1 +
    p)^gamma: the 1 is the label's cross-entropy, which is the student's own task loss and no part of this one.
    Departures: the target is the teacher's most probable class, not the label, which a loss does not get; the others
    keep p, where the authors' code raises it to gamma as well.

    Args:
        gamma: >= 1; more of it for the target the surer the teacher is.
        temperature: T > 0; no T^2, as in the authors' code.
    """

    def __init__(self, gamma: float = 1.0, temperature: float = 1.0):
        super().__init__()
        self.gamma, self.temperature = at_least(1, 'gamma', gamma), positive('temperature', temperature)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """
        Args:
            student, teacher: (N, classes) scores before the softmax.

        Returns:
            Tensor: scalar, the mean over pictures, in nats.

        Raises:
            ValueError: for maps of scores.
        """
        of_pictures(self, student)
        with torch.autocast(student.device.type, enabled=False):
            s, p = log_probabilities(student, self.temperature), log_probabilities(teacher, self.temperature).exp()
            top, target = p.max(1, keepdim=True)
            wanted = p.scatter(1, target, (1 + top)**self.gamma - 1)
            return -(wanted * s).sum(1).mean()
