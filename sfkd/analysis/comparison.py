"""What the rows of tools/compare.py say: means, differences paired by seed, ranks, parts, and a picture of gains.

A row is a dict of a ``task``, ``pair``, ``method``, ``seed``, ``metric`` and its ``value``, and more.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from ..errors import ConfigError
from .intervals import interval, spread
from .runs import scaled, shown

#: The student without a teacher, over which gains are measured.
ALONE = 'alone'
#: Options of methods: how much their losses on logits count, and which these are.
_LOGIT_WEIGHTS = 'logits.0.weight', 'logit_weight'
_LOGIT_LOSSES = 'logits.0.type', 'logit_loss'


def read_rows(file: Path, where: str, how: str = 'give a file that this tool has written') -> list[dict]:
    """The rows in a file of JSON lines.

    Args:
        file: is there.
        where: the argument that named it.
        how: what to do instead, for the message.

    Raises:
        ConfigError: if a line is no such row.
    """
    rows = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            rows.append(dict(row, **{key: row[key] for key in ('metric', 'pair', 'method', 'seed', 'split', 'epochs')},
                             value=float(row['value'])))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where}: line {number} of '{file}' is no row of tools/compare.py "
                              f'({type(error).__name__}: {error}); {how}') from error
    return rows


def percent(row: dict) -> float:
    """The value of a row as it is shown."""
    return scaled(row['metric'], row['value'])


def cells_of(rows: Iterable[dict]) -> dict[str, dict[str, dict[int, float]]]:
    """``{pair: {method: {seed: value in %}}}``, methods from best to worst."""
    cells: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        cells.setdefault(row['pair'], {}).setdefault(row['method'], {})[row['seed']] = percent(row)
    return {pair: dict(sorted(methods.items(), key=lambda item: -mean(item[1].values())))
            for pair, methods in cells.items()}


def differences(methods: dict[str, dict[int, float]], method: str, other: str) -> list[float]:
    """One method of a pair minus another, by seed, of the seeds that both have."""
    of, minus = (methods.get(name, {}) for name in (method, other))
    return [value - minus[seed] for seed, value in of.items() if seed in minus]


def table(rows: Sequence[dict], baselines: Sequence[str]) -> str:
    """Markdown: mean ± standard deviation over seeds, and the paired difference to each baseline that has rows, with
    its 95% interval.
    """
    there = {row['method'] for row in rows}
    baselines = [name for name in baselines if name in there]
    measures = sorted({shown(row['metric']) for row in rows})
    lines = [f'| pair | method | seeds | {" / ".join(measures)}, mean ± sd | '
             + ' | '.join(f'minus {b}' for b in baselines) + ' |', '|' + '---|' * (4 + len(baselines))]
    for pair, methods in cells_of(rows).items():
        for method, by_seed in methods.items():
            minus = [differences(methods, method, other) if method != other else [] for other in baselines]
            lines.append(f'| {pair} | {method} | {len(by_seed)} | {spread(list(by_seed.values()))} | '
                         f'{" | ".join(interval(values) if values else "" for values in minus)} |')
    return '\n'.join(lines)


def ranks(rows: Sequence[dict]) -> str:
    """Markdown: mean ± standard deviation and, of the methods that every pair has, the rank on each pair, the mean
    rank, and over all runs what the first of that differs by from each, with its 95% interval; all of the seeds that
    these methods have in common there. Methods that are level share the mean of their places.
    """
    cells = cells_of(rows)
    common = set.intersection(*(set(methods) for methods in cells.values())) if cells else set()
    if not common:
        return ''
    values: dict[str, dict[str, list[float]]] = {}
    fewer = []
    for pair, methods in cells.items():
        seeds = set.intersection(*(set(methods[method]) for method in common))
        if not seeds:
            return f'No ranks: on {pair} the methods have no seed in common.'
        if any(set(methods[method]) != seeds for method in common):
            fewer.append(f'{pair}: seeds {" ".join(map(str, sorted(seeds)))}')
        values[pair] = {method: [methods[method][seed] for seed in sorted(seeds)] for method in common}
    place = {pair: places({method: mean(of) for method, of in by_method.items()}) for pair, by_method in values.items()}
    rank = {method: mean(ranking[method] for ranking in place.values()) for method in common}
    order = sorted(common, key=lambda method: (rank[method], method))
    runs = {method: [value for pair in place for value in values[pair][method]] for method in order}

    def line(method):
        on_pairs = ' | '.join(f'{spread(values[pair][method])} ({place[pair][method]:g})' for pair in place)
        behind = interval([a - b for a, b in zip(runs[order[0]], runs[method])]) if method != order[0] else ''
        return f'| {method} | {on_pairs} | {rank[method]:.2f} | {behind} |'
    lines = [f'| method | {" | ".join(place)} | mean rank | the first minus it, {len(runs[order[0]])} runs |',
             '|' + '---|' * (len(place) + 3), *map(line, order)]
    return '\n'.join(lines + (['', f'Ranked by the seeds that all of them have: {"; ".join(fewer)}.'] if fewer else []))


def places(scores: dict[str, float]) -> dict[str, float]:
    """Method -> its place, 1 the highest score; of those that are level the mean of their places."""
    return {method: sum(other > score for other in scores.values())
            + (sum(other == score for other in scores.values()) + 1) / 2 for method, score in scores.items()}


def parts(rows: Sequence[dict], of_parts: dict[str, tuple[str, str]]) -> str:
    """Markdown: what each part of SFKD brings, in differences paired by seed with their 95% intervals: on each pair,
    and over all runs. Nothing of a part that no pair has with and without it.

    Args:
        rows: of one task.
        of_parts: part -> the method that has it and the one that lacks it.
    """
    cells = cells_of(rows)
    found = {part: {pair: differences(methods, has, lacks) for pair, methods in cells.items()}
             for part, (has, lacks) in of_parts.items()}
    lines = [f'| part | {" | ".join(cells)} | all runs |', '|' + '---|' * (len(cells) + 2)]
    for part, by_pair in found.items():
        runs = [value for values in by_pair.values() for value in values]
        if not runs:
            continue
        lines.append(f'| {part} | ' + ' | '.join(
            f'{interval(values)} ({len(values)})' if values else '' for values in
            (*by_pair.values(), runs)) + ' |')
    return '\n'.join(lines) if len(lines) > 2 else ''


def label(method: str) -> str:
    """A method's name for a picture, of its weights the numbers alone and of a loss on logits the capitals:
    ``sfkd 0.625, 0.625, logits 5, CWD``.
    """
    name, *options = method.split('+')

    def said(key: str, value: str) -> str:
        if key in _LOGIT_LOSSES:
            return ''.join(filter(str.isupper, value)) or value
        if key.endswith('weight'):
            return f'{"logits " * (key in _LOGIT_WEIGHTS)}{float(value):g}'
        return f'{key.rpartition(".")[2]}={value}'
    return f'{name} {", ".join(said(*option.split("=", 1)) for option in options)}'.rstrip()


def title(pair: str, task: str) -> str:
    """A pair's name for a picture, without the words of its task: ``mit to resnet8``."""
    words = pair.split('_')
    while len(words) > 1 and words[0] in task.split('_'):
        del words[0]
    return '_'.join(words).replace('_to_', ' to ')


