"""What the networks predict, and how right it is."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...datasets.digits_wild import label_colours
from ..drawing import annotate, as_truth, coloured, picture
from . import page
from .pictures import Pictures, evenly
from .predictions import KINDS, kind_of
from .subject import Subject

SIDE = 320  # pixels of the longer side of a picture with predictions
SCORE = 0.3  # of boxes that are drawn


def predictions(subject: Subject) -> str:
    """Some pictures, with the truth and what each network takes for it."""
    found, missing = subject.predicted
    kind = kind_of(next(iter(found.values())))
    names = subject.pictures.classes
    count = min(len(subject.pictures), 14 if kind == 'pred_label' else 6)
    chosen = evenly(len(subject.pictures), count)
    make = dict(pred_label=_labelled, pred_instances=_drawn, pred_sem_seg=_drawn)[kind]
    text = f'{count} pictures of the {subject.pictures.split} split, evenly spread. ' + dict(
        pred_label='Beneath each: its class, and what each network takes for the likeliest class, with its score; '
                   'a cross marks what is wrong.',
        pred_instances=f'A row a picture: the truth, then what each network finds. Boxes of a score of {SCORE} or '
                       'more are drawn, with class and score.',
        pred_sem_seg='A row a picture: the truth, then what each network sees, each class in its colour '
                     'over the picture in grey.')[kind]
    body = make(subject.pictures, chosen, found, names)
    return page.paragraph(text) + body + ''.join(map(page.left_out, missing))


def classes(subject: Subject) -> str:
    """How right each network is, by class."""
    judged, (found, _) = subject.judged, subject.predicted
    kind = kind_of(next(iter(found.values())))
    counts = next(iter(judged.values()))[2]
    unit = dict(pred_label='pictures', pred_instances='boxes', pred_sem_seg='pixels')[kind]
    names = subject.pictures.classes or [str(i) for i in range(len(counts))]
    rows = [(names[i], f'{counts[i]:,}', *('' if np.isnan(each[i]) else f'{each[i]:.1f}' for each, _, _ in
                                           judged.values())) for i in range(len(counts)) if counts[i]]
    rows.append(('all' if kind == 'pred_label' else 'mean', f'{counts.sum():,}',
                 *(f'{whole:.2f}' for _, whole, _ in judged.values())))
    how = dict(pred_label='Share of the pictures of a class that are given it.',
               pred_instances='Average precision by pycocotools, mean over IoU thresholds 0.50 to 0.95.',
               pred_sem_seg='Intersection over union of the pixels.')[kind]
    rough = ' So few are a rough measure of a class; more: --pictures N.'
    rough *= len(subject.pictures) < len(subject.pictures.dataset)
    return page.paragraph(
        f'{KINDS[kind][0].upper()}{KINDS[kind][1:]} by class on {len(subject.pictures)} of the '
        f'{len(subject.pictures.dataset)} pictures of the {subject.pictures.split} split. {how}{rough}'
    ) + page.table(['class', unit, *judged], rows)


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
        samples = {'truth': pictures.item(i)['data_samples'],
                   **{who: as_truth(predicted[i].clone(), SCORE) for who, predicted in found.items()}}
        tiles = []
        for who, sample in samples.items():
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
