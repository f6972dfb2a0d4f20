"""Training through the command line: plain, distilled, interrupted, in two processes."""
import json
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
PAIR, ALONE = 'configs/mini/cls_resnet_to_mixer.py', 'configs/mini/cls_mixer.py'
RANDOM_TEACHER = 'model.teacher_ckpt=init'
# Without workers the augmentation draws from the training process itself, whose random state a resumed run must
# therefore restore
THREE_EPOCHS = ['train_cfg.max_epochs=3', 'train_dataloader.num_workers=0', 'model.logit_weight=1.0', RANDOM_TEACHER]


def weights(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == '.safetensors':
        return load_file(path)
    return torch.load(path, weights_only=False)['state_dict']


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope='module')
def distilled(tool, small, tmp_path_factory) -> Path:
    """The work directory of three epochs with SFKD and logit distillation."""
    folder = tmp_path_factory.mktemp('distilled')
    tool('tools/train.py', PAIR, '--work-dir', folder, '--cfg-options', *small, *THREE_EPOCHS)
    return folder


def test_all_weights_zero_is_the_stock_training_bit_for_bit(tool, stock_tool, small, tmp_path, distilled):
    tool(*stock_tool('mmpretrain', 'train'), ALONE, '--work-dir', tmp_path / 'stock', '--cfg-options', *small)
    zero = [f'model.{name}_weight=0' for name in ('spatial', 'frequency', 'logit')]
    tool('tools/train.py', PAIR, '--work-dir', tmp_path / 'zero', '--cfg-options', *small, RANDOM_TEACHER, *zero)
    stock = weights(tmp_path / 'stock/epoch_1.pth')
    assert same(stock, weights(tmp_path / 'zero/student_latest.pth'))
    assert not same(stock, weights(distilled / 'student_latest.pth'))  # the comparison can tell runs apart


def test_interrupted_and_resumed_ends_where_the_uninterrupted_run_does(tool, small, tmp_path, distilled):
    killed, moved = tmp_path / 'killed', tmp_path / 'moved'
    command = ['tools/train.py', PAIR, '--cfg-options', *small, *THREE_EPOCHS]
    process = tool.start(*command, '--work-dir', killed)
    deadline = time.time() + 120
    while not (killed / 'epoch_2.pth').exists():
        assert time.time() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / 'epoch_3.pth').exists()
    whole = weights(killed / 'epoch_2.pth')
    assert same(weights(killed / 'student_latest.pth'),
                {key: value for key, value in whole.items() if not key.startswith('distillation.')})
    killed.rename(moved)
    tool(*command, '--work-dir', moved, '--resume')
    assert same(weights(moved / 'epoch_3.pth'), weights(distilled / 'epoch_3.pth'))


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_exported_student_is_the_stock_model(tool, tmp_path, distilled, suffix):
    out = tmp_path / f'student{suffix}'
    tool('tools/export_student.py', PAIR, distilled / 'epoch_3.pth', out)
    from mmengine import Config
    from mmpretrain.registry import MODELS
    config = Config.fromfile(ROOT / ALONE)
    stock = MODELS.build(dict(config.model, data_preprocessor=config.data_preprocessor))
    stock.load_state_dict(weights(out), strict=True)

    distillation = Config.fromfile(ROOT / PAIR)
    from mmengine.registry import DefaultScope

    from sfkd import SFKD
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = dict(distillation.model, teacher='configs/mini/cls_resnet.py', teacher_ckpt='init', logit_weight=1.0)
        model.pop('type')
        distiller = SFKD(**model, data_preprocessor=distillation.data_preprocessor)
    distiller.load_state_dict(weights(distilled / 'epoch_3.pth'), strict=True)
    raw = dict(inputs=[torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)], data_samples=None)
    ours, theirs = distiller.eval().test_step(raw), stock.eval().test_step(raw)
    assert all(torch.equal(a.pred_score, b.pred_score) for a, b in zip(ours, theirs))


def test_scores_of_whole_and_exported_checkpoint_are_those_of_the_stock_tool(tool, stock_tool, small, tmp_path,
                                                                             distilled):
    def top1(text):
        return re.findall(r'accuracy/top1: ([\d.]+)', text)[-1]
    options = ['--work-dir', tmp_path, '--cfg-options', *small]
    stock = top1(tool(*stock_tool('mmpretrain', 'test'), ALONE, distilled / 'student_latest.pth', *options))
    assert top1(tool('tools/test.py', PAIR, distilled / 'epoch_3.pth', *options)) == stock
    assert top1(tool('tools/test.py', PAIR, distilled / 'student_latest.pth', *options)) == stock


def test_a_run_is_tested_by_its_own_copy_of_the_config(tool, digits, small, tmp_path):
    """Training needs no test data. What is scored is the checkpoint that is named, also where the config resumes."""
    run = tmp_path / 'run'
    tool('tools/train.py', PAIR, '--no-validate', '--work-dir', run, '--cfg-options', *small, RANDOM_TEACHER,
         f'test_dataloader.dataset.data_root={tmp_path}/none')
    copied, named = run / 'cls_resnet_to_mixer.py', tmp_path / 'named.pth'
    state = weights(run / 'student_latest.pth')
    state['head.fc.bias'][3] += 1e4  # sees one class everywhere
    torch.save(dict(state_dict=state), named)
    data = next(option for option in small if option.startswith('test_dataloader'))
    text = tool('tools/test.py', copied, named, '--out', tmp_path / 'scores.json', '--cfg-options', data, 'resume=True')
    assert 'Auto resumed' not in text
    share = 100 * len(list((digits / 'test/3').iterdir())) / 20
    assert json.loads((tmp_path / 'scores.json').read_text()) == {'accuracy/top1': pytest.approx(share)}
    several = tmp_path / 'several.py'
    several.write_text(f"_base_ = '{copied}'\ntest_evaluator = [dict(type='ConfusionMatrix'), "
                       "dict(type='SingleLabelMetric', average=None, items=['support'])]\n")
    tool('tools/test.py', several, named, '--out', tmp_path / 'scores.json', '--cfg-options', data)
    support = [len(list(folder.iterdir())) for folder in sorted((digits / 'test').iterdir())]
    assert json.loads((tmp_path / 'scores.json').read_text()) == {
        'confusion_matrix/result': [[0] * 3 + [n] + [0] * 6 for n in support],
        'single-label/support_classwise': support}
    text = tool('tools/test.py', copied, named, '--split', 'val', status=2)
    assert 'val_dataloader: the config has none, so there is nothing to score' in text and 'Traceback' not in text


