"""The teacher cache in a run of tools/train.py."""
import json
from pathlib import Path

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
