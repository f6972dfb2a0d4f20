"""A comparison's cells and trials, and that it goes on where it stopped."""
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sfkd.openmmlab.methods import CONFIGS, model_of
from sfkd.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]


def rows(method, values, pair='resnet_to_mixer'):
    return [dict(task='cls', pair=pair, method=method, seed=seed, split='test', metric='accuracy/top1', value=value,
                 epochs=6, seconds=10, cpu_seconds=20) for seed, value in values.items()]


def test_what_is_in_the_results_file_is_not_run_again(tool, tmp_path):
    results, methods = tmp_path / 'results.jsonl', ('alone', 'kd', 'sfkd')
    results.write_text(''.join(json.dumps(row) + '\n' for method in methods for row in rows(method, {0: 50.})))
    text = tool('tools/compare.py', '--pairs', 'resnet_to_mixer', '--methods', *methods, '--seeds', 0, '--results',
                results, '--versus', 'kd', '--plot', tmp_path / 'plot.png')
    assert text.count('| 50.00 |') == 3 and text.count('|  +0.00 |') == 2 + 2 and 'minus kd |' in text
    assert len(results.read_text().splitlines()) == 3 and (tmp_path / 'plot.png').stat().st_size > 5000
    again = ('tools/compare.py', '--tables-only', '--pairs', 'resnet_to_mixer', '--results', results)
    assert '| minus alone | minus kd | minus sfkd |' in tool(*again)  # by default to what there is
    assert f"{results} has no row of 'dkd' there; it has alone, kd, sfkd" in tool(*again, '--versus', 'dkd', status=1)


@pytest.fixture
def quick(compare, monkeypatch, digits):
    """Cells of a few steps on small data."""
    popen = subprocess.Popen
    small = [f'{split}_dataloader.dataset.data_root={digits}' for split in ('train', 'val', 'test')]
    monkeypatch.setattr(compare.subprocess, 'Popen', lambda command, **kwargs: popen([*command, *small], **kwargs))


def test_who_drops_out_is_named_at_once(compare, tmp_path, monkeypatch):
    """On the console, while the others train on; what a resumed run said before it was interrupted is not said again.
    """
    said, before = [], '11/28 - ERROR - f.py - _drop - 1 - kd drops out: step 1: '
    folder = tmp_path / 'work_dirs/compare/resnet_to_mixer/test0_2'

    def start(command, stdout, **kwargs):
        return popen([sys.executable, '-c', f"""
import pathlib, time
print({before!r} + 'the loss is nan', flush=True)
end = time.time() + 30
while not pathlib.Path('heard').exists() and time.time() < end:
    time.sleep(0.01)
"""], stdout=stdout, **kwargs)

    def heard(text, **kwargs):
        said.append(text)
        Path('heard').touch()
    popen = subprocess.Popen
    monkeypatch.setattr(compare.subprocess, 'Popen', start)
    monkeypatch.setattr(compare, 'commit', lambda: 'abc')
    monkeypatch.setattr(compare, 'print', heard, raising=False)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        compare.Comparison(tmp_path / 'results.jsonl', epochs=2).run([
            ('resnet_to_mixer', method, 0) for method in ('kd', 'dkd')])
        log, = folder.glob('*/log.txt')
        assert said == ['resnet_to_mixer seed 0: kd drops out: step 1: the loss is nan',
                        f'FAILED: resnet_to_mixer seed 0, kd dkd: see {log.relative_to(tmp_path)}']
        said.clear()
        Path('heard').unlink()


