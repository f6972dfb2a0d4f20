"""Training many methods at once gives what training each alone does."""
import json
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
PAIR = 'configs/mini/cls_resnet_to_mixer.py'


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def test_each_student_and_score_is_that_of_train(tool, small, tmp_path):
    """Also of a method with options, and with options for all; the students are stock checkpoints."""
    small = [*small, 'model.task_weight=0.5']
    tool('tools/train_together.py', PAIR, '--work-dir', tmp_path / 'all', '--methods', 'alone', 'configs/peers/kd.py',
         'sfkd+levels=1+frequency_weight=0.5', '--cfg-options', *small)
    scores = json.loads((tmp_path / 'all/scores.json').read_text())
    single = {'configs/peers/kd.py': ['--method', 'configs/peers/kd.py'], 'sfkd+levels=1+frequency_weight=0.5': []}
    for i, (name, arguments) in enumerate(single.items()):
        options = ['model.levels=1', 'model.frequency_weight=0.5'] if i else []
        tool('tools/train.py', PAIR, *arguments, '--no-validate', '--test', '--work-dir', tmp_path / str(i),
             '--cfg-options', *small, *options)
        ours = weights(tmp_path / 'all' / name.removeprefix('configs/peers/').removesuffix('.py') / 'student.pth')
        theirs = weights(tmp_path / str(i) / 'student_latest.pth')
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours), name
        assert scores[name] == json.loads((tmp_path / str(i) / 'score.json').read_text())
    tool('tools/test.py', 'configs/mini/cls_mixer.py', tmp_path / 'all/alone/student.pth', '--out',
         tmp_path / 'stock.json', '--work-dir', tmp_path / 'stock', '--cfg-options',
         *(option for option in small if 'data_root' in option))
    assert scores['alone'] == json.loads((tmp_path / 'stock.json').read_text())


def test_a_teacher_cache_serves_all_of_them(tool, small, tmp_path):
    """Rows of what any of them reads; the second run needs no teacher and ends alike, a third reads a part of them. In
    another precision the teacher shows other things, which lie elsewhere. An anchor is refused.
    """
    config = tmp_path / 'pair.py'
    config.write_text(f"_base_ = '{ROOT / PAIR}'\ntrain_dataloader = dict(dataset=dict(_delete_=True, "
                      "type='sfkd.ReplayedDataset', dataset={{_base_.train_dataloader.dataset}}))\n"
                      f"custom_hooks = [dict(type='sfkd.TeacherCacheHook', folder='{tmp_path}/of_the_config')]\n")
    small = [option.replace('train_dataloader.dataset.', 'train_dataloader.dataset.dataset.') for option in small]

    def train(name, *methods, status=0, options=()):
        return tool('tools/train_together.py', config, '--methods', *methods, '--teacher-cache', tmp_path / 'cache',
                    '--work-dir', tmp_path / name, '--cfg-options', *small, *options, status=status)
    assert '0 of 120 rows are in' in train('first', 'alone', 'kd', 'sfkd')
    text = train('second', 'alone', 'kd', 'sfkd')
    assert '120 of 120 rows are in' in text and 'the teacher leaves the memory' in text
    for method in 'alone', 'kd', 'sfkd':
        first, second = (weights(tmp_path / name / method / 'student.pth') for name in ('first', 'second'))
        assert all(torch.equal(first[key], second[key]) for key in first), method
    assert '120 of 120 rows are in' in train('third', 'kd')
    assert '(the method srrl has one)' in train('fourth', 'srrl', status=2)
    assert len(list((tmp_path / 'cache').iterdir())) == 1
    assert '0 of 120 rows are in' in train('fifth', 'kd', options=['optim_wrapper.type=CPUAmpOptimWrapper'])
    assert len(list((tmp_path / 'cache').iterdir())) == 2
    assert not (tmp_path / 'of_the_config').exists()


def test_a_resumed_run_ends_as_the_uninterrupted_one_without_who_had_dropped_out(tool, small, tmp_path):
    def train(name, epochs, *arguments):
        return tool('tools/train_together.py', PAIR, '--methods', 'alone', 'sfkd+spatial_weight=1e38', 'kd',
                    '--work-dir', tmp_path / name, *arguments, '--cfg-options', *small,
                    f'train_cfg.max_epochs={epochs}', status=2)
    assert 'step 1: the loss is inf' in train('whole', 2)
    train('halves', 1)
    text = train('halves', 2, '--resume')
    assert 'epoch_1.pth' in text and 'sfkd+spatial_weight=1e38 dropped out: before the run was resumed' in text
    assert json.loads((tmp_path / 'whole/scores.json').read_text()).keys() == {'alone', 'kd'}
    for name in 'alone', 'kd':
        whole, halves = (weights(tmp_path / run / name / 'student.pth') for run in ('whole', 'halves'))
        assert all(torch.equal(whole[key], halves[key]) for key in whole), name
    assert (tmp_path / 'whole/scores.json').read_text() == (tmp_path / 'halves/scores.json').read_text()


@pytest.mark.parametrize('arguments, message', [
    ([PAIR, '--methods', 'sfdk'], "there is no 'sfdk'; nearest are 'sfkd'"),
    ([PAIR, '--methods', 'kd+weight'], "['weight'] cannot be"),
    ([PAIR, '--methods', 'alone+levels=1'], 'cannot be; after a distilling method'),
    (['configs/mini/cls_mixer.py', '--methods', 'alone'], "'configs/mini/cls_mixer.py' trains a model alone"),
    ([PAIR, '--methods', 'alone', '--launcher', 'slurm'],
     '--launcher slurm: students that train together share one process'),
])
def test_what_is_no_method_is_said(tool, arguments, message):
    assert message in tool('tools/train_together.py', *arguments, status=2)


@pytest.mark.parametrize('text', [
    f"_base_ = '{ROOT / PAIR}'\ncustom_hooks = [dict(type='EMAHook')]\n",
    'from mmengine.hooks import EMAHook\ncustom_hooks = [dict(type=EMAHook)]\n'])
def test_an_average_of_weights_is_refused(tool, tmp_path, text):
    config = tmp_path / 'ema.py'
    config.write_text(text)
    text = tool('tools/train_together.py', config, '--methods', 'alone', status=2)
    assert 'custom_hooks: an EMAHook averages one model' in text


def test_a_config_without_a_checkpoint_hook_trains(tool, small, tmp_path):
    config = tmp_path / 'pair.py'
    config.write_text(f"_base_ = '{ROOT / PAIR}'\ndefault_hooks = dict(_delete_=True)\n")
    tool('tools/train_together.py', config, '--methods', 'alone', '--work-dir', tmp_path / 'run', '--cfg-options',
         *small[:-1])
    assert (tmp_path / 'run/epoch_1.pth').exists()
