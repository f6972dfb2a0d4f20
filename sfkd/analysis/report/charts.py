"""The charts of a report, as SVG, and its pictures of feature maps, as arrays."""
from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogFormatter
from torch import Tensor

from ...ops import dwt2, gaussian_transfer

BLUE, ORANGE, GREY = '#1f77b4', '#e6770b', '#777777'
#: Of a student before training and after, and of the teacher.
BEFORE, AFTER, TEACHER = ORANGE, BLUE, GREY
MOSAIC = 160  # pixels
LINE = (90, 90, 90)  # between bands
LABEL = 24  # characters of a method's name


def svg(draw: Callable, width: float = 4.8, height: float = 3.4) -> bytes:
    """A chart.

    Args:
        draw: ``draw(figure, axes)``.
        width, height: in inches of 72 units each.
    """
    with matplotlib.rc_context({'font.size': 9, 'axes.titlesize': 10, 'legend.fontsize': 8, 'axes.grid': True,
                                'grid.alpha': 0.3, 'axes.spines.top': False, 'axes.spines.right': False,
                                'svg.hashsalt': 'sfkd'}):
        figure = Figure(figsize=(width, height), layout='constrained')
        draw(figure, figure.subplots())
        file = io.BytesIO()
        figure.savefig(file, format='svg', transparent=True, metadata=dict(Date=None))
    return file.getvalue()


def lines(curves: dict[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str, log: bool = False,
          styles: dict[str, dict] | None = None, levels: dict[str, float] | None = None) -> bytes:
    """Curves.

    Args:
        curves: ``{name: [(x, y)]}``.
        xlabel, ylabel: of the axes.
        log: whether y is logarithmic.
        styles: of some curves, options of ``plot``.
        levels: ``{name: y}`` of dashed lines over the whole width.
    """
    def draw(figure, axes):
        for name, points in curves.items():
            style = dict(dict(marker='.' if len(points) < 25 else None, label=name), **(styles or {}).get(name, {}))
            axes.plot(*zip(*points), **style)
        for name, y in (levels or {}).items():
            axes.axhline(y, color=GREY, linestyle='--', label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            _logarithmic(axes)
        if all(float(x).is_integer() for points in curves.values() for x, _ in points):
            axes.xaxis.get_major_locator().set_params(integer=True)
        if len(curves) + len(levels or {}) > 4:  # there is no room among them
            axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=2)
        else:
            axes.legend()
    return svg(draw, height=3.4 + 0.09 * max(0, len(curves) - 4))


def paired_bars(values: dict[str, dict[str, float]], xlabel: str) -> bytes:
    """Horizontal bars in groups.

    Args:
        values: ``{series: {group: value}}``; all series have the same groups.
        xlabel: of the values.
    """
    groups = list(next(iter(values.values())))
    thick = 0.8 / len(values)

    def draw(figure, axes):
        for i, (series, by_group) in enumerate(values.items()):
            places = np.arange(len(groups)) + (i - (len(values) - 1) / 2) * thick
            axes.barh(places, [by_group[group] for group in groups], thick, label=series,
                      color=dict(before=BEFORE, after=AFTER).get(series.split()[0]))
        axes.set(xlabel=xlabel, yticks=range(len(groups)), yticklabels=groups)
        axes.invert_yaxis()
        axes.grid(axis='y', visible=False)
        axes.legend()
    return svg(draw, height=1.1 + 0.32 * len(groups))


def bands(values: dict[str, dict[str, float]], title: str) -> bytes:
    """Upright bars: ``{series: {band: energy}}``."""
    names = list(next(iter(values.values())))
    thick = 0.8 / len(values)

    def draw(figure, axes):
        for i, (series, by_band) in enumerate(values.items()):
            places = np.arange(len(names)) + (i - (len(values) - 1) / 2) * thick
            axes.bar(places, [by_band[name] for name in names], thick, label=series, color=COLOURS.get(series))
        axes.set(ylabel='part of the mean square', xticks=range(len(names)), xticklabels=names, title=title)
        axes.grid(axis='x', visible=False)
        axes.legend()
    return svg(draw, 4.2, 2.9)


#: Of the series that come again in several charts.
COLOURS = {'teacher': TEACHER, 'student before': BEFORE, 'student after': AFTER, 'residual before': BEFORE,
           'residual after': AFTER}


def spectrum(curves: dict[str, tuple[Tensor, Tensor]], gain: Callable[[Tensor], Tensor] | None, title: str) -> bytes:
    """Radial spectra, logarithmic, with a filter's gain as an area behind them.

    Args:
        curves: ``{name: (radius, power)}``.
        gain: of a radius; None for none.
        title: of the chart.
    """
    def draw(figure, axes):
        furthest = max(float(radius[-1]) for radius, _ in curves.values())
        if gain is not None:
            behind = axes.twinx()
            radius = torch.linspace(0, furthest, 100)
            behind.fill_between(radius, gain(radius), color=BLUE, alpha=0.13, linewidth=0)
            behind.set(ylim=(0, 1), ylabel='share that the Gaussian keeps')
            behind.grid(visible=False)
            behind.spines['right'].set_visible(True)
            axes.set_zorder(behind.get_zorder() + 1)
            axes.patch.set_visible(False)
        for name, (radius, power) in curves.items():
            axes.plot(radius, power.clamp(min=1e-12), label=name, color=COLOURS.get(name),
                      linestyle='--' if name == 'teacher' else '-', marker='.')
        axes.set(xlabel='spatial frequency (1: Nyquist)', ylabel='power', title=title, xlim=(0, furthest))
        _logarithmic(axes)
        axes.legend()
    return svg(draw, 4.6, 3.2)


def heat_map(table: np.ndarray, rows: Sequence[str], columns: Sequence[str], marked: Sequence[tuple[int, int]],
             title: str) -> bytes:
    """A table of numbers of 0 to 1 as colours, with the numbers written in.

    Args:
        table: (rows, columns); nan is left white.
        rows, columns: their names.
        marked: (row, column) of the cells that get a frame.
        title: of the chart.
    """
    def draw(figure, axes):
        image = axes.imshow(table, vmin=0, vmax=1, cmap='YlGnBu', aspect='auto')
        for (i, j), value in np.ndenumerate(table):
            axes.text(j, i, '' if np.isnan(value) else f'{value:.2f}', ha='center', va='center', fontsize=8,
                      color='white' if value > 0.6 else 'black')
        for i, j in marked:
            axes.add_patch(Rectangle((j - 0.47, i - 0.47), 0.94, 0.94, fill=False, edgecolor='#d62728', linewidth=2))
        axes.set(xticks=range(len(columns)), yticks=range(len(rows)), yticklabels=rows, title=title,
                 xlabel='teacher', ylabel='student')
        axes.set_xticks(range(len(columns)), columns, rotation=35, ha='right', rotation_mode='anchor')
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, shrink=0.9)
    return svg(draw, 2.0 + 0.62 * max(len(columns), 4), 1.5 + 0.44 * max(len(rows), 4))


