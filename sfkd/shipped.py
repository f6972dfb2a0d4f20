"""What comes with the package beside its code: the tools and the configs.

They lie in ``.mim``, where OpenMMLab's packages have theirs: in a wheel as files, in a checkout as links to its
folders.
"""
from __future__ import annotations

from pathlib import Path

from .errors import ConfigError, nearest

TOOLS, CONFIGS = ((Path(__file__).parent / '.mim' / folder).resolve() for folder in ('tools', 'configs'))
PREFIX = 'sfkd::'


def check_program(program: str) -> None:
    """Refuse to serve another checkout's tool: it would name that checkout's commit for what this package has done.

    Args:
        program: the file that Python runs.

    Raises:
        ImportError: if it lies in the ``tools`` of a checkout that is not this package's.
    """
    for folder in Path(program).resolve().parents:
        if folder.name == 'tools' and folder != TOOLS and (folder.parent / 'sfkd/__init__.py').is_file():
            raise ImportError(f"'{program}' belongs to '{folder.parent / 'sfkd'}', and Python imports "
                              f"'{Path(__file__).parent}': begin the command with PYTHONPATH={folder.parent}, or "
                              'install that checkout (pip install -e)')


def located(path: str, where: str) -> str:
    """The file that ``sfkd::folder/name`` stands for; any other path as it is.

    Args:
        path: with the prefix, a file among the configs: weights, or a config, of which ``.py`` may be left out.
        where: the config key or argument that named it, for the message.

    Raises:
        ConfigError: if there is no such file.
    """
    if not path.startswith(PREFIX):
        return path
    name = path.removeprefix(PREFIX)
    for file in (CONFIGS / name, CONFIGS / f'{name}.py'):
        if file.is_file():
            return str(file)
    names = [PREFIX + str(file.relative_to(CONFIGS)) for file in sorted(CONFIGS.rglob('*.*')) if file.is_file()]
    raise ConfigError(f"{where}: there is no '{path}'; nearest are {nearest(path, names)}")
