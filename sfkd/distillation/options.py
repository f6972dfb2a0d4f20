"""What a distillation's options must look like, before anything is built of them: types and values, all at once."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from ..errors import nearest

PAIR_KEYS = ('student', 'teacher', 'connector', 'losses')
#: Words that stand for pairs.
AUTOMATIC = ('auto', 'head', 'classes')
WORDS = ', '.join(map(repr, AUTOMATIC))


def problems_of(pairs, connector, losses, logits, stages, **sizes) -> list[str]:
    """Everything in the options of :class:`Distillation` that is of a wrong type or value, each by its key.

    Args:
        pairs, connector, losses, logits, stages: as given.
        sizes: (H, W) of pictures, by key.
    """
    found = [*_connector('connector', connector), *_losses('losses', losses), *_losses('logits', logits)]
    for key, size in sizes.items():
        if not (_is_list(size) and len(size) == 2 and all(_whole(side) and side > 0 for side in size)):
            found.append(f'{key}: {size!r} is neither a number of pixels nor (height, width)')
    if stages is not None and not (_is_list(stages) and all(map(_whole, stages))):
        found.append(f'stages: {stages!r} is no list of indices, such as [-1]')
    if isinstance(pairs, str):
        found += _entry('pairs', pairs)
    else:
        if not _is_list(pairs):
            return [*found, f"pairs: {_shown(pairs)} is neither {WORDS} nor a list of dict(student=path, "
                    'teacher=path)']
        for i, entry in enumerate(pairs):
            found += _entry(f'pairs[{i}]', entry)
    return found


def problems_of_rest(every, until, share) -> list[str]:
    """The same of how often, how long and with how much of a batch is taught."""
    found = []
    if not _whole(every) or every < 1:
        found.append(f'every: {every!r} is no whole number from 1')
    if until is not None and (not _whole(until) or until < 1):
        found.append(f'until: {until!r} is no whole number of steps from 1, and not None')
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        found.append(f'share: {share!r} is no number above 0 and up to 1')
    return found


def _entry(where: str, entry) -> Iterator[str]:
    if isinstance(entry, str):
        if entry not in AUTOMATIC:
            yield f"{where}: '{entry}' is neither {WORDS} nor a dict(student=path, teacher=path)"
        return
    if not isinstance(entry, Mapping):
        yield f"{where}: {_shown(entry)} is neither {WORDS} nor a dict(student=path, teacher=path)"
        return
    for key in entry:
        if key not in PAIR_KEYS:
            yield f"{where}: no option '{key}'; nearest: {nearest(str(key), PAIR_KEYS)}"
    for side in ('student', 'teacher'):
        if not isinstance(entry.get(side, ''), str):
            yield f'{where}.{side}: {_shown(entry[side])} is no path of a module'
    yield from _connector(f'{where}.connector', entry.get('connector'))
    yield from _losses(f'{where}.losses', entry.get('losses', ()))


def _connector(where: str, connector) -> Iterator[str]:
    if connector is not None and not _has_type(connector):
        yield f"{where}: {_shown(connector)} is no dict with a 'type', such as dict(type='Align'), and not None"


def _losses(where: str, losses) -> Iterator[str]:
    if not _is_list(losses):
        yield f"{where}: {_shown(losses)} is no list of losses, such as [dict(type='FeatureMSE', weight=1.0)]"
        return
    for i, loss in enumerate(losses):
        if not _has_type(loss):
            yield f"{where}[{i}]: {_shown(loss)} is no dict with a 'type', such as dict(type='FeatureMSE', weight=1.0)"
            continue
        weight, name = loss.get('weight', 1), loss.get('name', 'x')
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            yield f'{where}[{i}].weight: {weight!r} is no number from 0'
        if not isinstance(name, str) or not name or '.' in name:
            yield f'{where}[{i}].name: {name!r} is no text without dots'
        elif hasattr(nn.ModuleDict, name):
            yield f"{where}[{i}].name: '{name}' is what torch calls a part of its own; give another"


def _has_type(value) -> bool:
    return isinstance(value, Mapping) and (isinstance(value.get('type'), str) or isinstance(value.get('type'), type))


def _is_list(value) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'
