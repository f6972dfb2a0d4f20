"""The site builds without a warning and its links hold; the commands on its pages fit the tools, its figures and
messages are the repository's.
"""
import argparse
import ast
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from sfkd.command import commands
from sfkd.shipped import located

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
BEHIND = {'dist_train.sh': ('train.py', 2), 'dist_test.sh': ('test.py', 3), 'slurm_train.sh': ('train.py', 3)}
SHELL_OPTIONS = {'quickstart.sh': {'--seed'}, 'gpu_check.sh': {'--device', '--out', '--minutes', '--parts'},
                 'get_fashion_mnist.sh': set()}
FENCED = re.compile(r'^ *(```+)([a-z]*)\n(.*?)^ *\1 *$', re.MULTILINE | re.DOTALL)


class Seen(HTMLParser):
    """What a page links to, loads from elsewhere, and can be linked to."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loaded, self.ids = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[key] for key in ('id', 'name') if given.get(key)}
        if tag == 'a' and given.get('href'):
            self.links.append(given['href'])
        elif tag in ('script', 'img', 'link', 'iframe', 'source'):
            self.loaded += [given[key] for key in ('src', 'href') if given.get(key)]


@pytest.fixture(scope='session')
def seen(site) -> dict[Path, Seen]:
    return {file: Seen(file.read_text()) for file in site.rglob('*.html')}


def test_every_link_leads_to_a_place_and_nothing_comes_from_another_host(site, seen):
    broken = []
    for file, page in seen.items():
        if file.name == '404.html':  # its links begin at the host's top
            continue
        assert not [address for address in page.loaded if urlsplit(address).netloc], file
        for link in (*page.links, *page.loaded):
            if link.startswith('data:image/') and link in page.loaded:  # a notebook's pictures are in its page
                continue
            address = urlsplit(link)
            if address.scheme or address.netloc:
                assert address.scheme in ('http', 'https') and '.' in address.netloc.strip('0123456789.:'), link
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            if not target.is_file():
                broken.append(f'{file.relative_to(site)}: {link}')
            elif address.fragment and target.suffix == '.html' and unquote(address.fragment) not in seen[target].ids:
                broken.append(f'{file.relative_to(site)}: {link} (no such anchor)')
    assert len(seen) > 60 and not broken, '\n'.join(broken)


def test_what_a_beginner_needs_is_two_clicks_away(site, seen):
    def reached(file: Path) -> set[str]:
        links = [link.partition('#') for link in seen[file].links if not urlsplit(link).scheme]
        return {f'{(file.parent / path).resolve().relative_to(site)}{mark}{anchor}'
                for path, mark, anchor in links if path}

    first = reached(site / 'index.html')
    assert {'guides/detector.html', 'results.html', 'results.html#what-is-not-known', 'benchmarks.html#whole-steps',
            'quickstart.html', 'faq.html', 'plain_pytorch.html', 'without_labels.html'} <= first
    assert 'results.html#what-is-not-known' in reached(site / 'guides/detector.html')


def test_files_of_the_repository_are_shown(site):
    readme, folder = (site / 'source' / name for name in ('README.md.html', 'configs/sfkd/index.html'))
    assert 'href="../method.html"' in readme.read_text()
    assert 'href="cls_swin_to_r18.py.html"' in folder.read_text() and 'href="teachers/index.html"' in folder.read_text()
    shown = re.sub('<[^>]+>', '', (site / 'source/docs/examples/plain_loop.py.html').read_text())
    assert 'with distillation(images) as taught:' in shown and not (site / 'hooks.py').exists()


# Commands

def shell_lines(text: str) -> Iterator[list[str]]:
    """The commands of the blocks without a language and of those in bash, as words, without variables before them."""
    for _, language, block in FENCED.findall(text):
        if language not in ('', 'bash'):
            continue
        block = re.sub(r"<<'(\w+)'.*?\n\1$", '', block, flags=re.DOTALL | re.MULTILINE)
        for line in block.replace('\\\n', ' ').split('\n'):
            line = re.sub(r'^\s*(\$ )?', '', line)
            if not re.match(r'([A-Z_]+=\S+ )*(bash|python|sfkd|mim) ', line):
                continue
            for part in re.split(r' && |; | \| ', line):
                words = shlex.split(part, comments=True)
                while words and re.match(r'[A-Z_]+=', words[0]):
                    words.pop(0)
                if words and words[0] in ('bash', 'python', 'sfkd', 'mim'):
                    yield words


ALL = [(page, words) for page in PAGES for words in shell_lines(page.read_text())]


class Found(BaseException):
    """Ends a tool at the place where it reads its arguments."""


@cache
def parser_of(tool: Path) -> argparse.ArgumentParser | None:
    """A tool's own parser; None where it has none."""
    found = []

    def caught(parser, *args, **kwargs):
        found.append(parser)
        raise Found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', caught)
        patch.setattr(sys, 'argv', [str(tool)])
        patch.syspath_prepend(str(tool.parent))
        try:
            runpy.run_path(str(tool), run_name='__main__')
        except Found:
            return found[0]
    return None


def check_arguments(tool: Path, words: list[str]) -> str | None:
    """What a tool's parser says against these arguments."""
    parser = parser_of(tool)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'error', lambda self, message: said.append(message))
        try:
            parser.parse_args(['0' if word == '...' else word for word in words])
        except (SystemExit, AttributeError, TypeError) as error:  # what comes after a message that did not end it
            said = said or [repr(error)]
    return said[0] if said else None


