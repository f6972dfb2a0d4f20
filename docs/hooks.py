"""MkDocs hook: links from a page to files and folders of the repository work on the site as they do on GitHub.

There is no address of the repository that they could lead to, so each linked file outside of the pages gets a page that
shows it, and each linked folder a page that lists it. ``README.md`` and its like are shown as Markdown, and their links
are followed in turn.
"""
from __future__ import annotations

import json
import posixpath
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SOURCE = 'source'  # the folder of the site in which such pages lie
LINK = re.compile(r'(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s]+)(\))')
FENCE = re.compile(r'^ *(```+|~~~+)')
ANSI = re.compile(r'\x1b\[[\d;]*m')  # colours of a terminal
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yml': 'yaml', '.txt': 'text', '.toml': 'toml', '.patch': 'diff'}
WEIGHTS = '.safetensors'  # for the browser to keep
SHOWN_AS_IT_IS = ('.png', '.jpg', '.jsonl', '.patch')  # of the files among the pages: what a browser shows or keeps


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file and folder that a page links to, and for those that these link to."""
    waiting = [file for file in files if file.src_uri.endswith('.md')]
    while waiting:
        file = waiting.pop()
        for target in _linked(file.content_string, file.src_uri):
            uri = _uri(target)
            if uri is None or not uri.startswith(f'{SOURCE}/') or uri in files.src_uris:
                continue
            if target.endswith(WEIGHTS):
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
                continue
            page = File.generated(config, uri, content=_content(target), inclusion=InclusionLevel.NOT_IN_NAV)
            files.append(page)
            waiting.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn a page's links to what lies elsewhere in the repository towards the pages that show it."""
    here = page.file.src_uri

    def turned(link: re.Match) -> str:
        target, anchor = _resolved(link[2], here)
        uri = target and _uri(target)
        if uri is None or uri == posixpath.normpath(posixpath.join(posixpath.dirname(here), link[2].split('#')[0])):
            return link[0]
        return f'{link[1]}{posixpath.relpath(uri, posixpath.dirname(here) or ".")}{anchor}{link[3]}'

    return _outside_of_code(markdown, lambda text: LINK.sub(turned, text).replace(' ± ', '\u00a0±\u00a0'))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mend what the API reference shows of docstrings: roles of reStructuredText become code, and where one entry
    describes several arguments their defaults are those of the signature, not "required".
    """
    if not page.file.src_uri.startswith('api/'):
        return html
    html = re.sub(r':(?:class|func|meth|attr|mod|data):<code>(?:~[\w.]*\.)?', '<code>', html)
    html = re.sub(r'::</p>', ':</p>', html)
    return re.sub(r'<tr class="doc-section-item">.*?</tr>', _without_required, html, flags=re.DOTALL)


def _without_required(row: re.Match) -> str:
    name = re.search(r'<code>([^<]*)</code>', row[0])
    return re.sub(r'<em>required</em>', '', row[0]) if name and ', ' in name[1] else row[0]


def _linked(markdown: str, here: str) -> Iterator[str]:
    """The repository's paths that a page links to."""
    found: list[str] = []
    _outside_of_code(markdown, lambda text: found.extend(link[2] for link in LINK.finditer(text)) or text)
    for link in found:
        target, _ = _resolved(link, here)
        if target:
            yield target