def test_a_method_that_crashes_leaves_the_others(compare, quick, tmp_path, capfd):
    comparison = compare.Comparison(tmp_path / 'results.jsonl', 'val', epochs=2, together=2, jobs=2)
    methods = ['sfkd+wavelet=nonsense', 'dkd+logits.0.weight=0.5', 'alone']
    found = comparison.run([('resnet_to_mixer', method, 7) for method in methods])
    assert comparison.failed == 1
    said = capfd.readouterr().out
    assert 'resnet_to_mixer seed 7: sfkd+wavelet=nonsense drops out: ' in said
    assert 'FAILED: resnet_to_mixer seed 7, sfkd+wavelet=nonsense: see ' in said
    written = {row['method']: row for row in map(json.loads, (tmp_path / 'results.jsonl').read_text().splitlines())}
    assert set(written) == set(methods[1:]) == {row['method'] for row in found}
    row = written['dkd+logits.0.weight=0.5']
    assert {'task', 'pair', 'method', 'seed', 'split', 'metric', 'value', 'seconds', 'config', 'commit'} <= row.keys()
    assert row['split'] == 'val' and row['seed'] == 7 and row['epochs'] == 2 and 0 <= row['value'] <= 100
    assert row['cpu_seconds'] > 1
    comparison = compare.Comparison(tmp_path / 'results.jsonl', 'test', epochs=2)
    tested, = comparison.run([('resnet_to_mixer', 'alone', 7)])
    assert tested['split'] == 'test' and tested['epochs'] == 2 and comparison.failed == 0


