"""SRRL's convolution module with the teacher's own classifier behind it, recomputed by hand."""
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config

from sfkd.openmmlab.distiller import Distiller

PEERS = Path(__file__).parents[2] / 'configs' / 'peers'


@torch.no_grad()
def test_srrl_is_its_two_terms(zoo):
    """With the teacher's own classifier on the student's map."""
    model = Config.fromfile(PEERS / 'srrl.py').model
    kind = {key: value for key, value in model.items() if key not in ('type', 'pairs')}
    distiller = zoo.distil(zoo.mixer(), zoo.resnet(), kind=Distiller, pairs='auto', **kind).train()
    network, pair = distiller.distillation.teacher.network, distiller.distillation.pairs[-1]
    data = distiller.data_preprocessor(zoo.batch(), True)
    with zoo.recorded(distiller.student, [pair.student_path]) as student, \
            zoo.recorded(network, [pair.teacher_path, 'head']) as teacher:
        losses = distiller(**data, mode='loss')
    tokens, own = student[pair.student_path][0], teacher[pair.teacher_path][0]
    side = int(tokens.shape[1]**0.5)
    conv = pair.connector.conv.conv
    assert conv.bias is None and conv.weight.std().item() == pytest.approx((2 / own.shape[1])**0.5, rel=0.1)
    ours = torch.einsum('oc,nchw->nohw', conv.weight[:, :, 0, 0], tokens.transpose(1, 2).unflatten(2, (side, side)))
    ours = (ours - ours.mean((0, 2, 3), keepdim=True)) / (ours.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    ours = F.adaptive_avg_pool2d(ours.clamp_min(0), own.shape[2:])
    pooled = F.mse_loss(ours.mean((2, 3)), own.mean((2, 3)))
    assert losses[f'distill.{pair.name}.loss_fm'].item() == pytest.approx(pooled.item(), rel=1e-4)
    scores = F.mse_loss(network.head.fc(ours.mean((2, 3))), teacher['head'][0])
    assert losses['distill.anchor.loss'].item() == pytest.approx(scores.item(), rel=1e-3)
