"""Run by test_loops.py under torch.distributed: three steps, the weights before and after them, and a validation in the
first process alone.
"""
import sys
from pathlib import Path

import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sfkd import Distillation

PICTURES, SIZE, CLASSES = 8, 32, 5


class Joint(nn.Module):
    """Student and companion as one module that returns the loss."""

    def __init__(self, student: nn.Module, distillation: nn.Module, masked: bool = False):
        super().__init__()
        self.student, self.distillation, self.masked = student, distillation, masked

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        with self.distillation(images, taught_mask=torch.ones_like(images[:, :1]) if self.masked else None) as taught:
            loss = F.cross_entropy(self.student(images), labels)
        return loss + taught.loss


def networks() -> tuple[nn.Module, Distillation]:
    torch.manual_seed(0)
    student, teacher = (timm.create_model(name, num_classes=CLASSES, img_size=SIZE, patch_size=8, embed_dim=24,
                                          depth=4, num_heads=2) for name in ('vit_tiny_patch16_224', ) * 2)
    return student.double(), Distillation(student, teacher.double(), input_size=SIZE).double()


def train(mode: str) -> dict:
    rank, world = dist.get_rank(), dist.get_world_size()
    student, distillation = networks()
    plain = dict([*student.named_parameters(), *distillation.named_parameters()])
    start = {key: p.detach().clone() for key, p in plain.items()}
    optimizer = torch.optim.SGD(plain.values(), lr=1e-2)
    if mode in ('joint', 'masks of some'):
        masked = mode == 'masks of some' and rank == 0
        loss_of = DistributedDataParallel(Joint(student, distillation, masked))
    else:
        loss_of = Joint(DistributedDataParallel(student),
                        DistributedDataParallel(distillation) if mode == 'both' else distillation)
    images = torch.randn(PICTURES, 3, SIZE, SIZE, dtype=torch.float64) * torch.arange(1, 9).view(-1, 1, 1, 1)
    part, labels = slice(rank * PICTURES // world, (rank + 1) * PICTURES // world), torch.arange(PICTURES) % CLASSES
    found = {}
    for step in range(3):
        try:
            loss = loss_of(images[part], labels[part])
        except RuntimeError as error:
            found = dict(step=step, error=str(error))
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if rank == 0:
        with torch.no_grad(), distillation(images) as taught:
            student(images)
        found['validation'] = taught.loss
    return dict(found, start=start, weights={key: p.detach() for key, p in plain.items()})


if __name__ == '__main__':
    dist.init_process_group('gloo')
    try:
        found = {mode: train(mode) for mode in ('both', 'joint', 'forgotten', 'masks of some')}
        torch.save(found, Path(sys.argv[1]) / f'{dist.get_rank()}.pth')
    finally:
        dist.destroy_process_group()
