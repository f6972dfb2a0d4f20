"""Whether data-parallel processes train the same connectors, and ask each other for the same things."""
from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from ..ops import processes

TOLERANCE = 1e-6  # relative; processes that reduce their gradients have the same bits, but for unlike devices


class Agreement:
    """Compares a module's trained weights with those of the other processes, in steps 1, 2, 4, 8 and so on: a
    training loop that reduces the student's gradients and forgets the connectors' would go on without a word.

    Costs a message of three numbers in those steps, nothing in one process. Sharded weights (FSDP) are not compared.
    """

    def __init__(self):
        self.step = 0

    def check(self, module: nn.Module, masked: bool) -> None:
        """
        Args:
            module: whose weights.
            masked: whether this process has a mask, for whose cells it would ask the others.

        Raises:
            RuntimeError: in every process, if the weights differ, or if some have a mask and others none.
        """
        self.step += 1
        weights = [p for p in module.parameters() if p.requires_grad and not hasattr(p, 'device_mesh')]
        if self.step & (self.step - 1) or not weights or (together := processes()) == 1:
            return
        with torch.no_grad():
            sums = sum(p.double().abs().sum() for p in weights), sum(p.double().sum() for p in weights)
            own = torch.stack([*sums, torch.full_like(sums[0], masked)])
            everyone = [torch.empty_like(own) for _ in range(together)]
            dist.all_gather(everyone, own)
        sums, masks = torch.stack(everyone).split([2, 1], dim=1)
        if masks.any() and not masks.all():
            raise RuntimeError(f'{int(masks.sum())} of {together} processes have given a taught_mask, which asks for '
                               'all of them: give one in every process, of ones where everything teaches, or in none')
        if (sums - sums[0]).abs().max() > TOLERANCE * sums[0, 0]:
            raise RuntimeError(
                'the connectors of the distillation differ between the processes: nobody reduces their gradients. '
                'Wrap the companion as the student is: distillation = DistributedDataParallel(distillation), '
                'without static_graph')
