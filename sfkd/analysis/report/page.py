"""A page of HTML in one file: pictures within, a style of its own, no script, nothing from a network."""
from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

STYLE = '''
:root { color-scheme: light dark; --back: #fff; --text: #1c1f24; --soft: #5b6470; --line: #d5dae1; --card: #f6f7f9;
  --mark: #1f5fae }
@media (prefers-color-scheme: dark) {
  :root { --back: #15181d; --text: #e4e7eb; --soft: #a0a8b4; --line: #363c46; --card: #1e2229;
    --mark: #7fb2f0 }
  img.chart { filter: invert(1) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 1180px; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0 }
h2 { font-size: 1.25rem; margin: 2.2rem 0 0.5rem; padding-top: 0.6rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem }
p { margin: 0.5rem 0; max-width: 80ch }
a { color: var(--mark) }
nav a { display: inline-block; margin-right: 1rem }
pre, code { font: 0.85rem/1.5 ui-monospace, monospace }
pre { margin: 0.5rem 0; padding: 0.6rem 0.8rem; background: var(--card); border: 1px solid var(--line);
  white-space: pre-wrap }
.missing { padding: 0.6rem 0.8rem; background: var(--card); border-left: 4px solid #e6770b; max-width: none }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)) }
.tiles { display: grid; gap: 0.6rem; grid-template-columns: repeat(auto-fill, minmax(min(30%, 118px), 1fr));
  margin: 0.4rem 0 1.4rem }
.tiles.middle { grid-template-columns: repeat(auto-fill, minmax(min(45%, 155px), 1fr)) }
.tiles.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 225px), 1fr)) }
figure { margin: 0; min-width: 0 }
figure img { display: block; width: 100%; height: auto }
.charts img { max-width: 560px }
img.map { image-rendering: pixelated; border: 1px solid var(--line) }
figcaption { font-size: 0.85rem; line-height: 1.4; color: var(--soft); margin-top: 0.25rem }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0; overflow-wrap: normal }
th, td { padding: 0.2rem 0.7rem 0.2rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums }
th { white-space: normal; vertical-align: bottom }
td:first-child { white-space: normal; overflow-wrap: anywhere; min-width: 6.5rem }
th:first-child, td:first-child { text-align: left }
.swatch { display: inline-block; width: 0.9em; height: 0.9em; margin: 0 0.3em 0 0.8em; vertical-align: -0.1em;
  border: 1px solid var(--line) }
'''


def escaped(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def paragraph(text: str) -> str:
    """Text, not HTML, as a paragraph."""
    return f'<p>{escaped(text)}</p>'


def commands(lines: Iterable[str]) -> str:
    """Lines to copy."""
    return f'<pre>{escaped(chr(10).join(lines))}</pre>'


def image(data: bytes, kind: str, alt: str, style: str) -> str:
    """A picture within the page.

    Args:
        data: its file.
        kind: 'svg+xml', 'png' or 'jpeg'.
        alt: what it shows, in a few words.
        style: 'chart', whose colours turn in a dark page, 'map', whose cells stay sharp, or 'photo'.
    """
    encoded = base64.b64encode(data).decode()
    return f'<img class="{style}" alt="{escaped(alt)}" src="data:image/{kind};base64,{encoded}">'


def chart(data: bytes, caption: str) -> str:
    """A chart of :mod:`.charts` with what it shows beneath."""
    return figure(image(data, 'svg+xml', caption.partition('. ')[0], 'chart'), escaped(caption))


def map_tile(colours: np.ndarray, caption: str) -> str:
    """A map (h, w, 3) uint8 RGB, a cell a pixel of its file, which the page enlarges."""
    return figure(image(_encoded(colours, '.png'), 'png', caption, 'map'), escaped(caption))


def photo(colours: np.ndarray, caption: str, caption_html: str | None = None) -> str:
    """A picture (H, W, 3) uint8 RGB; ``caption_html`` stands beneath in place of the caption."""
    return figure(image(_encoded(colours, '.jpg', [cv2.IMWRITE_JPEG_QUALITY, 92]), 'jpeg', caption, 'photo'),
                  escaped(caption) if caption_html is None else caption_html)


def _encoded(colours: np.ndarray, extension: str, options: Sequence[int] = ()) -> bytes:
    return cv2.imencode(extension, np.ascontiguousarray(colours[..., ::-1]), list(options))[1].tobytes()


def figure(body: str, caption_html: str) -> str:
    """Something with its caption."""
    return f'<figure>{body}<figcaption>{caption_html}</figcaption></figure>'


def charts(figures: Iterable[str]) -> str:
    """Charts beside each other, as many as there is room for."""
    return f'<div class="charts">{"".join(figures)}</div>'


def tiles(figures: Iterable[str], size: str = '') -> str:
    """Small pictures beside each other; larger ones with the size 'middle' or 'wide'."""
    return f'<div class="tiles {size}">{"".join(figures)}</div>'


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table, which scrolls by itself where it is too wide."""
    head = ''.join(f'<th>{escaped(cell)}</th>' for cell in header)
    body = ''.join('<tr>' + ''.join(f'<td>{escaped(cell)}</td>' for cell in row) + '</tr>' for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def left_out(reason: str) -> str:
    """In the place of what cannot be shown, why."""
    return f'<p class="missing">Left out: {escaped(reason)}</p>'


def document(title: str, head: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole page.

    Args:
        title: of the page.
        head: HTML above all sections.
        sections: (name for links, title, HTML) of each.
    """
    links = ''.join(f'<a href="#{name}">{escaped(heading)}</a>' for name, heading, _ in sections)
    body = ''.join(f'<section id="{name}"><h2>{escaped(heading)}</h2>{content}</section>'
                   for name, heading, content in sections)
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escaped(title)}</title><style>{STYLE}</style></head>\n'
            f'<body><h1>{escaped(title)}</h1>{head}<nav>{links}</nav>{body}</body></html>\n')
