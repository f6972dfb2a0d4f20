"""The teacher cache in a run of tools/train.py."""
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope

from sfkd.datasets import ReplayedDataset
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.hooks import TeacherCacheHook
from sfkd.openmmlab.running import build_runner

ROOT = Path(__file__).resolve().parents[2]
CONFIG = 'configs/mini/cls_resnet_to_mixer_cached.py'


def test_a_second_run_reads_what_the_first_wrote_and_another_pipeline_is_refused(tool, small, tmp_path):
    options = [option.replace('train_dataloader.dataset.', 'train_dataloader.dataset.dataset.') for option in small]
    options += [f'custom_hooks.0.folder={tmp_path}/cache', 'train_dataloader.dataset.variants=1',
                'default_hooks.logger.interval=1']
    losses = []
    for name, present in ('first', 0), ('second', 120):
        text = tool('tools/train.py', CONFIG, '--no-validate', '--work-dir', tmp_path / name, '--cfg-options', *options)
        assert f'{present} of 120 rows are in' in text and '120 rows x 60.0 KiB' in text
        scalars, = (tmp_path / name).glob('*/vis_data/scalars.json')
        losses.append([json.loads(line)['loss'] for line in scalars.read_text().splitlines()])
    assert losses[0] == losses[1] and len(losses[0]) == 6

    before = {file: file.read_bytes() for file in (tmp_path / 'cache').iterdir()}
    assert len(before) == 9  # of four taps, and the fingerprint
    text = tool('tools/train.py', CONFIG, '--no-validate', '--work-dir', tmp_path / 'third', '--cfg-options', *options,
                'train_dataloader.dataset.dataset.pipeline.2.angle=30', 'train_dataloader.dataset.seed=1',
                'model.teacher_precision=fp16', status=2)
    assert 'made with another precision, pipeline, seed than this run has' in text and 'Traceback' not in text
    assert {file: file.read_bytes() for file in (tmp_path / 'cache').iterdir()} == before


def test_a_training_set_that_never_repeats_itself_is_refused(tool, small, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{ROOT}/configs/mini/cls_resnet_to_mixer.py'\n"
                      f"custom_hooks = [dict(type='sfkd.TeacherCacheHook', folder='{tmp_path}/cache')]\n")
    text = tool('tools/train.py', config, '--no-validate', '--work-dir', tmp_path / 'work', '--cfg-options', *small,
                status=2)
    assert "dict(type='sfkd.ReplayedDataset', dataset=...)" in text and not (tmp_path / 'cache').exists()


def test_an_anchor_is_refused(tool, small, tmp_path):
    """The rest of the teacher runs in every step; no cache holds it."""
    options = [option.replace('train_dataloader.dataset.', 'train_dataloader.dataset.dataset.') for option in small]
    options += [f'custom_hooks.0.folder={tmp_path}/cache', 'model.anchor.weight=1.0']
    text = tool('tools/train.py', CONFIG, '--no-validate', '--work-dir', tmp_path / 'work', '--cfg-options', *options,
                status=2)
    assert 'TeacherCacheHook: model.anchor asks' in text and not (tmp_path / 'cache').exists()


def test_the_fingerprint_sees_the_pipelines_of_wrapped_data_sets_and_the_type_of_amp(digits, tmp_path):
    config = load_config(CONFIG, work_dir=str(tmp_path / 'work'))
    model = build_runner(config).model

    def fingerprint(wrapped=dict, flip=False, amp=None):
        data = copy.deepcopy(config.train_dataloader.dataset.dataset)
        data.data_root = str(digits)
        data.pipeline[1:1] = [dict(type='RandomFlip', prob=0.5)] * flip
        changed = Config(dict(train_dataloader=dict(dataset=dict(dataset=wrapped(data)))))
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            dataset = ReplayedDataset(copy.deepcopy(changed.train_dataloader.dataset.dataset))
        dataset.full_init()
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        optimizer.cast_dtype = amp  # as mmengine's, which wants a GPU, has it
        runner = SimpleNamespace(cfg=changed, optim_wrapper=optimizer,
                                 train_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))
        return str(TeacherCacheHook._fingerprint(runner, model, model.distillation.teacher))

    def repeated(data):
        return dict(type='RepeatDataset', times=2, dataset=data)

    def joined(data):
        return dict(type='ConcatDataset', datasets=[data, data])
    found = [fingerprint(), fingerprint(repeated), fingerprint(joined), fingerprint(flip=True),
             fingerprint(repeated, flip=True), fingerprint(amp=torch.float16), fingerprint(amp=torch.bfloat16)]
    assert len(set(found)) == 7 and fingerprint(repeated, flip=True) == found[4]
