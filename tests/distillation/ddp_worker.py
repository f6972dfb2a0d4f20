"""Run by test_ddp.py under torch.distributed: writes this process count's gradients of one fixed batch."""
import sys

import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch.nn.parallel import DistributedDataParallel

from sfkd import SFKD
from sfkd.openmmlab.running import leaving_together

STUDENT = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling', dim=1),
               backbone=dict(type='MlpMixer', img_size=32, patch_size=4,
                             arch=dict(embed_dims=16, num_layers=4, tokens_mlp_dims=8, channels_mlp_dims=32)),
               head=dict(type='LinearClsHead', num_classes=5, in_channels=16))
TEACHER = dict(type='ImageClassifier', neck=dict(type='GlobalAveragePooling'),
               backbone=dict(type='ResNet', depth=18, stem_channels=8, base_channels=8),
               head=dict(type='LinearClsHead', num_classes=5, in_channels=64))


def write_gradients(out: str) -> None:
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    distiller = SFKD(STUDENT, TEACHER, 'init', logit_weight=1.0, refine=True).double()
    torch.manual_seed(1)
    # away from the identity, so that every path of DS2S has a gradient
    for parameter in distiller.distillation.pairs.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    # halves of unlike statistics
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64) * torch.arange(1, 9).view(-1, 1, 1, 1)
    rank, world = dist.get_rank(), dist.get_world_size()
    part = slice(rank * 8 // world, (rank + 1) * 8 // world)
    model = DistributedDataParallel(distiller)
    losses = model(images[part], [DataSample().set_gt_label(i % 5) for i in range(8)][part], mode='loss')
    sum(losses.values()).backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in distiller.named_parameters()}, out)


if __name__ == '__main__':
    dist.init_process_group('gloo')
    with leaving_together():
        write_gradients(sys.argv[1])