def dots(values: dict[str, Sequence[float]], xlabel: str, title: str) -> bytes:
    """A row a method, best at the top: each seed as a dot, their mean as a bar."""
    def draw(figure, axes):
        for i, (name, seeds) in enumerate(values.items()):
            colour = BLUE if name.startswith('sfkd') else ORANGE if name == 'alone' else GREY
            axes.plot(seeds, [i] * len(seeds), '.', color=colour, alpha=0.6)
            axes.plot(np.mean(seeds), i, '|', color=colour, markersize=13, markeredgewidth=2)
        axes.set(xlabel=xlabel, title=title, yticks=range(len(values)),
                 yticklabels=[name if len(name) <= LABEL else f'{name[:LABEL - 1]}…' for name in values])
        axes.margins(y=0.02)
        axes.invert_yaxis()
    return svg(draw, 4.8, 1.1 + 0.24 * max(len(values), 3))


class _Plain(LogFormatter):
    """Plain numbers where matplotlib has 6e-01."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return super().__call__(x, pos) and f'{x:g}'


def _logarithmic(axes) -> None:
    """A logarithmic y axis with plain numbers, also between powers of ten where it is short."""
    axes.set_yscale('log')
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(_Plain(minor_thresholds=(2, 0.6)))


# ---- maps ----

def main_axis(maps: Tensor) -> Tensor:
    """The first principal component of the cells of maps (n, C, h, w), a unit vector (C,)."""
    cells = maps.float().movedim(1, 3).flatten(0, 2)
    return torch.linalg.svd(cells - cells.mean(0), full_matrices=False).Vh[0]


def along(maps: Tensor, axis: Tensor) -> Tensor:
    """Maps (n, C, h, w) seen along an axis (C,): (n, h, w). Linear, so that its bands and its filtered form are those
    of the map seen along it.
    """
    return torch.einsum('nchw,c->nhw', maps.float(), axis)


def smoothed(plane: Tensor, sigma: float) -> Tensor:
    """What the Gaussian of the GFFL keeps of planes (n, h, w)."""
    rows, columns = (gaussian_transfer(n, sigma) for n in plane.shape[1:])
    return rows @ plane @ columns


def signed(plane: Tensor, limit: float) -> np.ndarray:
    """A plane (h, w) as (h, w, 3) uint8 RGB: blue below 0, white at it, red above, full at ``limit`` of either sign."""
    values = (plane / max(limit, 1e-12)).clamp(-1, 1).numpy() / 2 + 0.5
    return (255 * matplotlib.colormaps['RdBu_r'](values)[..., :3]).round().astype(np.uint8)


def band_limits(planes: Tensor, levels: int, wavelet: str) -> list[float]:
    """Of each band the 99th percentile of its size, in the order of :meth:`~sfkd.ops.dwt.Bands.each`."""
    return [float(band.abs().quantile(0.99)) for band in dwt2(planes[:, None], levels, wavelet).each()]


def mosaic(plane: Tensor, levels: int, wavelet: str, limits: Sequence[float]) -> np.ndarray:
    """The bands of a plane (h, w) as one picture, about ``MOSAIC`` pixels high: of each level LH below, HL to the right
    and HH across of what is coarser, thin lines between them; each band with its own limit.
    """
    bands_of = [band[0, 0] for band in dwt2(plane[None, None], levels, wavelet).each()]
    scale = max(1, MOSAIC // (2 * bands_of[1].shape[0]))
    low, *details = (np.kron(signed(band, limit), np.ones((scale, scale, 1), np.uint8))
                     for band, limit in zip(bands_of, limits))
    for j in reversed(range(levels)):
        lh, hl, hh = details[3 * j:3 * j + 3]
        height, width = lh.shape[:2]
        whole = np.concatenate([np.concatenate([_fitted(low, height, width), hl], 1),
                                np.concatenate([lh, hh], 1)])
        whole[height], whole[:, width] = LINE, LINE
        low = whole
    return low


def _fitted(tile: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture stretched or cut off, by repeating or leaving out lines, to a size that differs by a few."""
    rows, columns = (np.linspace(0, have - 1, want).round().astype(int)
                     for have, want in zip(tile.shape, (height, width)))
    return tile[rows][:, columns]