def problem_of(words: list[str]) -> str | None:
    program, rest = words[0], words[1:]
    for word in rest:
        path = re.fullmatch(r'[\w./-]*(configs|tools|tests|docs/examples)/[\w./{},-]*', word)
        if path and not re.search(r'[{}]', word) and not (ROOT / word).exists():
            return f"there is no '{word}'"
        if word.startswith('sfkd::') and located(word, 'page') is None:
            return f"there is no '{word}'"
        library = re.fullmatch(r'(mmpretrain|mmdet|mmseg)::([\w./-]+)', word)
        if library and not Path(importlib.util.find_spec(library[1]).origin).parent.joinpath(
                '.mim/configs', library[2]).is_file():
            return f"there is no '{word}'"
    if program == 'sfkd':
        if rest == ['--help']:
            return None
        return check_arguments(commands()[rest[0]], rest[1:]) if rest[0] in commands() else f'no command {rest[0]}'
    if program == 'mim':
        return None if rest[:2] == ['train', 'sfkd'] else 'not known to this test'
    if rest[0] == '-m':
        return None if importlib.util.find_spec(rest[1]) else f'no module {rest[1]}'
    if rest[0] in ('-', '-c'):
        return None
    tool = ROOT / rest[0] if '/' in rest[0] else ROOT / 'docs/examples' / rest[0]
    if not tool.is_file():
        return f"there is no '{rest[0]}'"
    if tool.suffix == '.py':
        return check_arguments(tool, rest[1:])
    if tool.name in BEHIND:
        python, own = BEHIND[tool.name]
        if len(rest) <= own:
            return 'too few arguments'
        config = rest[3 if tool.name == 'slurm_train.sh' else 1:][:2 if python == 'test.py' else 1]
        return check_arguments(ROOT / 'tools' / python, [*config, *rest[own + 1:]])
    if tool.name in SHELL_OPTIONS:
        strange = {word for word in rest[1:] if word.startswith('--')} - SHELL_OPTIONS[tool.name]
        return f'no option {strange}' if strange else None
    return None if tool.name == 'run_tests.sh' else 'not known to this test'


def test_every_command_names_a_tool_and_its_arguments_fit():
    problems = [f'{page.relative_to(ROOT)}: {" ".join(words)}: {problem}' for page, words in ALL
                if (problem := problem_of(words))]
    assert len(ALL) > 100 and not problems, '\n'.join(problems)


@pytest.mark.parametrize('command', [
    'python tools/train.py CONFIG --metod x', 'python tools/trian.py CONFIG', 'sfkd trian CONFIG',
    'bash tools/dist_train.sh CONFIG', 'python tools/test.py configs/mini/none.py X',
    'bash tools/dist_train.sh CONFIG 8 --metod x', 'python tools/compare.py --pairs none', 'sfkd export CONFIG'])
def test_a_command_that_is_wrong_is_found(command):
    assert problem_of(command.split())


# Figures, messages, pictures

@pytest.mark.parametrize('name', ['index', 'results', 'faq', 'quickstart', *(
    f'guides/{file.stem}' for file in (ROOT / 'docs/guides').glob('*.md'))])
def test_measured_figures_are_those_of_the_tables(name):
    """Pages that repeat a figure repeat it as it stands beside its command."""
    tables = ''.join((ROOT / file).read_text() for file in ('README.md', 'docs/ablation.md', 'docs/short_budgets.md'))
    figures = re.findall(r'-?\d+\.\d+ ± \d+\.\d+', (ROOT / f'docs/{name}.md').read_text())
    assert not [figure for figure in figures if figure not in tables]
    steps = (ROOT / 'docs/benchmarks.md').read_text()
    costs = re.findall(r'\d,\d\d0(?= ms)|(?<=→ )[\d,]+', (ROOT / f'docs/{name}.md').read_text())
    assert not [cost for cost in costs if f'| {cost.replace(",", "")} |' not in steps]


def messages() -> list[str]:
    """The package's strings, with … for what is filled in."""
    found = []
    for file in (ROOT / 'sfkd').rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(''.join(part.value if isinstance(part, ast.Constant) else '…' for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_the_errors_of_the_faq_are_those_of_the_package():
    headings = re.findall(r'^### `([^`]+)`$', (ROOT / 'docs/faq.md').read_text(), re.MULTILINE)
    known = messages()
    others = {'SFKD is not in the … registry'}  # mmengine's own words
    strange = [heading for heading in headings if heading not in others and not any(
        re.search('.*'.join(map(re.escape, heading.split('…'))), message, re.DOTALL) for message in known)]
    assert len(headings) > 15 and not strange


@pytest.mark.parametrize('page', [page for page in PAGES if '![' in page.read_text()], ids=lambda page: page.stem)
def test_a_picture_stands_beside_its_command(page):
    lines = page.read_text().split('\n')
    for number, line in enumerate(lines):
        if re.match(r'\[?!\[', line):
            around = '\n'.join(lines[max(0, number - 16):number + 4])
            assert re.search(r'(python tools/|sfkd \w+ )\S+', around), f'{page.name}:{number + 1}'