def test_all_pairs_share_a_folder_for_what_teachers_show(compare, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(compare.subprocess, 'Popen', lambda command, **kwargs: (
        seen.append(command), subprocess_that_fails())[1])
    monkeypatch.setattr(compare, 'commit', lambda: 'abc')
    monkeypatch.chdir(tmp_path)
    cells = [(pair, 'kd', 0) for pair in ('fashion_resnet_to_mixer', 'fashion_resnet_to_swin16')]
    compare.Comparison(tmp_path / 'results.jsonl', cache=tmp_path / 'cache').run(cells)
    compare.Comparison(tmp_path / 'results.jsonl').run(cells[:1])
    assert [command[command.index('--teacher-cache') + 1] for command in seen[:2]] == [str(tmp_path / 'cache')] * 2
    assert '--teacher-cache' not in seen[2]


def test_an_interrupted_run_goes_on_if_it_is_the_same(compare, tmp_path, monkeypatch):
    seen, version, scored = [], ['abc'], []

    def start(command, **kwargs):
        folder = Path(command[command.index('--work-dir') + 1])
        seen.append(('--resume' in command, (folder / 'epoch_1.pth').exists()))
        assert 'checkpoint.interval' not in ' '.join(command)  # the configs save each epoch
        assert '--resume' not in command or command.index('--resume') < command.index('--cfg-options')
        (folder / 'epoch_1.pth').touch()
        if scored:
            (folder / 'scores.json').write_text('{"kd": {"accuracy/top1": 50.0}}')
        return subprocess_that_fails()
    monkeypatch.setattr(compare.subprocess, 'Popen', start)
    monkeypatch.setattr(compare, 'commit', lambda: version[0])
    monkeypatch.chdir(tmp_path)

    def run(epochs=2):
        file = tmp_path / 'results.jsonl'
        file.unlink(missing_ok=True)
        return compare.Comparison(file, epochs=epochs).run([('resnet_to_mixer', 'kd', 0)])
    for epochs, commit in (2, 'abc'), (2, 'abc'), (3, 'abc'), (3, 'def'), (3, 'def-dirty'), (3, 'def-dirty'):
        version[0] = commit
        run(epochs)
    assert seen == [(False, False), (True, True), *[(False, False)] * 4]
    version[0] = 'abc'
    scored.append(True)
    row, = run()  # other budgets in between have left it alone
    assert row['value'] == 50 and not {'seconds', 'cpu_seconds'} & row.keys()  # of the last part alone
    row, = run()
    assert row['seconds'] >= 0 and seen[-2:] == [(True, True), (False, False)]


def test_a_pair_and_a_method_of_ones_own(compare, tmp_path, monkeypatch, capfd):
    """They go to train_together.py as they are, and their scores into no file of ours. A run that was begun with other
    texts of theirs is not gone on with.
    """
    seen, scores = [], {'mine.py+task_weight=0.5': {'accuracy/top1': 50.0}}

    def start(command, **kwargs):
        folder = Path(command[command.index('--work-dir') + 1])
        seen.append((command[2], command[4], str(folder.parent)))
        (folder / 'scores.json').write_text(json.dumps(scores))
        return subprocess_that_fails()
    monkeypatch.setattr(compare.subprocess, 'Popen', start)
    monkeypatch.setattr(compare, 'commit', lambda: 'abc')
    monkeypatch.setitem(compare.PAIRS, 'cls', dict(compare.PAIRS['cls']))
    monkeypatch.setattr(compare, 'TASK_OF', dict(compare.TASK_OF))
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text("model = dict(type='Distiller', logits=[dict(type='DIST', weight=2.0)])\n")
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'folder/pair.py').write_text("_base_ = 'sfkd::mini/cls_resnet_to_mixer.py'\n")
    assert compare.weights_of('mine.py') == {'logits.0.weight': 2.0}
    arguments = ['compare.py', '--pairs', 'folder/pair.py', '--methods', 'mine.py+task_weight=0.5', '--seeds', '0']

    def run(*results):
        monkeypatch.setattr(sys, 'argv', [*arguments, *results])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        return ended.value.code
    assert run('--results', 'a.jsonl') == 0
    assert '| folder/pair.py | mine.py+task_weight=0.5 | 1 | 50.00 |' in capfd.readouterr().out
    assert seen == [('folder/pair.py', 'mine.py+task_weight=0.5', 'work_dirs/compare/pair/test0_6')]
    row, = map(json.loads, (tmp_path / 'a.jsonl').read_text().splitlines())
    assert row['pair'] == row['config'] == 'folder/pair.py' and row['method'] == 'mine.py+task_weight=0.5'
    arguments[2] = 'sfkd::mini/cls_resnet_to_mixer.py'
    assert run('--results', 'shipped.jsonl') == 0 and seen[-1][0] == arguments[2]
    arguments[2] = 'folder/pair.py'
    scores['mine.py+task_weight=0.5'] = {'pascal_voc/mAP': 0.5}
    assert run('--results', 'b.jsonl') == '1 runs failed'
    assert (tmp_path / 'b.jsonl').read_text() == ''
    assert ('folder/pair.py: it is scored by pascal_voc/mAP, those of --task cls by accuracy/top1'
            in capfd.readouterr().out)
    begun = len(seen)
    assert run('--results', 'b.jsonl') == '1 runs failed' and len(seen) == begun  # its scores are there
    (tmp_path / 'mine.py').write_text("model = dict(type='Distiller', logits=[dict(type='DIST', weight=3.0)])\n")
    assert run('--results', 'b.jsonl') == '1 runs failed' and len(seen) == begun + 1
    assert run() == 2
    assert "--results: 'folder/pair.py' is your own" in capfd.readouterr().err
    (tmp_path / 'folder/pair.py').write_text(
        "_base_ = 'sfkd::mini/cls_resnet_to_mixer.py'\n"
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8, val_interval=4)\n")
    assert run('--results', 'c.jsonl') == 2
    assert "--pairs: 'folder/pair.py' has no train_cfg.max_epochs" in capfd.readouterr().err
    (tmp_path / 'folder/pair.py').write_text(
        "_base_ = 'sfkd::mini/cls_resnet_to_mixer.py'\nparam_scheduler = [dict(type='ConstantLR')]\n")
    assert run('--results', 'c.jsonl', '--epochs', '3') == 2
    assert "--epochs: 'folder/pair.py' has other schedules" in capfd.readouterr().err
    (tmp_path / 'folder/pair.py').write_text("_base_ = 'sfkd::mini/cls_resnet_to_mixer.py'\n")
    arguments[4] = 'none.py'
    assert run('--results', 'c.jsonl') == 2 and "there is no config file 'none.py'" in capfd.readouterr().err
    (tmp_path / 'mine.py').write_text("model = dict(type='sfkd.SFKD', spatial_weight=0.5)\n")
    assert compare.weights_of('mine.py') == dict(spatial_weight=0.5, frequency_weight=2.5)
    assert compare.switch_of('mine.py') == 'logit_weight=1.0'


