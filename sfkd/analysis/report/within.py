"""What goes on within student and teacher, before and after the training."""
from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ...distillation.pair import Pair
from ...labelfree.drawing import shown_pair
from ..drawing import picture
from ..spectra import band_energies, gaussian_gain, radial_spectrum
from . import charts, page
from .examination import GRID, PairMaps, gradient_shares
from .pictures import LeftOut, evenly
from .subject import AFTER, BEFORE, Subject

MAPPED = 3  # pictures whose maps are shown


def gradients(subject: Subject) -> str:
    """What each term asks of the student."""
    found = subject.within
    if not any(found.terms.values()):
        raise LeftOut('; '.join(found.missing) or 'only class scores are taught, and a gradient is shown of the terms '
                      'on maps')
    shares = {f'{when} training': gradient_shares(reports) for when, reports in found.terms.items()}
    rows = [(r.name, when, *(f'{r.losses.get(term, math.nan):.3g}' for term in found.term_names),
             f'{r.cosine:+.2f}') for when, reports in found.terms.items() for r in reports]
    scored = [pair.name for pair in subject.pairs if pair.student_stage.is_scores]
    note = f' The terms on class scores ({", ".join(scored)}) are not among them.' if scored else ''
    return page.charts([page.chart(
        charts.paired_bars({name: {key: 100 * value for key, value in by_term.items()}
                            for name, by_term in shares.items()}, 'share of the sum of all norms (%)'),
        'The norm of the gradient of each weighted term in the weights of the student, as a share of the sum of '
        f'these norms; task: all of its own losses together. {_of_pictures(subject)}, in train mode.{note}')
    ]) + page.table(['pair', 'training', *(f'{term} loss' for term in found.term_names),
                     "cosine of its terms' gradient with the task's"], rows) + _missing(subject)


def similarity(subject: Subject) -> str:
    """How alike the stages of both networks are."""
    found = subject.within
    titles = {BEFORE: 'before training', AFTER: 'after training'}
    caption = {
        BEFORE: 'Linear CKA of each stage of the student as it was before training (rows, shallow at the top) with '
                "each of the teacher's (columns, shallow at the left). Red frames: the pairs that are distilled.",
        AFTER: 'The same of the trained student. What distillation aligns has higher values in the frames than '
               'before.'}
    formula = ('CKA(K, L) = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with linear kernels K = X Xᵀ of the pictures '
               '(Kornblith et al. 2019, arXiv 1905.00414) and the unbiased estimator of HSIC (Song et al. 2012; '
               'Nguyen et al. 2021, arXiv 2010.15327): 1 for maps that are equal up to rotation and scale, about 0 '
               f'for unrelated ones. Samples are the {len(subject.pictures)} pictures, features whole maps, pooled to '
               f'at most {GRID} x {GRID} cells.')
    return page.charts(page.chart(charts.heat_map(table, *found.stages, found.paired, titles[when]), caption[when])
                       for when, table in found.cka.items()) + page.paragraph(formula) + _missing(subject)


def bands(subject: Subject) -> str:
    """Energy by wavelet band."""
    figures = []
    for by_when in subject.within.maps_by_pair():
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
        f'channels{_standardised(subject.pairs)}. LL is the low band, LH, HL and HH the details along the height, '
        'along the width and along both; level 1 is the finest. A student whose bars are those of the teacher has '
        'its energy at the same scales; whether it is in the same places, the next section tells. '
        f'{_of_pictures(subject)}.'
    ) + page.charts(figures) + _missing(subject)


def spectra(subject: Subject) -> str:
    """The spectrum of what the student misses."""
    figures, rows = [], []
    for by_when in subject.within.maps_by_pair():
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
        f'all where the Gaussian lets the frequency loss see it. {_of_pictures(subject)}.'
    ) + page.charts(figures) + page.table(
        header[:width], [(*row, *[''] * (width - len(row))) for row in rows]) + _missing(subject)


def maps(subject: Subject) -> str:
    """Maps and sub-bands side by side."""
    found = subject.within.maps_by_pair()
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
    for i in evenly(len(subject.within.positions), MAPPED):
        item = subject.pictures.items[subject.within.positions[i]]
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
    ) + ''.join(rows) + _missing(subject)


def _of_pictures(subject: Subject) -> str:
    return f'On {len(subject.within.positions)} pictures of the {subject.pictures.split} split'


def _missing(subject: Subject) -> str:
    return ''.join(map(page.left_out, subject.within.missing))


def _linked(pair: Pair) -> str:
    return f'{pair.student_path} taught by {pair.teacher_path}'


def _standardised(pairs: Sequence[Pair]) -> str:
    sides = [getattr(getattr(pair.connector, 'align', pair.connector), 'standardised', False) for pair in pairs]
    return ', standardised, so that the bars of one colour sum to 1' if all(sides) else ''


def _compared(maps: PairMaps) -> Tensor:
    """The student's side of the frequency loss."""
    return maps.student if maps.refined is None else maps.refined
