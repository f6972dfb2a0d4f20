"""The command ``sfkd``: every tool, under a name of one word. What it lists is what lies in the folder of the tools."""
from __future__ import annotations

import ast
import sys
import types
from pathlib import Path

from .errors import nearest
from .shipped import TOOLS


def commands() -> dict[str, Path]:
    """The tools by name: the first word of a file's name or, where another file is called that, the rest."""
    tools = {file.stem: file for file in sorted(TOOLS.glob('*.py'))}
    named = {}
    for stem, file in tools.items():
        first, _, rest = stem.partition('_')
        named[rest if rest and first in tools else first] = file
    return dict(sorted(named.items()))


def summary(tool: Path) -> str:
    """The first sentence of a tool's docstring."""
    text = ' '.join((ast.get_docstring(ast.parse(tool.read_text(encoding='utf-8'))) or '').split())
    return text.partition('. ')[0].removesuffix('.')


def run(tool: Path) -> None:
    """As ``python TOOL`` does, but for ``sys.argv[0]``, the name that the tool's messages begin with."""
    program = types.ModuleType('__main__')
    program.__file__ = str(tool)
    sys.modules['__main__'] = program
    exec(compile(tool.read_text(encoding='utf-8'), tool, 'exec', dont_inherit=True), program.__dict__)


def main() -> None:
    found = commands()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        lines = (f'  {name:<{max(map(len, found))}}  {summary(tool)}' for name, tool in found.items())
        print('\n'.join(['usage: sfkd COMMAND [ARGUMENTS]; sfkd COMMAND --help says which arguments', '', *lines]))
        return
    if name not in found:
        print(f"sfkd: there is no command '{name}'; nearest are {nearest(name, found)}; all: sfkd --help",
              file=sys.stderr)
        sys.exit(2)
    sys.argv = [f'sfkd {name}', *sys.argv[2:]]
    try:
        run(found[name])
    except ModuleNotFoundError as error:
        sys.exit(f"sfkd {name}: {error}; what the tools need beside the package itself: pip install 'sfkd[mm]'")