def test_a_signal_to_end_reaches_the_trainings_and_no_other_begins(compare, tmp_path, monkeypatch, capfd):
    popen, begun = subprocess.Popen, []

    def start(command, **kwargs):
        begun.append(command)
        return popen([sys.executable, '-c', """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('saved').touch(), sys.exit(143)))
pathlib.Path('begun').touch()
time.sleep(60)
"""], **kwargs)
    monkeypatch.setattr(compare.subprocess, 'Popen', start)
    monkeypatch.setattr(compare, 'commit', lambda: 'abc')
    monkeypatch.chdir(tmp_path)
    comparison = compare.Comparison(tmp_path / 'results.jsonl', epochs=2)

    def tell():
        while not Path('begun').exists():
            time.sleep(0.05)
        comparison.end(signal.SIGTERM)
    teller = threading.Thread(target=tell)
    teller.start()
    with pytest.raises(SystemExit) as ended:
        comparison.run([('resnet_to_mixer', 'kd', seed) for seed in range(3)])
    teller.join()
    assert Path('saved').exists() and len(begun) == 1 and ended.value.code == 128 + signal.SIGTERM
    assert 'FAILED' not in capfd.readouterr().out


def test_a_training_that_outlived_its_comparison_is_left_alone_and_then_taken(compare, tmp_path, monkeypatch, capfd):
    begun = []
    monkeypatch.setattr(compare.subprocess, 'Popen', lambda command, **kwargs: (
        begun.append(kwargs['pass_fds']), subprocess_that_fails())[1])
    monkeypatch.setattr(compare, 'commit', lambda: 'abc')
    monkeypatch.chdir(tmp_path)
    results = tmp_path / 'results.jsonl'
    cells = [('resnet_to_mixer', 'kd', 0)]
    compare.Comparison(results, epochs=2).run(cells)
    run, = tmp_path.glob('work_dirs/compare/resnet_to_mixer/test0_2/*/run.json')
    with compare.locked(run.parent) as lock:
        capfd.readouterr()
        assert compare.Comparison(results, epochs=2).run(cells) == [] and len(begun) == 1
        assert 'another process trains in work_dirs' in capfd.readouterr().out
        assert begun[0] and lock.fileno()
        (run.parent / 'scores.json').write_text('{"kd": {"accuracy/top1": 50.0}}')
    row, = compare.Comparison(results, epochs=2).run(cells)
    assert row['value'] == 50 and 'seconds' not in row and len(begun) == 1
    # one cell again, in another file, is another training
    compare.Comparison(tmp_path / 'again.jsonl', epochs=2).run(cells)
    assert len(begun) == 2


def test_a_tuned_task_compares_the_best_trial_of_each_method(compare):
    chosen = compare.CHOSEN['fashion']
    trials: dict[str, dict[str, float]] = {}
    for row in map(json.loads, (ROOT / 'docs/results/tuning_fashion.jsonl').read_text().splitlines()):
        if (row['pair'] == 'fashion_resnet_to_mixer' and row['epochs'] == 8 and row['seed'] == 0
                and '+' in row['method']):
            trials.setdefault(row['method'].partition('+')[0], {})[row['method']] = row['value']
    assert len(trials) == 7
    best = {max(values, key=values.get) for values in trials.values()}
    assert best == set(chosen[1:8]) and chosen[0] == 'alone'
    for name in chosen[1:]:
        model_of('sfkd::fashion/resnet_to_mixer.py', name)  # raises for an option that there is not
    assert compare.baselines('cls') == list(compare.BASELINES) and set(compare.baselines('fashion')) < set(chosen)


def test_segmentors_are_compared_by_the_best_trial_of_each_method(compare):
    chosen, pairs = compare.CHOSEN['seg_pretrained'], compare.PAIRS['seg_pretrained']
    trials: dict[str, dict[str, list[float]]] = {}
    for row in map(json.loads, (ROOT / 'docs/results/tuning_seg_pretrained.jsonl').read_text().splitlines()):
        assert row['split'] == 'val' and row['epochs'] == 4
        trials.setdefault(row['method'].partition('+')[0], {}).setdefault(row['method'], []).append(row['value'])
    assert len(trials) == 8 and all(len(of_method) == 5 for of_method in trials.values())
    assert all(len(values) == len(pairs) for of_method in trials.values() for values in of_method.values())
    assert {max(of_method, key=lambda one: sum(of_method[one])) for of_method in trials.values()} == {*chosen[1:9]}
    for name in chosen:
        model_of(next(iter(pairs.values())), name)
    assert compare.baselines('seg_pretrained') == [chosen[0], chosen[3], chosen[1]]
    assert {one for part in compare.PARTS['seg_pretrained'].values() for one in part} < {*chosen}