def _outside_of_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change the text between fenced blocks, each stretch as one: a link may be broken over two lines."""
    parts, text, fence = [], [], None
    for line in markdown.split('\n'):
        mark = FENCE.match(line)
        if fence is None and mark is None:
            text.append(line)
            continue
        if text:
            parts.append(change('\n'.join(text)))
            text = []
        parts.append(line)
        if fence is None:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = None
    return '\n'.join([*parts, *([change('\n'.join(text))] if text else [])])


def _resolved(link: str, here: str) -> tuple[str | None, str]:
    """The repository's path that a link of a page leads to, with '' for its top, and the link's anchor; no path where
    it leads to none.
    """
    path, mark, anchor = link.partition('#')
    if not path or '://' in path or path.startswith(('mailto:', '/')):
        return None, ''
    folder = posixpath.dirname(here.removeprefix(f'{SOURCE}/') if _is_source(here) else f'docs/{here}')
    target = posixpath.normpath(posixpath.join(folder, path))
    return (target if (ROOT / target).exists() and not target.startswith('..') else None), mark + anchor


def _uri(target: str) -> str | None:
    """Where on the site a path of the repository is shown; None for what is no part of the repository."""
    inside, kept = _is_inside(target, 'docs'), ROOT / target
    if kept.is_dir():
        return posixpath.join(SOURCE, target, 'index.md') if _tracked(target) else None
    if inside and kept.suffix in ('.md', *SHOWN_AS_IT_IS):
        return target.removeprefix('docs/')
    return f'{SOURCE}/{target}' + ('' if target.endswith(WEIGHTS) else '.md') if _tracked(target) else None


def _content(target: str) -> str:
    """The page of a file or folder, as Markdown."""
    path = ROOT / target
    head = f'---\ntitle: {target}\nsearch:\n  exclude: true\n---\n'
    if path.is_dir():
        names = sorted({name.removeprefix(f'{target}/').split('/')[0] for name in _tracked(target)})
        rows = [f'- [{name}/]({name}/)' for name in names if (path / name).is_dir()]
        rows += [f'- [{name}]({name})' if _is_shown(f'{target}/{name}') else f'- {name}'
                 for name in names if not (path / name).is_dir()]
        return head + f'# {target}/\n\n' + '\n'.join(rows) + '\n'
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.ipynb':
        return head + _notebook(json.loads(text))
    if path.suffix == '.md':  # a list may follow a line of text on GitHub; Python-Markdown wants an empty line
        return head + re.sub(r'^([A-Za-z][^\n]*)\n(?=- )', r'\1\n\n', text, flags=re.MULTILINE)
    fence = '`' * (1 + max(map(len, re.findall('`{3,}', text)), default=2))
    return head + f'# {target}\n\n{fence}{LANGUAGES.get(path.suffix, "text")}\n{text.rstrip()}\n{fence}\n'


def _notebook(notebook: dict) -> str:
    """An executed notebook as Markdown: text as it is, code, and what it printed and drew."""
    parts = []
    for cell in notebook['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'markdown':
            parts.append(source)
            continue
        parts.append(f'```python\n{source}\n```')
        for output in cell['outputs']:
            data = output.get('data', {})
            if 'image/png' in data:  # no link of Markdown's, whose target would be sought in the repository
                png = ''.join(data['image/png']).replace('\n', '')
                parts.append(f'<img alt="what the cell above draws" src="data:image/png;base64,{png}">')
            elif output.get('name') != 'stderr' and (text := ''.join(output.get('text', ()))).strip():
                parts.append(f'```text\n{ANSI.sub("", text).rstrip()}\n```')
    return '\n\n'.join(parts) + '\n'


def _is_shown(target: str) -> bool:
    """Whether a file of a listed folder has a place on the site: text has, and pictures and rows among the pages."""
    suffix = posixpath.splitext(target)[1]
    return suffix in ('.md', '.ipynb', *LANGUAGES) or _is_inside(target, 'docs') and suffix in SHOWN_AS_IT_IS


def _is_source(uri: str) -> bool:
    return uri.startswith(f'{SOURCE}/')


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f'{folder}/')


@cache
def _tracked(target: str) -> tuple[str, ...]:
    """The files at or below a path that belong to the repository: what git knows or, without git, what is no cache."""
    try:
        listed = subprocess.run(['git', 'ls-files', '--cached', '--others', '--exclude-standard', '--', target],
                                cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        path = ROOT / target
        found = path.rglob('*') if path.is_dir() else [path]
        listed = [str(file.relative_to(ROOT)) for file in found if file.is_file() and '__pycache__' not in file.parts]
    return tuple(listed)
