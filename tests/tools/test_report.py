"""The report of real runs of each task: its sections, its numbers, what it says of what is missing, and the page in a
browser.
"""
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from sfkd.analysis.report.comparison import comparison
from sfkd.analysis.report.examination import build_distiller, initialise_student
from sfkd.analysis.report.run import run_report
from sfkd.analysis.report.subject import Subject
from sfkd.analysis.runs import read_run
from sfkd.checkpoint import read_checkpoint, weights_of
from sfkd.datasets.digits_wild import generate_det, generate_seg
from sfkd.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path('/usr/bin/chromium')
SECTIONS = ['curves', 'gradients', 'cka', 'bands', 'spectrum', 'maps', 'predictions', 'classes']


def sections(text: str) -> dict[str, str]:
    """Of a page: what stands in each, without the pictures."""
    text = re.sub(r'base64,[A-Za-z0-9+/=]+', 'base64,', text)
    found = re.findall(r'<section id="(\w+)">(.*?)</section>', text, re.DOTALL)
    return {name: html.unescape(body) for name, body in found}


def cells(table: str) -> list[list[str]]:
    return [re.findall(r'<td>(.*?)</td>', row) for row in re.findall(r'<tr>(.*?)</tr>', table) if '<td>' in row]


@pytest.fixture(scope='module')
def classifiers(tool, small, tmp_path_factory) -> Path:
    """Two trainings of a Mixer: taught (with a learning rate of 0, so that it stays what it was), and alone."""
    folder = tmp_path_factory.mktemp('runs')
    options = ['default_hooks.logger.interval=1', *small]
    tool('tools/train.py', 'configs/mini/cls_resnet_to_mixer.py', '--work-dir', folder / 'taught', '--cfg-options',
         *options, 'optim_wrapper.optimizer.lr=0', 'param_scheduler.1.eta_min=0')
    tool('tools/train.py', 'configs/mini/cls_mixer.py', '--work-dir', folder / 'alone', '--cfg-options', *options)
    return folder


@pytest.fixture(scope='module')
def page(tool, classifiers) -> str:
    """The page of both, by the tool."""
    out = classifiers / 'page.html'
    text = tool('tools/report.py', classifiers / 'taught', '--alone', classifiers / 'alone', '--out', out)
    assert re.search(r'page\.html: [\d.]+ MiB, \d+ s\n$', text)
    return out.read_text()


def test_a_page_has_all_sections_and_the_numbers_of_the_log(page, classifiers):
    found = sections(page)
    assert list(found) == SECTIONS and 'Left out' not in page
    assert all('<img' in found[name] for name in SECTIONS[:-1])
    assert not re.search(r'(src|href)="(?!data:|#)', page) and '<script' not in page  # nothing from elsewhere
    rows = [json.loads(line) for line in next((classifiers / 'taught').glob('*/vis_data/scalars.json')).open()]
    last = rows[-1]['accuracy/top1']
    assert f'it scored {last:.2f} top-1 (%) in the end (epoch 1), at best {last:.2f}' in page
    other = json.loads(next((classifiers / 'alone').glob('*/vis_data/scalars.json')).read_text().splitlines()[-1])
    assert f'The same student alone ended with {other["accuracy/top1"]:.2f} (epoch 1)' in page
    assert f'iteration {rows[-2]["step"]}; ' in page
    # The validation split has 20 pictures, and all went through the networks: the scores are the log's
    *_, whole = cells(found['classes'])
    assert whole[:2] == ['all', '20'] and whole[3:] == [f"{other['accuracy/top1']:.2f}", f'{last:.2f}']
    assert found['predictions'].count('student taught: ') == 14
    assert found['predictions'].count('<b>') == 14


def test_a_student_that_learned_nothing_is_the_one_of_before(page):
    """With a learning rate of 0, each measure has the same value before and after."""
    found = sections(page)
    rows = cells(found['gradients'])
    assert [row[1] for row in rows] == ['before'] * 4 + ['after'] * 4
    assert [row[2:] for row in rows[:4]] == [row[2:] for row in rows[4:]]
    energies = cells(found['spectrum'])
    assert [row[1] for row in energies] == ['teacher', 'before', 'after'] * 4
    assert all(before[2:] == after[2:] for before, after in zip(energies[1::3], energies[2::3]))


def test_the_initial_student_is_the_runs_own(classifiers):
    """To the last bit, connectors included: what a run of learning rate 0 saved."""
    run = read_run(classifiers / 'taught')
    distiller = build_distiller(run.config, run.checkpoint)
    initialise_student(distiller, run.config)
    saved = weights_of(read_checkpoint(run.checkpoint, 'test'))
    assert saved.keys() == distiller.state_dict().keys()
    assert all(torch.equal(value, saved[key]) for key, value in distiller.state_dict().items())


def test_a_student_alone_has_what_makes_sense_of_it(classifiers):
    text = run_report(Subject(read_run(classifiers / 'alone'), number=8))
    assert list(sections(text)) == ['curves', 'predictions', 'classes'] and 'Left out' not in text
    assert 'ImageClassifier with MlpMixer) was trained alone' in text