def draw_gains(rows: Sequence[dict], file: Path) -> None:
    """Draw a panel a pair: what each method adds to the student alone, each seed as a dot and their mean as a bar.

    Raises:
        ConfigError: if no row is of the student alone.
    """
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    cells = {pair: methods for pair, methods in cells_of(rows).items() if ALONE in methods}
    if not cells:
        raise ConfigError(f"'{file}': the picture is of gains over the student alone, and no row is of it; add alone "
                          'to --methods')
    a_row = {row['pair']: row for row in rows}
    gains = {pair: {method: differences(methods, method, ALONE) for method in methods}
             for pair, methods in cells.items()}
    # the best on top: by how far each is behind the first of a pair, in the mean over the pairs that have it
    first = {pair: max(mean(of) for of in methods.values() if of) for pair, methods in gains.items()}
    named = sorted({method for methods in gains.values() for method in methods if methods[method]} - {ALONE})
    order = sorted(named, key=lambda method: mean(mean(methods[method]) - first[pair]
                                                  for pair, methods in gains.items() if methods.get(method)))
    figure, axes = plt.subplots(1, len(gains), figsize=(2.5 + 2.8 * len(gains), 1.2 + 0.25 * len(order)),
                                layout='constrained', squeeze=False, sharey=True)
    for axis, (pair, methods) in zip(axes[0], gains.items()):
        axis.axvline(0, color='black', linewidth=1)
        for i, method in enumerate(order):
            if of_seeds := methods.get(method):
                colour = 'tab:red' if method.startswith('sfkd') else 'tab:blue'
                axis.plot(of_seeds, [i] * len(of_seeds), '.', color=colour, alpha=0.5)
                axis.plot(mean(of_seeds), i, '|', color=colour, markersize=12, markeredgewidth=2)
        alone = mean(cells[pair][ALONE].values())
        measure = shown(a_row[pair]['metric']).removesuffix(' (%)')
        axis.set(title=title(pair, a_row[pair]['task']), yticks=range(len(order)),
                 yticklabels=[label(method) for method in order],
                 xlabel=f'points of {measure} over\nthe student alone ({alone:.1f}%)')
        axis.grid(alpha=0.3)
    figure.savefig(file, dpi=120)
