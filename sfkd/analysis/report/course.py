"""How the training went: what the log says of it."""
from __future__ import annotations

from ...errors import ConfigError
from ..runs import METRICS, Run, scaled, shown
from . import charts, page
from .pictures import LeftOut
from .subject import Subject


def head(subject: Subject, tested: dict[str, float], command: str) -> str:
    """What was trained, what it scored, and the commands.

    Args:
        subject: of the report.
        tested: ``{who: score}`` on the test split, in %, of a quickstart; empty where there is none.
        command: that makes this page again; '' for none.
    """
    run, config = subject.run, subject.run.config
    model, end = config.model, config.get('train_cfg', {})
    text = []
    if subject.distils:
        student = model.student if isinstance(model.student, str) else _described(model.student)
        teacher = model.teacher if isinstance(model.teacher, str) else _described(model.teacher)
        text.append(f"A student ({student}) was taught by {teacher} (weights: {model.get('teacher_ckpt')}).")
    else:
        text.append(f'A model ({_described(model)}) was trained alone.')
    length = f"{end.get('max_epochs')} epochs" if run.by_epoch else f"{end.get('max_iters')} iterations"
    done = f", the last entry of its log at iteration {run.losses[-1]['step']:,}" if run.losses else ''
    text.append(f'Its config is {run.config_file.name}, of {length}{done}; {run.seconds:.0f} s by the log.')
    if run.metric:
        curve = run.curve(run.metric)
        best = max(curve, key=lambda point: point[1])
        unit = 'epoch' if run.by_epoch else 'iteration'
        text.append(f'On the validation split it scored {curve[-1][1]:.2f} {shown(run.metric)} in the end '
                    f'({unit} {curve[-1][0]}), at best {best[1]:.2f} ({unit} {best[0]}).')
        if run.metric in subject.teacher:
            text.append(f'The teacher scores {scaled(run.metric, subject.teacher[run.metric]):.2f} there.')
        if subject.alone is not None and (other := subject.alone.curve(run.metric)):
            text.append(f'The same student alone ended with {other[-1][1]:.2f} ({unit} {other[-1][0]}).')
    else:
        text.append('Nothing was scored on the way.')
    made = [f'python tools/train.py {run.config_file} --work-dir NEW{_as_it_was(run)}    # the run again']
    if run.checkpoint and (config.get('test_dataloader') or {}).get('dataset'):
        made.append(f'python tools/test.py {run.config_file} {run.checkpoint}    # its score on the test split')
    made += [f'{command}    # this page'] * bool(command)
    scores = '' if not tested else '<h3>On the test split, last epoch</h3>' + page.table(
        ['', shown(run.metric or '')], [(who, f'{score:.2f}') for who, score in tested.items()])
    return page.paragraph(' '.join(text)) + page.commands(made) + scores


def curves(subject: Subject) -> str:
    """Losses over iterations, and validation scores."""
    run = subject.run
    if not run.losses:
        raise LeftOut(f"the log in '{run.folder}' has no entry of training; entries come every "
                      'default_hooks.logger.interval iterations')
    found = run.terms()
    taught = {_short(name): points for name, points in found.items() if name.startswith('distill.')}
    task = {name: points for name, points in found.items() if not name.startswith('distill.')}
    figures = []
    if task:
        figures.append(page.chart(charts.lines(task, 'iteration', 'loss'),
                                  "The task's own losses in training, as the log has them."))
    if taught:
        colours = {name: f'C{i}' for i, name in enumerate(dict.fromkeys(name.split()[0] for name in taught))}
        kinds = list(dict.fromkeys(name.partition(' ')[2] for name in taught))
        styles = {name: dict(color=colours[name.split()[0]],
                             linestyle=('-', '--', ':', '-.')[kinds.index(name.partition(' ')[2]) % 4])
                  for name in taught}
        figures.append(page.chart(charts.lines(taught, 'iteration', 'weighted loss', log=True, styles=styles),
                                  'The distillation terms, weighted as they are added to the loss: a colour a '
                                  'pair of stages, a kind of line a term. The axis is logarithmic.'))
    figures.append(_validation(subject))
    return page.charts(figures)


def _validation(subject: Subject) -> str:
    run, metric = subject.run, subject.run.metric
    if metric is None:
        return page.left_out('validation scores: the log has none')
    curves, styles, levels, notes = {}, {}, {}, []
    if subject.alone is not None and (other := subject.alone.curve(metric)):
        curves['student alone'] = other
        styles['student alone'] = dict(color=charts.BEFORE)
    own = 'student taught' if subject.distils else 'student'
    curves[own] = run.curve(metric)
    styles[own] = dict(color=charts.AFTER)
    if metric in subject.teacher:
        levels['teacher'] = scaled(metric, subject.teacher[metric])
    elif subject.distils and metric in METRICS:
        try:
            count, split = len(subject.pictures), subject.pictures.split
            levels[f'teacher, {count} of {len(subject.pictures.dataset)} pictures'] = subject.judged['teacher'][1]
            notes.append(f'Nobody scored the teacher on the whole split; its line is measured here, on {count} of '
                         f'its {len(subject.pictures.dataset)} pictures, '
                         f'of which this student has {subject.judged[own][1]:.2f}.')
            notes += ['They are of the test split.'] * (split == 'test')
        except (LeftOut, ConfigError, KeyError):
            notes.append("The teacher's score is not known.")
    if subject.distils and subject.alone is None:
        notes.append('No run of the student alone was given (--alone WORK_DIR).')
    label = 'epoch' if run.by_epoch else 'iteration'
    return page.chart(charts.lines(curves, label, shown(metric), styles=styles, levels=levels),
                      ' '.join([f'{shown(metric)} on the validation split.', *notes]))


def _described(model: dict) -> str:
    """A model's config in two words."""
    parts = [str(model.get('type')), str((model.get('backbone') or {}).get('type') or '')]
    return ' with '.join(part.rpartition('.')[2] for part in parts if part)


def _as_it_was(run: Run) -> str:
    """What a command has to add to the config in a work directory, so that a run begins anew."""
    options = ' resume=False load_from=None' if run.config.get('resume') else ''
    return f' --cfg-options{options}' if options else ''


def _short(name: str) -> str:
    """'distill.layers_0.loss_spatial' -> 'layers_0 spatial'."""
    return name.removeprefix('distill.').replace('.loss_', ' ').removesuffix('.loss')
