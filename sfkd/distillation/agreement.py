"""Whether data-parallel processes train the same connectors."""
from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

TOLERANCE = 1e-6  # relative; processes that reduce their gradients have the same bits, but for unlike devices


class Agreement:
    """Compares a module's trained weights with those of the other processes, in steps 1, 2, 4, 8 and so on: a
    training loop that reduces the student's gradients and forgets the connectors' would go on without a word.

    Costs a message of two numbers in those steps, and nothing in one process. Sharded weights (FSDP) are not compared.
    """

    def __init__(self):
        self.step = 0

    def check(self, module: nn.Module) -> None:
        """
        Raises:
            RuntimeError: in every process, if the weights differ.
        """
        self.step += 1
        weights = [p for p in module.parameters() if p.requires_grad and not hasattr(p, 'device_mesh')]
        if self.step & (self.step - 1) or not weights or not dist.is_initialized() or dist.get_world_size() == 1:
            return
        with torch.no_grad():
            own = torch.stack([sum(p.double().abs().sum() for p in weights), sum(p.double().sum() for p in weights)])
            everyone = [torch.empty_like(own) for _ in range(dist.get_world_size())]
            dist.all_gather(everyone, own)
        if any((other - everyone[0]).abs().max() > TOLERANCE * everyone[0][0] for other in everyone):
            raise RuntimeError(
                'the connectors of the distillation differ between the processes: nobody reduces their gradients. '
                'Wrap the companion as the student is: distillation = DistributedDataParallel(distillation)')
