"""The report of a run as one page of HTML: docs/report.md says how to read it."""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from torch import Tensor

from ..checkpoint import load_strictly
from ..datasets.digits_wild import label_colours
from ..distillation.pair import Pair
from ..errors import ConfigError
from ..labelfree.drawing import shown_pair
from ..openmmlab.running import is_distillation
from . import charts, page
from .drawing import annotate, as_truth, coloured, picture
from .examination import (
    GRID,
    LeftOut,
    PairMaps,
    Pictures,
    build_distiller,
    cka_table,
    compared_stages,
    gradient_shares,
    initialise_student,
    load_run,
    pair_maps,
    student_grams,
    teacher_grams,
    terms,
)
from .predictions import KINDS, alone, kind_of, per_class, predict, teacher_of
from .runs import METRICS, Run, scaled, shown
from .spectra import band_energies, gaussian_gain, radial_spectrum
from .terms import PairReport

BEFORE, AFTER = 'before', 'after'
SIDE = 320  # pixels of the longer side of a picture with predictions
SCORE = 0.3  # of boxes that are drawn
MAPPED = 3  # pictures whose maps are shown


@dataclass
class Measured:
    """What was measured within student and teacher; ``{'before' or 'after' training: ...}``, without 'before' where
    that student cannot be made, and without 'after' where its connectors are missing.

    Attributes:
        stages: names of all stages, of the student and of the teacher.
        paired: of these, the pairs of the distillation.
        cka: tables.
        terms: gradients and losses.
        maps: what each pair compares.
        positions: of the pictures that maps and gradients are of.
        missing: what is missing of these, and why.
    """
    stages: tuple[list[str], list[str]]
    paired: list[tuple[int, int]]
    cka: dict[str, np.ndarray] = field(default_factory=dict)
    terms: dict[str, list[PairReport]] = field(default_factory=dict)
    maps: dict[str, list[PairMaps]] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class RunReport:
    """The page of one run.

    Args:
        run: of a distillation, or of a student alone.
        alone: the run of the same student alone; None for none.
        number: of pictures that go through the networks.
        teacher: the teacher's scores on the whole validation split, by metric; empty where nobody measured them.
        tested: ``{who: score}`` on the test split, in %, of a quickstart; empty where there is none.
        command: that makes this page again.
    """

    def __init__(self, run: Run, alone: Run | None = None, number: int = 64, teacher: dict[str, float] | None = None,
                 tested: dict[str, float] | None = None, command: str = ''):
        self.run, self.alone, self.number, self.command = run, alone, number, command
        self.teacher, self.tested = teacher or run.teacher, tested or {}
        self.distils = is_distillation(run.config)

    def html(self) -> str:
        """The whole page."""
        sections = [('curves', 'Losses and scores over training', self.curves)]
        if self.distils:
            sections += [('gradients', 'What each term asks of the student', self.gradients),
                         ('cka', 'How alike the stages of both networks are', self.similarity),
                         ('bands', 'Energy by wavelet band', self.bands),
                         ('spectrum', 'The spectrum of what the student misses', self.spectra),
                         ('maps', 'Maps and sub-bands side by side', self.maps)]
        sections += [('predictions', 'Predictions', self.predictions), ('classes', 'Scores by class', self.classes)]
        made = [(name, title, _made(make)) for name, title, make in sections]
        head = self.head()  # in the end, when it is known what the teacher scores
        return page.document(f'Report of {self.run.name}', head, made)

    # ---- what is measured once ----

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(self.run.config, self.number)

    @cached_property
    def _distiller(self):
        """With the weights of before, and why it has none."""
        distiller = build_distiller(self.run.config, self.run.checkpoint)
        try:
            initialise_student(distiller, self.run.config)
        except (ConfigError, LeftOut) as error:
            return distiller, str(error)
        return distiller, ''

    @cached_property
    def measured(self) -> Measured:
        run, pictures = self.run, self.pictures
        distiller, uninitialised = self._distiller
        batches = list(pictures.batches(distiller.data_preprocessor))
        stages = compared_stages(distiller)
        paths = [[stage.path for stage in side] for side in stages]
        found = Measured(tuple([path.removeprefix('backbone.') for path in side] for side in paths), [
            (paths[0].index(pair.student_path), paths[1].index(pair.teacher_path)) for pair in self._pairs()
            if pair.student_path in paths[0] and pair.teacher_path in paths[1]])
        found.positions, inputs, samples = batches[0]
        of_teacher = teacher_grams(distiller, stages[1], batches)

        def measure(when: str, whole: bool = True) -> None:
            found.cka[when] = cka_table(student_grams(distiller, stages[0], batches), of_teacher)
            if whole:
                found.maps[when] = pair_maps(distiller, inputs, samples)
                found.terms[when] = terms(distiller, inputs, samples)
        if uninitialised:
            found.missing.append(uninitialised)
        else:
            measure(BEFORE)
        if run.checkpoint is not None:
            load_run(distiller, run.checkpoint)
            measure(AFTER)
        elif run.student is not None:
            load_strictly(distiller.student, run.student)
            measure(AFTER, whole=False)
            found.missing.append(f"there is no full checkpoint in '{run.folder}', and '{run.student}' holds no "
                                 'connectors')
        else:
            found.missing.append(f"there is no checkpoint in '{run.folder}'")
        return found

    @cached_property
    def predicted(self) -> tuple[dict[str, list], list[str]]:
        """``{who: data samples}``, and why somebody is not among them."""
        found, missing = {}, []
        who = {}
        if self.distils:
            who['teacher'] = lambda: teacher_of(self._distiller[0], self.run.config.model.get('teacher_ckpt'))
        if self.alone is not None:
            who['student alone'] = partial(alone, self.alone.config, self.alone.checkpoint or self.alone.student,
                                           str(self.alone.folder))
        who['student taught' if self.distils else 'student'] = partial(
            alone, self.run.config, self.run.checkpoint or self.run.student, str(self.run.folder))
        for name, make in who.items():
            try:
                found[name] = predict(make(), self.pictures, f'the {name}')
            except (LeftOut, ConfigError) as error:
                missing.append(f'{name}: {error}')
        if self.distils and self.alone is None:
            missing.append('student alone: no run of it was given (--alone WORK_DIR)')
        if not found:
            raise LeftOut('; '.join(missing))
        return found, missing

    @cached_property
    def judged(self) -> dict[str, tuple[np.ndarray, float, np.ndarray]]:
        """:func:`per_class` of each that predicts."""
        return {who: per_class(samples, self.pictures) for who, samples in self.predicted[0].items()}

    # ---- the sections ----

    def head(self) -> str:
        run, config = self.run, self.run.config
        model, end = config.model, config.get('train_cfg', {})
        text = []
        if self.distils:
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
            if run.metric in self.teacher:
                text.append(f'The teacher scores {scaled(run.metric, self.teacher[run.metric]):.2f} there.')
            if self.alone is not None and (other := self.alone.curve(run.metric)):
                text.append(f'The same student alone ended with {other[-1][1]:.2f} ({unit} {other[-1][0]}).')
        else:
            text.append('Nothing was scored on the way.')
        made = [f'python tools/train.py {run.config_file} --work-dir NEW{_as_it_was(run)}    # the run again']
        if run.checkpoint and (config.get('test_dataloader') or {}).get('dataset'):
            made.append(f'python tools/test.py {run.config_file} {run.checkpoint}    # its score on the test split')
        made += [f'{self.command}    # this page'] * bool(self.command)
        tested = ''
        if self.tested:
            tested = '<h3>On the test split, last epoch</h3>' + page.table(
                ['', shown(run.metric or '')], [(who, f'{score:.2f}') for who, score in self.tested.items()])
        return page.paragraph(' '.join(text)) + page.commands(made) + tested

    def curves(self) -> str:
        run = self.run
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
        figures.append(self._validation())
        return page.charts(figures)

    def _validation(self) -> str:
        run, metric = self.run, self.run.metric
        if metric is None:
            return page.left_out('validation scores: the log has none')
        curves, styles, levels, notes = {}, {}, {}, []
        if self.alone is not None and (other := self.alone.curve(metric)):
            curves['student alone'] = other
            styles['student alone'] = dict(color=charts.BEFORE)
        own = 'student taught' if self.distils else 'student'
        curves[own] = run.curve(metric)
        styles[own] = dict(color=charts.AFTER)
        if metric in self.teacher:
            levels['teacher'] = scaled(metric, self.teacher[metric])
        elif self.distils and metric in METRICS:
            try:
                count, split = len(self.pictures), self.pictures.split
                levels[f'teacher, {count} of {len(self.pictures.dataset)} pictures'] = self.judged['teacher'][1]
                notes.append(f'Nobody scored the teacher on the whole split; its line is measured here, on {count} of '
                             f'its {len(self.pictures.dataset)} pictures, '
                             f'of which this student has {self.judged[own][1]:.2f}.')
                notes += ['They are of the test split.'] * (split == 'test')
            except (LeftOut, ConfigError, KeyError):
                notes.append("The teacher's score is not known.")
        if self.distils and self.alone is None:
            notes.append('No run of the student alone was given (--alone WORK_DIR).')
        label = 'epoch' if run.by_epoch else 'iteration'
        return page.chart(charts.lines(curves, label, shown(metric), styles=styles, levels=levels),
                          ' '.join([f'{shown(metric)} on the validation split.', *notes]))

    def gradients(self) -> str:
        found = self.measured
        if not found.terms:
            raise LeftOut('; '.join(found.missing))
        shares = {f'{when} training': gradient_shares(reports) for when, reports in found.terms.items()}
        rows = [(r.name, when, *(f'{r.losses.get(term, math.nan):.3g}' for term in self._term_names()),
                 f'{r.cosine:+.2f}') for when, reports in found.terms.items() for r in reports]
        scored = [pair.name for pair in self._pairs() if pair.student_stage.is_scores]
        note = f' The terms on class scores ({", ".join(scored)}) are not among them.' if scored else ''
        return page.charts([page.chart(
            charts.paired_bars({name: {key: 100 * value for key, value in by_term.items()}
                                for name, by_term in shares.items()}, 'share of the sum of all norms (%)'),
            'The norm of the gradient of each weighted term in the weights of the student, as a share of the sum of '
            f'these norms; task: all of its own losses together. {self._of_pictures()}, in train mode.{note}')
        ]) + page.table(['pair', 'training', *(f'{term} loss' for term in self._term_names()),
                         "cosine of its terms' gradient with the task's"], rows) + self._missing()

    def similarity(self) -> str:
        found = self.measured
        titles = {BEFORE: 'before training', AFTER: 'after training'}
        caption = {
            BEFORE: 'Linear CKA of each stage of the student as it was before training (rows, shallow at the top) with '
                    "each of the teacher's (columns, shallow at the left). Red frames: the pairs that are distilled.",
            AFTER: 'The same of the trained student. What distillation aligns has higher values in the frames than '
                   'before.'}
        formula = ('CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with linear kernels K = X Xᵀ of the pictures '
                   '(Kornblith et al. 2019, arXiv 1905.00414) and the unbiased estimator of HSIC (Song et al. 2012; '
                   'Nguyen et al. 2021, arXiv 2010.15327): 1 for maps that are equal up to rotation and scale, about 0 '
                   f'for unrelated ones. Samples are the {len(self.pictures)} pictures, features whole maps, pooled to '
                   f'at most {GRID} x {GRID} cells.')
        return page.charts(page.chart(charts.heat_map(table, *found.stages, found.paired, titles[when]), caption[when])
                           for when, table in found.cka.items()) + page.paragraph(formula) + self._missing()

    def bands(self) -> str:
        figures = []
        for by_when in self._maps_by_pair():
            maps = next(iter(by_when.values()))
            series = {'teacher': band_energies(maps.teacher, maps.levels, maps.wavelet)}
            series |= {f'student {when}': band_energies(own.student, own.levels, own.wavelet)
                       for when, own in by_when.items()}
            figures.append(page.chart(
                charts.bands(series, maps.pair.name),
                f'{_linked(maps.pair)}: what each band ({maps.wavelet}, {maps.levels} '
                f'level{"s" * (maps.levels > 1)}) adds to the mean square of the map.'))
        return page.paragraph(
            "Maps as the connector gives them: the teacher's, and the student's on the same grid and in the same "
            f'channels{_standardised(self._pairs())}. LL is the low band, LH, HL and HH the details along the height, '
            'along the width and along both; level 1 is the finest. A student whose bars are those of the teacher has '
            'its energy at the same scales; whether it is in the same places, the next section tells. '
            f'{self._of_pictures()}.'
        ) + page.charts(figures) + self._missing()

    def spectra(self) -> str:
        figures, rows = [], []
        for by_when in self._maps_by_pair():
            maps = next(iter(by_when.values()))
            curves = {'teacher': radial_spectrum(maps.teacher)}
            curves |= {f'residual {when}': radial_spectrum(own.teacher - _compared(own))
                       for when, own in by_when.items()}
            gain = partial(gaussian_gain, sigma=maps.sigma) if maps.sigma and math.isfinite(maps.sigma) else None
            figures.append(page.chart(
                charts.spectrum({name: found[:2] for name, found in curves.items()}, gain, maps.pair.name),
                f"{_linked(maps.pair)}: power of the teacher's map and of teacher minus student, mean over pictures, "
                'channels and directions.' + (
                    f' Shaded: the share of the power that the Gaussian (sigma {maps.sigma:g}) keeps.' if gain else
                    ' No Gaussian: this method has no frequency loss here.')))
            whole = float((curves['teacher'][1] * curves['teacher'][2]).sum())
            rows += [(maps.pair.name, name.removeprefix('residual '),
                      f'{float((power * count).sum()) / whole:.3f}', *([] if gain is None else [
                          f'{float((power * count * gain(radius)).sum() / (power * count).sum()):.1%}']))
                     for name, (radius, power, count) in curves.items()]
        header = ['pair', 'of what', 'energy, teacher = 1', 'of it the Gaussian keeps']
        width = max(map(len, rows))
        return page.paragraph(
            'The residual is teacher minus student: what is left to learn. Where its curve lies as high as the '
            "teacher's, or higher, nothing of that frequency is learned; after training it should lie lower, most of "
            f'all where the Gaussian lets the frequency loss see it. {self._of_pictures()}.'
        ) + page.charts(figures) + page.table(
            header[:width], [(*row, *[''] * (width - len(row))) for row in rows]) + self._missing()

    def maps(self) -> str:
        found = self._maps_by_pair()
        chosen = shown_pair([next(iter(by_when.values())).pair for by_when in found])
        by_when = next(by_when for by_when in found if next(iter(by_when.values())).pair is chosen)
        last = by_when.get(AFTER) or by_when[BEFORE]
        axis = charts.main_axis(last.teacher)
        planes = {'teacher': charts.along(last.teacher, axis)}
        planes |= {f'student {when}': charts.along(own.student, axis) for when, own in by_when.items()}
        latest = 'student after' if AFTER in by_when else 'student before'
        if last.refined is not None:
            planes[f'{latest}, refined by DS2S'] = charts.along(last.refined, axis)
            planes['what DS2S changed'] = planes[f'{latest}, refined by DS2S'] - planes[latest]
        limit = float(planes['teacher'].abs().quantile(0.99))
        limits = charts.band_limits(planes['teacher'], last.levels, last.wavelet)
        filtered = {}
        if last.sigma and math.isfinite(last.sigma):
            filtered = {who: charts.smoothed(planes[who], last.sigma) for who in ('teacher', latest)}
            filtered['teacher minus student'] = filtered['teacher'] - filtered[latest]
        rows = []
        for i in _spread(len(self.measured.positions), MAPPED):
            item = self.pictures.items[self.measured.positions[i]]
            rows.append(page.tiles([
                page.photo(picture(item['inputs']), 'the picture'),
                *(page.map_tile(charts.signed(plane[i], limit), who) for who, plane in planes.items()),
                *(page.map_tile(charts.mosaic(plane[i], last.levels, last.wavelet, limits), f'{who}: bands')
                  for who, plane in planes.items() if who in ('teacher', latest, f'{latest}, refined by DS2S')),
                *(page.map_tile(charts.signed(plane[i], limit), f'{who}: what the Gaussian keeps')
                  for who, plane in filtered.items())]))
        return page.paragraph(
            f'The pair {chosen.name} ({_linked(chosen)}), three pictures: maps of many channels seen along the first '
            "principal component of the teacher's, for both networks; blue is below 0, red above, and one scale holds "
            'for all maps. In the mosaics of bands the low band is in the upper left corner, LH (along the height) '
            'below it, HL (along the width) to its right, HH across, coarse levels within the upper left quarter; each '
            'band has a scale of its own, the same for both networks.'
        ) + ''.join(rows) + self._missing()

    def predictions(self) -> str:
        found, missing = self.predicted
        kind = kind_of(next(iter(found.values())))
        names = self.pictures.classes
        count = min(len(self.pictures), 14 if kind == 'pred_label' else 6)
        chosen = _spread(len(self.pictures), count)
        make = dict(pred_label=_labelled, pred_instances=_drawn, pred_sem_seg=_drawn)[kind]
        text = f'{count} pictures of the {self.pictures.split} split, evenly spread. ' + dict(
            pred_label='Beneath each: its class, and what each network takes for the likeliest class, with its score; '
                       'a cross marks what is wrong.',
            pred_instances=f'A row a picture: the truth, then what each network finds. Boxes of a score of {SCORE} or '
                           'more are drawn, with class and score.',
            pred_sem_seg='A row a picture: the truth, then what each network sees, each class in its colour '
                         'over the picture in grey.')[kind]
        body = make(self.pictures, chosen, found, names)
        return page.paragraph(text) + body + ''.join(map(page.left_out, missing))

    def classes(self) -> str:
        judged, (found, _) = self.judged, self.predicted
        kind = kind_of(next(iter(found.values())))
        counts = next(iter(judged.values()))[2]
        unit = dict(pred_label='pictures', pred_instances='boxes', pred_sem_seg='pixels')[kind]
        names = self.pictures.classes or [str(i) for i in range(len(counts))]
        rows = [(names[i], f'{counts[i]:,}', *('' if np.isnan(each[i]) else f'{each[i]:.1f}' for each, _, _ in
                                               judged.values())) for i in range(len(counts)) if counts[i]]
        rows.append(('all' if kind == 'pred_label' else 'mean', f'{counts.sum():,}',
                     *(f'{whole:.2f}' for _, whole, _ in judged.values())))
        how = dict(pred_label='Share of the pictures of a class that are given it.',
                   pred_instances='Average precision by pycocotools, mean over IoU thresholds 0.50 to 0.95.',
                   pred_sem_seg='Intersection over union of the pixels.')[kind]
        rough = ' So few are a rough measure of a class; more: --pictures N.'
        rough *= len(self.pictures) < len(self.pictures.dataset)
        return page.paragraph(
            f'{KINDS[kind][0].upper()}{KINDS[kind][1:]} by class on {len(self.pictures)} of the '
            f'{len(self.pictures.dataset)} pictures of the {self.pictures.split} split. {how}{rough}'
        ) + page.table(['class', unit, *judged], rows)

    # ---- what sections share ----

    def _pairs(self) -> Sequence[Pair]:
        return self._distiller[0].distillation.pairs

    def _term_names(self) -> list[str]:
        found = self.measured.terms.values()
        return list(dict.fromkeys(term for reports in found for report in reports for term in report.losses))

    def _maps_by_pair(self) -> list[dict[str, PairMaps]]:
        """``{when: maps}`` of each pair."""
        found = self.measured.maps
        if not found:
            raise LeftOut('; '.join(self.measured.missing))
        if not any(found.values()):
            raise LeftOut('this method compares no maps of one shape')
        return [dict(zip(found, of_pair)) for of_pair in zip(*found.values())]

    def _of_pictures(self) -> str:
        return f'On {len(self.measured.positions)} pictures of the {self.pictures.split} split'

    def _missing(self) -> str:
        return ''.join(map(page.left_out, self.measured.missing))