LOUD = """
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
@HOOKS.register_module()
class Loud(Hook):
    def after_test_epoch(self, runner, metrics=None):
        runner.logger.info('LOUD')
"""


def test_a_test_on_the_validation_split_has_the_hooks_of_the_config_and_a_test_loop(tool, small, tmp_path, distilled):
    (tmp_path / 'loud.py').write_text(LOUD)
    own = tmp_path / 'own.py'  # its validation loop says what it is, as the libraries' own configs do
    own.write_text(f"import sys\nsys.path.append('{tmp_path}')\n_base_ = 'sfkd::mini/cls_resnet_to_mixer.py'\n"
                   "custom_imports = dict(imports=['sfkd', 'loud'])\nval_cfg = dict(type='ValLoop')\n"
                   "custom_hooks = [dict(type='Loud'), dict(type='sfkd.TeacherReportHook'), dict(type='EMAHook')]\n")
    scores = []
    for config in own, PAIR:
        text = tool('tools/test.py', config, distilled / 'student_latest.pth', '--split', 'val', '--work-dir', tmp_path,
                    '--out', tmp_path / 'scores.json', '--cfg-options', *small)
        assert text.count('LOUD') == (config == own)
        scores.append(json.loads((tmp_path / 'scores.json').read_text()))
    assert scores[0] == scores[1]


def test_teacher_report_is_the_teachers_own_score_and_changes_nothing(tool, small, tmp_path):
    config = tmp_path / 'reported.py'
    config.write_text(f"_base_ = '{ROOT / PAIR}'\ncustom_hooks = [dict(type='sfkd.TeacherReportHook')]\n")
    reported = tool('tools/train.py', config, '--work-dir', tmp_path / 'reported', '--cfg-options', *small)
    score = re.search(r'teacher on the validation set: accuracy/top1: ([\d.]+)', reported)[1]
    assert float(score) > 50
    assert f'accuracy/top1: {score}' in tool(
        'tools/test.py', 'configs/mini/cls_resnet.py', 'configs/mini/teachers/resnet.safetensors', '--work-dir',
        tmp_path, '--cfg-options', *small, 'test_dataloader.dataset.data_prefix=val')
    tool('tools/train.py', PAIR, '--work-dir', tmp_path / 'silent', '--cfg-options', *small)
    assert same(weights(tmp_path / 'reported/epoch_1.pth'), weights(tmp_path / 'silent/epoch_1.pth'))


def test_another_method_for_the_same_pair(tool, small, tmp_path):
    """--method replaces how the pair is distilled, and nothing of what teaches what."""
    tool('tools/train.py', PAIR, '--method', 'configs/peers/cwd.py', '--no-validate', '--work-dir', tmp_path,
         '--cfg-options', *small, 'model.losses.0.weight=0.5')
    written = Config.fromfile(tmp_path / 'cls_resnet_to_mixer.py').model
    assert written.type == 'Distiller' and written.losses[0].type == 'ChannelWiseDivergence'
    assert written.losses[0].weight == 0.5
    assert written.teacher_ckpt == 'sfkd::mini/teachers/resnet.safetensors'
    assert written.student.backbone.type == 'MlpMixer'
    text = tool('tools/train.py', ALONE, '--method', 'configs/peers/cwd.py', status=2)
    assert 'trains a model alone' in text and 'Traceback' not in text


def test_two_processes_train_and_test(tool, small, tmp_path):
    text = tool('tools/dist_train.sh', PAIR, 2, '--work-dir', tmp_path, '--cfg-options', *small, RANDOM_TEACHER,
                'default_hooks.logger.interval=1')
    # 120 pictures in batches of 2 x 20: each process has its half
    assert re.findall(r'Epoch\(train\) +\[1\]\[ *(\d+/\d+)\]', text) == ['1/3', '2/3', '3/3']
    text = tool('tools/dist_test.sh', PAIR, tmp_path / 'student_latest.pth', 2, '--work-dir', tmp_path, '--cfg-options',
                *small)
    assert 'accuracy/top1' in text


@pytest.mark.parametrize('options, message', [
    (['train_dataloader.dataset.data_root=data/nowhere/digits_wild/cls'], 'make it with: sfkd make cls'),
    (['model.teacher_ckpt=nowhere.pth'], "model.teacher_ckpt: there is no checkpoint 'nowhere.pth'"),
    (['model.teacher_ckpt=init', 'model.teacher=configs/mini/cls_mixer.py', 'model.teacher_ckpt=README.md'],
     'damaged or no checkpoint'),
])
def test_a_mistake_is_one_message_before_the_first_batch(tool, small, tmp_path, options, message):
    text = tool('tools/train.py', PAIR, '--work-dir', tmp_path, '--cfg-options', *small, *options, status=2)
    assert message in text and 'Traceback' not in text and 'Epoch(train)' not in text