@pytest.mark.parametrize('task', ['seg_pretrained', 'det_pretrained'])
def test_by_default_dense_tasks_have_the_methods_that_they_can_have(compare, task):
    methods = compare.default_methods(task, tuning=True)
    assert {'cwd_classes', 'kd_classes', 'mgd_cells'} < set(methods)
    assert compare.default_methods(task) == compare.CHOSEN.get(task, methods)
    for method in methods[1:]:
        model = model_of(next(iter(compare.PAIRS[task].values())), method)
        assert model.type == 'SFKD' or not any(loss.get('weight', 1.0) for loss in model.get('logits', [])), method
    assert compare.default_methods('fashion') == compare.CHOSEN['fashion']


def test_groups_are_few_and_of_one_size(compare):
    assert compare.in_groups(list('abcdefghij'), 8) == [list('acegi'), list('bdfhj')]
    assert compare.in_groups(list('abc'), 3) == [list('abc')]


def subprocess_that_fails(popen=subprocess.Popen):
    return popen([sys.executable, '-c', 'raise SystemExit(1)'])


def test_another_budget_is_another_cell(compare, tmp_path, monkeypatch):
    (tmp_path / 'results.jsonl').write_text(json.dumps(rows('alone', {0: 50.})[0]) + '\n')
    trained = []
    monkeypatch.setattr(compare.Comparison, '_train',
                        lambda self, pair, seed, methods, gpu: trained.append(self.budget(pair)) or [])
    for epochs in None, 6, 24:
        found = compare.Comparison(tmp_path / 'results.jsonl', epochs=epochs).run([('resnet_to_mixer', 'alone', 0)])
        assert bool(found) == (epochs != 24)
    assert trained == [24]


def test_tuning_gives_every_method_the_same_trials(compare, tmp_path, capfd, monkeypatch):
    """The best factor by the mean over pairs, then one more trial with the switch."""
    run = []

    def score(self, cells):
        run.append(cells)
        values = {method: 10 * float(method.split('=')[1].partition('+')[0]) for _, method, _ in cells}
        return [dict(metric='accuracy/top1', pair=pair, method=method, seed=seed,
                     value=values[method] + method.count('+')) for pair, method, seed in cells]
    monkeypatch.setattr(compare.Comparison, 'run', score)
    comparison, pairs = compare.Comparison(tmp_path / 'none.jsonl', 'val'), ['resnet_to_mixer', 'swin_to_resnet8']
    methods = ['sfkd', *CONFIGS]
    compare.tune(comparison, methods, pairs, [0])
    first, second = run
    assert len(first) == len(methods) * 2 * 3 and len(second) == len(methods) * 2
    report = capfd.readouterr().out.splitlines()
    for method, line in zip(methods, report, strict=True):
        ours = [[trial for pair, trial, _ in cells if trial.partition('+')[0] == method and pair == pairs[0]]
                for cells in (first, second)]
        assert ours[1][0].startswith(ours[0][2] + '+'), method  # the largest factor was best
        assert line.startswith(f'TUNED {method}: ') and ours[1][0].removeprefix(method + '+') in line