def test_what_is_missing_is_said_where_it_is_missing(classifiers, tmp_path):
    folder = shutil.copytree(classifiers / 'taught', tmp_path / 'run')
    for file in [*folder.glob('*epoch_1.pth'), folder / 'last_checkpoint']:
        file.unlink()
    found = sections(run_report(Subject(read_run(folder), number=8)))
    assert found['predictions'].count('Left out') == 1
    assert 'student alone: no run of it was given' in found['predictions']
    for name in ('gradients', 'cka', 'bands'):
        assert "student_latest.pth' holds no connectors" in found[name]
    assert found['cka'].count('<img') == 2 and cells(found['gradients'])[0][1] == 'before'
    (folder / 'student_latest.pth').unlink()
    found = sections(run_report(Subject(read_run(folder), number=8)))
    assert f"there is no checkpoint in '{folder}'" in found['cka'] and found['cka'].count('<img') == 1
    assert 'student taught: there is no checkpoint' in found['predictions']
    config = next(folder.glob('*/vis_data/config.py'))
    config.write_text(config.read_text().replace('teachers/resnet.safetensors', 'teachers/none.safetensors'))
    found = sections(run_report(Subject(read_run(folder), number=8)))
    assert all("there is no 'sfkd::mini/teachers/none.safetensors'" in found[name] for name in SECTIONS[1:6])
    assert '<img' in found['curves']


def test_a_run_that_is_not_of_the_student_alone_is_refused(classifiers, tmp_path):
    taught, alone = read_run(classifiers / 'taught'), read_run(classifiers / 'alone')
    for run in taught, alone:
        with pytest.raises(ConfigError, match="--alone: the student of '.*taught' was taught; give the run of"):
            Subject(run, taught)
    other = replace(alone, checkpoint=str(tmp_path / 'epoch_1.pth'), folder=tmp_path)
    state = weights_of(read_checkpoint(alone.checkpoint, 'test'))
    state['head.fc.bias'] = state['head.fc.bias'][:5]
    torch.save(dict(state_dict=state, optimizer={}), other.checkpoint)
    with pytest.raises(ConfigError, match="--alone: '.*' is of another student: its weights have other names or"):
        Subject(taught, other)


def test_bad_input_is_named(tool, classifiers, tmp_path):
    text = tool('tools/report.py', tmp_path / 'none', status=2)
    assert f"RUN: '{tmp_path}/none' is not there; give the work directory of tools/train.py" in text
    assert 'Traceback' not in text
    (tmp_path / 'notes.txt').touch()
    with pytest.raises(ConfigError, match='holds no <time>/vis_data/config.py with a train_cfg, but notes.txt; give'):
        read_run(tmp_path)
    folder = shutil.copytree(classifiers / 'alone', tmp_path / 'run')
    log = next(folder.glob('*/vis_data/scalars.json'))
    log.write_text(log.read_text() + '{"loss": 0.1')
    with pytest.raises(ConfigError, match=rf"RUN: line 8 of '{log}' is no entry of mmengine's log"):
        read_run(folder)
    rows = tmp_path / 'rows.jsonl'
    rows.write_text('{"pair": "a", "method": "kd"}\n')
    with pytest.raises(ConfigError, match=rf"line 1 of '{rows}' is no row of tools/compare.py \(KeyError: 'metric'\)"):
        comparison(rows)


def test_starts_that_resume_go_on_and_those_that_begin_anew_count_alone(classifiers, tmp_path):
    folder = shutil.copytree(classifiers / 'alone', tmp_path / 'run')
    first = next(folder.glob('*/vis_data')).parent
    whole = read_run(folder)
    assert [row['step'] for row in whole.losses] == [1, 2, 3, 4, 5, 6] and whole.terms().keys() == {'loss'}
    later = shutil.copytree(first, folder / '29990101_000000')
    kept = [line for line in (later / 'vis_data/scalars.json').read_text().splitlines() if '"step": 1' not in line]
    resumed = [json.dumps(dict(json.loads(line), loss=7.0)) for line in kept if re.search('"step": [56]', line)]
    (later / 'vis_data/scalars.json').write_text('\n'.join(resumed))
    run = read_run(folder)
    assert [row['step'] for row in run.losses] == [1, 2, 3, 4, 5, 6]
    assert [row['loss'] for row in run.losses[4:]] == [7, 7]
    assert run.scores == whole.scores and run.seconds == 2 * whole.seconds
    (later / 'vis_data/scalars.json').write_text((first / 'vis_data/scalars.json').read_text().splitlines()[0])
    run = read_run(folder)
    assert [row['step'] for row in run.losses] == [1] and run.scores == [] and run.seconds == whole.seconds


def test_a_run_of_so_many_iterations_is_not_said_to_have_epochs(classifiers):
    run = read_run(classifiers / 'taught')
    assert run.by_epoch
    loop = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=4)  # as mmseg's schedules are
    assert not replace(run, config=Config(dict(train_cfg=loop))).by_epoch


