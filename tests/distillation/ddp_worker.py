"""Run by test_ddp.py under torch.distributed: writes the gradients of a fixed batch, plain and padded, and the loss."""
import sys

import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sfkd import SFKD
from sfkd.openmmlab.process import leaving_together

PICTURES, SIZE = 8, 32
WIDTHS = (32, 32, 28, 32, 8, 12, 4, 16)  # of the padded pictures: halves with unlike shares of padding
STUDENT = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling', dim=1),
               backbone=dict(type='MlpMixer', img_size=SIZE, patch_size=4,
                             arch=dict(embed_dims=16, num_layers=4, tokens_mlp_dims=8, channels_mlp_dims=32)),
               head=dict(type='LinearClsHead', num_classes=5, in_channels=16))
TEACHER = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
               backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
               head=dict(type='LinearClsHead', num_classes=5, in_channels=64))


class OnPadded(nn.Module):
    """The distillation losses of pictures of which a part is padding; no task loss."""

    def __init__(self, distiller: nn.Module):
        super().__init__()
        self.distiller = distiller

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        with self.distiller.distillation(images, mask, mask) as taught:
            self.distiller.extract_feat(images)
        return taught.loss


def build(**kwargs) -> nn.Module:
    torch.manual_seed(0)
    distiller = SFKD(STUDENT, TEACHER, 'init', refine=True, **kwargs).double()
    torch.manual_seed(1)
    # away from the identity, so that every path of DS2S has a gradient
    for parameter in distiller.distillation.pairs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return distiller


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def write_gradients(out: str) -> None:
    # after sfkd, with which it can be imported beside transformers 5
    from mmpretrain.structures import DataSample
    init_default_scope('mmpretrain')
    plain, padded = build(logit_weight=1.0), OnPadded(build())
    # halves of unlike statistics
    images = torch.randn(PICTURES, 3, SIZE, SIZE, dtype=torch.float64) * torch.arange(1, 9).view(-1, 1, 1, 1)
    mask = (torch.arange(SIZE) < torch.tensor(WIDTHS)[:, None]).double()[:, None, None].expand(-1, 1, SIZE, -1)
    rank, world = dist.get_rank(), dist.get_world_size()
    part = slice(rank * PICTURES // world, (rank + 1) * PICTURES // world)
    samples = [DataSample().set_gt_label(i % 5) for i in range(PICTURES)]
    wrapped = DistributedDataParallel(plain)
    sum(wrapped(images[part], samples[part], mode='loss').values()).backward()
    wrapped = DistributedDataParallel(padded, find_unused_parameters=True)  # the head rests
    loss = wrapped(images[part] * mask[part], mask[part])
    loss.backward()
    dist.all_reduce(loss := loss.detach() / world)
    alone = build(task_weight=0)
    wrapped = DistributedDataParallel(alone, find_unused_parameters=True)
    for _ in range(2):  # the second would find out that the first still waits for the head
        alone.zero_grad()
        sum(wrapped(images[part], [DataSample()] * len(images[part]), mode='loss').values()).backward()
    weight = trained(build(anchor=dict(share=0.1), every=2), images[part], samples[part])
    if rank == 0:
        found = {name: gradients(model) for name, model in dict(plain=plain, padded=padded, alone=alone).items()}
        torch.save(dict(found, loss=loss, weight=weight), out)


def trained(distiller: nn.Module, images: Tensor, samples: list) -> Tensor:
    """The weight that an anchor has after four steps, of which two teach, as a run has it that was resumed after the
    first from one process's checkpoint.
    """
    wrapped = DistributedDataParallel(distiller, broadcast_buffers=False)
    for step in range(4):
        sum(wrapped(images, samples, mode='loss').values()).backward()
        if step == 0:
            states = [distiller.state_dict()]
            dist.broadcast_object_list(states)
            distiller.load_state_dict(states[0])
    return distiller.distillation.anchor.weight


if __name__ == '__main__':
    dist.init_process_group('gloo')
    with leaving_together():
        write_gradients(sys.argv[1])
