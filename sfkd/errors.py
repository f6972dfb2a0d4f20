"""Errors in what a user gave us: a message for a person, no traceback in the tools."""
import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence


class ConfigError(ValueError):
    """Every problem found in a config, together; each names its config path, what was found and what to do."""

    def __init__(self, problems: Sequence[str] | str):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__('\n'.join(f'- {problem}' for problem in self.problems))


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """The valid names most like ``name``, quoted, for an error message."""
    names = list(names)
    close = difflib.get_close_matches(name, names, count, cutoff=0.5) or names[:count]
    return ', '.join(repr(n) for n in close)


class Problems:
    """Collects config errors, so that a user sees all of them at once.

    ``with problems.collected(): ...`` keeps what is raised inside, each with the key above it as ``prefix``;
    :meth:`raise_all` raises everything kept.
    """

    def __init__(self, found: Iterable[str] = ()):
        self.found = list(found)

    @contextlib.contextmanager
    def collected(self, prefix: str = '') -> Iterator[None]:
        try:
            yield
        except ConfigError as error:
            self.found += [prefix + problem for problem in error.problems]

    def raise_all(self) -> None:
        if self.found:
            raise ConfigError(self.found)