def test_a_test_in_the_work_directory_is_no_start_of_the_run(tool, small, classifiers, tmp_path):
    folder = shutil.copytree(classifiers / 'taught', tmp_path / 'run')
    before, copied = read_run(folder), (folder / 'cls_resnet_to_mixer.py').read_text()
    tool('tools/test.py', 'configs/mini/cls_resnet_to_mixer.py', folder / 'epoch_1.pth', '--work-dir', folder,
         '--cfg-options', *small)
    assert len(list(folder.glob('*/vis_data/config.py'))) == 2
    after = read_run(folder)
    assert after.config.to_dict() == before.config.to_dict() and replace(after, config=before.config) == before
    assert (folder / 'cls_resnet_to_mixer.py').read_text() == copied
    for file in classifiers.glob('taught/*/vis_data/config.py'):
        shutil.rmtree(folder / file.relative_to(classifiers / 'taught').parents[1])
    with pytest.raises(ConfigError, match='holds no <time>/vis_data/config.py with a train_cfg, but '):
        read_run(folder)


@pytest.mark.parametrize('task', ['det', pytest.param('seg', marks=pytest.mark.long)])
def test_a_page_of_dense_predictions(tool, task, tmp_path):
    data, folder = tmp_path / f'digits_wild/{task}', tmp_path / 'run'
    generate = dict(det=generate_det, seg=generate_seg)[task]
    generate(data, counts=dict(train=16, val=12, test=2))
    options = [f'{split}_dataloader.{key}' for split in ('train', 'val') for key in (
        f'dataset.data_root={data}', 'num_workers=0')] + ['train_cfg.max_epochs=1', 'default_hooks.logger.interval=1']
    if task == 'det':
        options += [f'val_evaluator.ann_file={data}/annotations/val.json', 'model.student.test_cfg.score_thr=0']
    tool('tools/train.py', f"configs/mini/{task}_swin_to_resnet8.py", '--work-dir', folder,
         '--cfg-options', *options)
    run = read_run(folder)
    found = sections(run_report(Subject(run, number=12)))
    assert list(found) == SECTIONS
    assert all('Left out' not in found[name] for name in SECTIONS if name != 'predictions')
    assert found['predictions'].count('<img') == 6 * 3 and found['predictions'].count('Left out') == 1
    rows = cells(found['classes'])
    assert rows[-1][0] == 'mean' and float(rows[-1][2]) > 20 > float(rows[-1][3])  # the teacher is one that has learned
    # All of the split went through the student: its score is the log's
    assert float(rows[-1][3]) == pytest.approx(run.curve(run.metric)[-1][1], abs=0.06)
    if task == 'seg':
        assert found['predictions'].count('swatch') >= 5
        assert [row[0] for row in rows[:-1]][0] == 'background'


def test_a_page_of_a_comparison(tmp_path):
    rows = tmp_path / 'results.jsonl'
    rows.write_text(''.join(json.dumps(dict(
        task='det', pair='a_to_b', method=method, seed=seed, split='test', metric='coco/bbox_mAP', value=value,
        epochs=8, seconds=10, commit='abc')) + '\n' for method, values in dict(
            alone=(0.1, 0.12), sfkd=(0.3, 0.34)).items() for seed, value in enumerate(values)))
    text = comparison(rows)
    (body, ) = sections(text).values()
    assert cells(body) == [['sfkd', '2', '32.00 ± 2.83', '+21.00 ± 12.71'], ['alone', '2', '11.00 ± 1.41', '']]
    assert '4 trainings of 1 pairs by 2 methods, 40 s in all' in text and 'box AP (%)' in body


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f'there is no {CHROMIUM}')
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_pages_in_a_browser(page, classifiers, tmp_path, scheme):
    """By file://: every picture loads, nothing is wider than the window, the console stays empty."""
    playwright = pytest.importorskip('playwright.sync_api', reason='pip install playwright')
    (tmp_path / 'rows.html').write_text(comparison(ROOT / 'docs/results/results_cls.jsonl'))
    flags = ('--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking '
             '--disable-component-update --disable-sync')
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=flags.split())
        for file in (classifiers / 'page.html', tmp_path / 'rows.html'):
            for width in (1400, 400):
                said = []
                tab = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme)
                tab.on('console', lambda message, said=said: said.append(message.text))
                tab.on('requestfailed', lambda request, said=said: said.append(request.url[:80]))
                tab.goto(file.as_uri())
                images = tab.evaluate('Array.from(document.images, i => i.complete && i.naturalWidth > 0)')
                assert all(images) and len(images) >= 5
                assert tab.evaluate('document.documentElement.scrollWidth') <= width and said == []
                background = tab.evaluate('getComputedStyle(document.body).backgroundColor')
                assert background == dict(light='rgb(255, 255, 255)', dark='rgb(21, 24, 29)')[scheme]
        browser.close()
