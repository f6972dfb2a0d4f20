"""The report of a comparison, of the rows of tools/compare.py, as one page of HTML."""
from __future__ import annotations

from pathlib import Path

from ...errors import ConfigError
from ..comparison import ALONE, cells_of, differences, read_rows
from ..intervals import interval, spread
from ..runs import HOW, shown
from . import charts, page


def comparison(file: Path, command: str = '') -> str:
    """The page of a rows file of tools/compare.py.

    Args:
        file: JSON lines.
        command: that makes this page again.

    Raises:
        ConfigError: if a line is no such row.
    """
    rows = read_rows(file, 'RUN', HOW)
    if not rows:
        raise ConfigError(f"RUN: '{file}' is empty; {HOW}")
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row['pair'], row['split'], row['epochs'], row['metric']), []).append(row)
    sections = []
    for i, ((pair, split, epochs, metric), of_group) in enumerate(groups.items()):
        methods = cells_of(of_group)[pair]
        table = [(method, len(seeds), spread(list(seeds.values())),
                  interval(paired) if method != ALONE and (paired := differences(methods, method, ALONE)) else '')
                 for method, seeds in methods.items()]
        sections.append((f'pair{i}', f'{pair}, {epochs} epochs', page.charts([page.chart(
            charts.dots({method: list(seeds.values()) for method, seeds in methods.items()}, shown(metric), pair),
            f'{shown(metric)} on the {split} split: a dot a seed, a bar their mean, the best method at the top. Blue: '
            'SFKD and its variants; orange: the student alone. Long names are cut off; the table has the same '
            'order.')]) + page.table(
                ['method', 'seeds', f'{shown(metric)}, mean ± sd', 'minus alone, by seed, 95% interval'], table)))
    seconds = sum(row.get('seconds', 0) for row in rows)
    commits = ', '.join(sorted({str(row['commit']) for row in rows if row.get('commit')})) or 'unknown'
    head = page.paragraph(
        f'{len(rows)} trainings of {len({row["pair"] for row in rows})} pairs by '
        f'{len({row["method"] for row in rows})} methods, {seconds:,} s in all as the rows have it, at the commits '
        f'{commits}. The rows hold scores alone: curves, CKA, bands and predictions are in the report of a single run.')
    task = rows[0].get('task', 'cls')
    made = [f'python tools/compare.py --task {task} --results NEW.jsonl    # trainings again',
            f'python tools/compare.py --task {task} --results {file} --tables-only    # the tables']
    made += [f'{command}    # this page'] * bool(command)
    return page.document(f'Report of {file.name}', head + page.commands(made), sections)
