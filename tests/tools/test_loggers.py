"""Curves in other loggers: read back from their files, they are mmengine's own."""
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

PAIR = 'configs/mini/cls_resnet_to_mixer.py'
EVERY_STEP = ['model.teacher_ckpt=init', 'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0',
              'val_dataloader.num_workers=0']


@pytest.fixture(scope='module')
def train(tool, small, tmp_path_factory):
    """Trains a few steps with one logger; gives its folder, and ``{step: scalars}`` as mmengine wrote them."""
    def run(logger: str) -> tuple[Path, dict[int, dict]]:
        folder = tmp_path_factory.mktemp(logger)
        tool('tools/train.py', PAIR, '--work-dir', folder, '--log-to', logger, '--cfg-options', *small, *EVERY_STEP)
        vis_data, = folder.glob('*/vis_data')
        rows = [json.loads(line) for line in (vis_data / 'scalars.json').read_text().splitlines()]
        rows = {row['step']: row for row in rows if 'loss' in row}
        assert list(rows) == [1, 2, 3, 4, 5, 6]
        assert {'distill.layers_0.loss_spatial', 'distill.layers_3.loss_frequency', 'task.loss'} <= rows[1].keys()
        return vis_data, rows
    return run


def grouped(row: dict) -> dict[str, float]:
    """The losses and the learning rate, under their names in other loggers."""
    return {name.replace('.', '/', 1) if name.startswith(('distill.', 'task.')) else name: value
            for name, value in row.items() if 'loss' in name or name == 'lr'}


def test_tensorboard_has_a_group_of_the_distillations_losses(train):
    reader = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    folder, rows = train('tensorboard')
    events = reader.EventAccumulator(str(folder)).Reload()
    curves = {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()['scalars']}
    assert {tag for tag in curves if 'distill' in tag} == {
        f'distill/layers_{i}.loss_{name}' for i in range(4) for name in ('spatial', 'frequency')}
    for step, row in rows.items():
        for name, value in grouped(row).items():
            assert curves[name][step] == pytest.approx(value, rel=1e-5), (name, step)
    assert curves['accuracy/top1'].keys() == {1}  # by epoch


def records_in(file: Path) -> Iterator[bytes]:
    """Of W&B's file: LevelDB's log format, whose blocks of 32 KiB cut records into first, middle and last parts."""
    data, at, record = file.read_bytes(), 7, b''
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, part = struct.unpack_from('<IHB', data, at)
        record += data[at + 7:at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last
            yield record
            record = b''


@pytest.mark.long
def test_wandb_offline(train, monkeypatch):
    pytest.importorskip('wandb')
    from wandb.proto.wandb_internal_pb2 import Record
    monkeypatch.setenv('WANDB_MODE', 'offline')
    folder, rows = train('wandb')
    file, = folder.glob('wandb/offline-run-*/*.wandb')
    history = [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
               for record in map(Record.FromString, records_in(file)) if record.HasField('history')]
    found = [row for row in history if 'loss' in row]
    assert len(found) == len(rows)
    for ours, row in zip(found, rows.values()):
        for name, value in grouped(row).items():
            assert ours[name] == pytest.approx(value, rel=1e-5), name
    assert sum('accuracy/top1' in row for row in history) == 1


@pytest.mark.long
def test_mlflow_in_files(train):
    pytest.importorskip('mlflow', exc_type=ImportError)  # one before 3 does not go with protobuf's newest
    folder, rows = train('mlflow')
    metrics, = folder.glob('*/*/metrics')
    assert len(list((metrics / 'distill').iterdir())) == 8
    for step, row in rows.items():
        for name, value in grouped(row).items():
            curve = {int(line.split()[2]): float(line.split()[1])
                     for line in (metrics / name).read_text().splitlines()}
            assert curve[step] == pytest.approx(value, rel=1e-5), (name, step)
    assert os.listdir(metrics / 'accuracy') == ['top1']


def test_a_logger_that_is_not_installed_is_named(monkeypatch):
    from mmengine.config import Config

    from sfkd.errors import ConfigError
    from sfkd.openmmlab import configs
    monkeypatch.setitem(configs.LOGGERS, 'no_such_logger', 'NoSuchVisBackend')
    with pytest.raises(ConfigError, match='--log-to: not installed; pip install no_such_logger'):
        configs.log_to(Config(), ['no_such_logger'])


def test_the_configs_own_loggers_stay_and_come_once():
    from mmengine.config import Config

    from sfkd.openmmlab.configs import log_to
    own = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend', save_dir='here')]
    config = Config(dict(visualizer=dict(type='UniversalVisualizer', vis_backends=own)))
    log_to(config, ['tensorboard', 'wandb'])
    assert config.visualizer.to_dict() == dict(type='UniversalVisualizer',
                                               vis_backends=[*own, dict(type='WandbVisBackend')])


@pytest.mark.parametrize('visualizer, before', [
    ({}, [dict(type='LocalVisBackend')]), (dict(visualizer=None), [dict(type='LocalVisBackend')]),
    (dict(visualizer=dict(type='UniversalVisualizer')), []),
    # mmengine takes a single one that is in no list
    (dict(visualizer=dict(vis_backends=dict(type='WandbVisBackend'))), [dict(type='WandbVisBackend')])])
def test_those_asked_for_come_beside_the_configs_or_mmengines(visualizer, before):
    from mmengine.config import Config

    from sfkd.openmmlab.configs import log_to
    config = Config(visualizer)
    log_to(config, [])
    assert config.to_dict() == visualizer
    log_to(config, ['tensorboard'])
    assert config.visualizer.vis_backends == [*before, dict(type='TensorboardVisBackend')]
