"""Errors in what a user gave us: a message for a person, no traceback in the tools."""
import difflib
from collections.abc import Iterable, Sequence


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
