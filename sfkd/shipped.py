"""What comes with the package beside its code: the tools and the configs.

They lie in ``.mim``, where OpenMMLab's packages have theirs: in a wheel as files, in a checkout as links to its
folders.
"""
from __future__ import annotations

from pathlib import Path

from .errors import ConfigError, nearest

TOOLS, CONFIGS = ((Path(__file__).parent / '.mim' / folder).resolve() for folder in ('tools', 'configs'))
PREFIX = 'sfkd::'


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