def _made(make: Callable[[], str]) -> str:
    try:
        return make()
    except LeftOut as reason:
        return page.left_out(str(reason))
    except ConfigError as error:
        return page.left_out(' '.join(error.problems))


def _spread(total: int, count: int) -> list[int]:
    """So many of a number of positions, evenly spread."""
    return np.linspace(0, total - 1, min(count, total)).astype(int).tolist()


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


def _linked(pair: Pair) -> str:
    return f'{pair.student_path} taught by {pair.teacher_path}'


def _standardised(pairs: Sequence[Pair]) -> str:
    sides = [getattr(getattr(pair.connector, 'align', pair.connector), 'standardised', False) for pair in pairs]
    return ', standardised, so that the bars of one colour sum to 1' if all(sides) else ''


def _compared(maps: PairMaps) -> Tensor:
    """The student's side of the frequency loss."""
    return maps.student if maps.refined is None else maps.refined


def _labelled(pictures: Pictures, chosen: Sequence[int], found: dict[str, list], names: Sequence[str]) -> str:
    tiles = []
    for i in chosen:
        item = pictures.items[i]
        image, truth = annotate(picture(item['inputs']), item['data_samples'], names, SIDE // 2)
        lines = [f'<b>{page.escaped(truth)}</b>']
        for who, samples in found.items():
            label = int(samples[i].pred_label)
            name = names[label] if label < len(names) else str(label)
            wrong = '' if name == truth else ' ✗'
            lines.append(page.escaped(f'{who}: {name} ({float(samples[i].pred_score[label]):.2f}){wrong}'))
        tiles.append(page.photo(image, truth, '<br>'.join(lines)))
    return page.tiles(tiles, 'middle')


def _drawn(pictures: Pictures, chosen: Sequence[int], found: dict[str, list], names: Sequence[str]) -> str:
    rows, seen, palette = [], set(), pictures.dataset.metainfo.get('palette')
    maps = 'pred_sem_seg' in next(iter(found.values()))[0]
    for i in chosen:
        image = picture(pictures.items[i]['inputs'])
        if maps:  # in grey, on which a class's colour is that of the legend
            image = np.repeat(image.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
        shown_samples = {'truth': pictures.item(i)['data_samples'], **{who: as_truth(samples[i].clone(), SCORE)
                                                          for who, samples in found.items()}}
        tiles = []
        for who, sample in shown_samples.items():
            drawn, _ = annotate(image.copy(), sample, names, SIDE, palette)
            if maps:
                seen |= {*coloured(sample, names)}
            tiles.append(page.photo(drawn, who))
        rows.append(page.tiles(tiles, 'wide'))
    legend = ''
    if maps:
        colours = label_colours(np.arange(len(names))[None], palette)[0].tolist()
        legend = '<p>' + ''.join(
            f'<span class="swatch" style="background: rgb{tuple(colour)}"></span>{page.escaped(name)}'
            for label, (name, colour) in enumerate(zip(names, colours)) if label in seen) + '</p>'
    return legend + ''.join(rows)