@pytest.mark.parametrize('best, fourth', [(0.25, 0.0625), (1.0, 2.0), (4.0, 16.0)])
def test_tuning_of_dense_tasks_goes_on_from_the_best_weights(compare, tmp_path, capfd, monkeypatch, best, fourth):
    """Then class maps are distilled beside features, and a distillation of class maps has another temperature."""
    def score(self, cells):
        return [dict(metric='mIoU', pair=pair, method=method, seed=seed, value=-abs(
            float(re.search(r'weight=([.\d]+)', method)[1]) - base[method.partition('+')[0]] * best))
            for pair, method, seed in cells]
    base = dict(sfkd=2.5, kd_classes=1.0, pkd=3.0)
    monkeypatch.setattr(compare.Comparison, 'run', score)
    compare.tune(compare.Comparison(tmp_path / 'none.jsonl', 'val'), [*base], [*compare.PAIRS['seg_pretrained']], [0])
    cwd, switches = 'ChannelWiseDivergence', {}
    for (method, weight), line in zip(base.items(), capfd.readouterr().out.splitlines(), strict=True):
        *trials, switched = [trial.partition('weight=')[2].rpartition(': ')[0] for trial in line.split(', ')]
        assert [float(trial.partition('+')[0]) / weight for trial in trials] == [0.25, 1, 4, fourth]
        first, _, switches[method] = switched.partition('+')
        assert float(first) == best * weight
    assert switches == dict(
        sfkd=f'frequency_weight={best * 2.5:g}+logit_weight=5.0+logit_loss={cwd}',
        kd_classes='losses.0.temperature=4.0',
        pkd=f'logits.0.weight=5.0+logits.0.type={cwd}+logits.0.temperature=1.0')


@pytest.mark.parametrize('method', ['sfkd', 'sfkd_lean', 'pkd', 'cwd', 'mgd_cells', 'cwd_classes', 'kd_classes'])
def test_the_switch_of_dense_tasks_fits_the_method(compare, method):
    pair = compare.PAIRS['seg_pretrained']['pretrained_seg_mit_to_resnet8']
    model = model_of(pair, f'{method}+{compare.switch_of(method, dense=True)}')
    pairs = MODELS.build(dict(model, _scope_='mmseg')).distillation.pairs
    maps = pairs[-1].teacher_path == 'decode_head.conv_seg'
    assert maps and next(iter(pairs[-1].losses.values())).temperature == (4.0 if 'classes' in method else 1.0)


def test_tuning_scales_the_anchor_too(compare):
    assert compare.weights_of('srrl') == {'losses.0.weight': 1.0, 'anchor.weight': 1.0}


def test_tuning_does_not_choose_what_failed_on_a_pair(compare, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(compare.Comparison, 'run', lambda self, cells: [
        dict(metric='accuracy/top1', pair=pair, method=method, seed=seed, value=50.0)
        for pair, method, seed in cells if (pair, method) != ('resnet_to_mixer', 'kd+logits.0.weight=0.0625')
        for _ in range(2)])  # as where two files were joined
    compare.tune(compare.Comparison(tmp_path / 'none.jsonl', 'val'), ['kd'], ['resnet_to_mixer', 'swin_to_resnet8'],
                 [0])
    assert 'logits.0.weight=0.0625: -inf, logits.0.weight=0.25: 50.00' in capfd.readouterr().out


def test_tuning_finds_the_weights_of_sfkd_in_its_preset(compare):
    expected = dict(spatial_weight=2.5, frequency_weight=2.5)
    assert compare.weights_of('sfkd') == compare.weights_of('sfkd_lean') == expected
    assert compare.switch_of('sfkd_lean') == 'logit_weight=1.0'


def test_a_table_without_rows_says_which_the_file_has():
    asked = subprocess.run([sys.executable, ROOT / 'tools/compare.py', '--tables-only', '--results',
                            ROOT / 'docs/results/long_cls.jsonl'],
                           capture_output=True, text=True)
    assert asked.returncode == 1 and 'long_cls.jsonl: no row of' in asked.stderr
    assert 'swin_to_resnet8, test, 24 epochs, seeds 0 1 2 3 4' in asked.stderr


def test_tables_are_of_the_seeds_that_are_named(tool):
    file = ['--task', 'fashion', '--pairs', 'fashion_resnet_to_mixer', '--methods', 'alone',
            '--results', ROOT / 'docs/results/results_fashion.jsonl']  # which has these, so that nothing is run
    count = [int(re.search(r'\| alone \| (\d+) \|', tool('tools/compare.py', *file, *asked))[1])
             for asked in (['--seeds', 1], ['--seeds', 0, 2], ['--tables-only', '--seeds', 0, 2], ['--tables-only'])]
    assert count[:3] == [1, 2, 2] and count[3] >= 3
