"""A run of a few seconds that draws random numbers wherever a real one does; for several files of tests."""
import time
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from sfkd.openmmlab import running


class Noisy(Dataset):
    """Numbers that are drawn anew at every access, from the random state of whoever loads them."""

    metainfo = {}

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return dict(inputs=torch.full((2, ), index / 12) + torch.randn(2))


class Model(BaseModel):
    """Draws random numbers in training: dropout."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, inputs, mode='tensor'):
        return dict(loss=self.net(torch.stack(inputs)).square().mean()) if mode == 'loss' else [0]


class Score(BaseMetric):
    """Draws random numbers, as the data loader of a validation does."""

    def process(self, data_batch, data_samples):
        self.results.append(float(torch.rand(())))

    def compute_metrics(self, results):
        return dict(score=sum(results))


def runner_of(folder, loop='epochs', workers=0, persistent=False, resume=None, sampler=None, end=4, **hook):
    """A runner with the hook, on a model of a few weights; in processes of its own it would be tools/train.py."""
    iterations = loop == 'iterations'
    sampler = sampler or ('InfiniteSampler' if iterations else 'DefaultSampler')
    loader = dict(batch_size=2, num_workers=workers, persistent_workers=persistent,
                  collate_fn=dict(type='pseudo_collate'))
    torch.manual_seed(0)
    length = dict(by_epoch=True, max_epochs=end)
    if iterations:
        length = dict(by_epoch=False, max_iters=6 * end, val_interval=3)
    saving = dict(dict(type='sfkd.ResumableCheckpointHook', interval=1, max_keep_ckpts=1, save_best='score',
                       rule='greater', by_epoch=not iterations), **hook)
    return Runner(
        Model(), str(folder), train_dataloader=dict(loader, dataset=Noisy(), sampler=dict(type=sampler, shuffle=True)),
        train_cfg=length,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        val_dataloader=dict(batch_size=4, dataset=Noisy(), sampler=dict(type='DefaultSampler', shuffle=False),
                            collate_fn=dict(type='pseudo_collate')), val_cfg=dict(), val_evaluator=Evaluator(Score()),
        default_hooks=dict(checkpoint=saving),
        custom_hooks=[dict(type=f'sfkd.{name}') for name in running.DISTILLATION_HOOKS], resume=resume is not None,
        load_from=resume, randomness=dict(seed=3), experiment_name=f'{Path(folder).parent.name}_{time.monotonic_ns()}')


SETTINGS = [('epochs', 0, False), ('epochs', 2, False), ('epochs', 2, True), ('iterations', 0, False),
            ('iterations', 2, False)]
