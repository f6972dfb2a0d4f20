"""Checkpoints: read without running foreign code, written so that an interruption leaves the old file whole."""
from __future__ import annotations

import contextlib
import os
import pickle
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mmengine
import mmengine.runner.checkpoint
import torch
from mmengine.dist import barrier
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from .errors import ConfigError
from .shipped import located
from .unpickling import SAFE_GLOBALS, load

#: Under which of its keys a file has its weights, the first before the others.
INSIDE = ('state_dict', 'model', 'model_state_dict', 'net', 'ema', 'model_ema', 'state_dict_ema')
#: What to do with a file that needs pickled code.
CONVERT = (
    "If you trust its origin, convert it once: python -c \"import torch; c = torch.load('IN.pth', weights_only=False); "
    f"c = next((c[k] for k in {INSIDE} if isinstance(c, dict) and c.get(k) is not None), c); "
    "torch.save(c.state_dict() if hasattr(c, 'state_dict') else c, 'OUT.pth')\"")
_stock_load_state_dict = mmengine.runner.checkpoint.load_state_dict


def forbid_unsafe_loading() -> None:
    """Let mmengine read every checkpoint of this process by :func:`read_checkpoint`, and make any other ``torch.load``
    refuse pickled code, whatever its caller asks for.

    mmengine falls back to ``weights_only=False`` by itself, which torch's own switch overrules, its own list of what is
    safe contains ``getattr``, which is not, and its runner trains from random weights where nothing of a checkpoint
    fits.
    """
    os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = '1'
    mmengine.runner.checkpoint.get_torch_safe_globals = lambda: SAFE_GLOBALS
    CheckpointLoader.register_scheme(['', 'http://', 'https://', 'open-mmlab://'], load_from_sfkd, force=True)
    mmengine.runner.checkpoint.load_state_dict = _load_what_fits


def refused_code(error: Exception) -> str | None:
    """The name in a pickle for which ``torch.load`` has refused a file; None where the error is another."""
    found = re.search(r'GLOBAL (\S+)', str(error)) if isinstance(error, pickle.UnpicklingError) else None
    return found and found[1]


def read_checkpoint(path: str, where: str) -> dict:
    """Read a checkpoint without running code from it.

    Memory stays below three times the file's size and 256 MiB (:mod:`sfkd.unpickling`; on Linux). A changed byte is
    found in a file that torch.save has written since 1.6; older ones and ``.safetensors`` have no checksums.

    Args:
        path: a ``.pth`` or ``.safetensors`` file, one of ours as ``sfkd::folder/name``, or an http(s) or
            ``open-mmlab://`` address (downloaded once to torch's hub folder).
        where: the config key or argument that named it, for messages.

    Raises:
        ConfigError: if it is missing, damaged, or needs pickled code, or if one of its weights is not a number.
    """
    file = Path(_download(path, where) if '://' in path else located(path, where)).expanduser()
    if not file.is_file():  # a folder, a pipe or a device neither
        raise ConfigError(f"{where}: there is no checkpoint '{path}'")
    try:
        if file.suffix == '.safetensors':
            from safetensors.torch import load_file
            found = load_file(file)
        else:
            found = load(file)
    except pickle.UnpicklingError as error:
        refused = refused_code(error)
        if refused is None:
            raise _damaged(file, where, 'not a file that torch.save writes') from error
        raise ConfigError(f"{where}: '{path}' needs pickled code to load ({refused}), which is refused because it "
                          f'could run anything. {CONVERT}') from error
    except Exception as error:  # torch and safetensors raise many types for a truncated file
        raise _damaged(file, where, str(error).partition('\n')[0] or type(error).__name__) from error
    if problem := _problem(found):
        raise _damaged(file, where, problem)
    if key := _not_a_number(weights_of(found)):
        raise ConfigError(f"{where}: '{path}' has values in '{key}' that are no numbers (NaN): the training that wrote "
                          'it had diverged; take an earlier checkpoint')
    for key in ('meta', 'optimizer', 'message_hub'):  # another program's are of no use; a resume names what it lacks
        if not isinstance(found.get(key, {}), dict):
            del found[key]
    meta = found.get('meta', {})
    meta.pop('config', None)  # as text, of mmengine's forerunner, which mmengine's runner would run as Python
    for key in ('epoch', 'iter'):
        if not isinstance(meta.get(key, 0), int):
            del meta[key]
    return found


def check_fit(network: nn.Module, checkpoint: dict, path: str, where: str) -> None:
    """Whether every weight of a network is in a checkpoint, and nothing else, as a resumed run needs it.

    Raises:
        ConfigError: naming what is not.
    """
    own, found = network.state_dict(), weights_of(checkpoint)
    if other := [key for key in (own.keys() | found.keys()) if key not in own or key not in found
                 or own[key].shape != found[key].shape]:
        first = min(other)
        shapes = (str(tuple(side[first].shape)) if first in side else 'none' for side in (found, own))
        raise ConfigError(f"{where}: '{path}' is of another model: {len(other)} weights differ, such as '{first}' (in "
                          f'the file {next(shapes)}, in the model {next(shapes)})')


def _problem(found) -> str | None:
    """What keeps a file's content from being a checkpoint."""
    if not isinstance(found, dict):
        return f'it holds a {type(found).__name__}'
    if not isinstance(dict.get(found, 'state_dict', {}), dict):
        return f"its 'state_dict' is a {type(found['state_dict']).__name__}"
    for weights in (dict.get(found, 'state_dict', found), _inside(found)):
        if names := [key for key in weights if not isinstance(key, str)]:
            return f'a weight is called {names[0]!r}'
        metadata = getattr(weights, '_metadata', {})  # torch keeps the layers' versions there
        if not isinstance(metadata, dict) or not all(isinstance(version, dict) for version in metadata.values()) or (
                {*getattr(weights, '__dict__', ()), *getattr(found, '__dict__', ())} - {'_metadata'}):
            return 'its weights are in no plain dict'
    return None


def _not_a_number(weights: dict[str, Tensor]) -> str | None:
    """The first weight with a NaN; each stretch of memory is read once, however many weights lie in it."""
    whole = {}
    for key, weight in weights.items():
        if weight.is_floating_point():
            stored = weight.untyped_storage()
            place = stored.data_ptr(), weight.dtype
            if place not in whole:
                values = torch.empty(0, dtype=weight.dtype).set_(stored)
                whole[place] = not values.isnan().any()
            if not whole[place] and weight.isnan().any():
                return key
    return None


@CheckpointLoader.register_scheme(prefixes=r'.*\.safetensors$')
def load_from_sfkd(filename: str, map_location=None) -> dict:
    """Lets mmengine's ``init_cfg`` and ``load_from`` read what tools/export_student.py writes; after
    :func:`forbid_unsafe_loading` whatever they are given. On the CPU, from which weights are copied to their place.
    """
    return read_checkpoint(filename, 'checkpoint')


def _load_what_fits(module: nn.Module, state_dict: dict, strict: bool = False, logger=None) -> None:
    """mmengine's ``load_state_dict``, which warns of what does not fit; here not of everything.

    Raises:
        ConfigError: if no weight has a name and shape of the network, or one of them is infinite.
    """
    own = module.state_dict()
    if own and not any(torch.is_tensor(value) and key in own and value.shape == own[key].shape
                       for key, value in state_dict.items()):
        raise ConfigError(f"checkpoint: none of its weights is one of this {type(module).__name__}'s by name and "
                          f"shape: it has '{next(iter(state_dict), 'none')}', the model '{next(iter(own))}'")
    _check_finite(module, weights_of(state_dict), 'checkpoint: it')
    _stock_load_state_dict(module, state_dict, strict, logger)


def _damaged(file: Path, where: str, why: str) -> ConfigError:
    return ConfigError(
        f"{where}: '{file}' is damaged or no checkpoint ({file.stat().st_size} bytes; {why}); get it again")


def _download(address: str, where: str) -> str:
    if address.startswith('open-mmlab://'):
        from mmengine.runner.checkpoint import get_external_models
        models = get_external_models()
        name = address.removeprefix('open-mmlab://')
        if name not in models:
            raise ConfigError(f"{where}: '{address}' is none of mmengine's {len(models)} named models")
        address = models[name]
        address = address if '://' in address else f'https://download.openmmlab.com/{address}'
    target = Path(torch.hub.get_dir(), 'checkpoints', address.rpartition('/')[2])
    first = int(os.environ.get('LOCAL_RANK', 0)) == 0  # one process a machine downloads, the others wait for its file
    if not first:
        barrier()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = re.search(r'-([a-f0-9]{8,})\.', target.name)  # OpenMMLab's names end in the start of their SHA-256
        try:
            torch.hub.download_url_to_file(address, str(target), hash_prefix=digest[1] if digest else None)
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"{where}: cannot download '{address}': {error}. Without a network, download it elsewhere and "
                'give the file') from error
    if first:
        barrier()
    return str(target)


@dataclass
class LoadReport:
    """Which keys of a network a checkpoint filled.

    Attributes:
        loaded: number of keys loaded.
        not_loaded: keys of the network that the file lacks or has in another shape.
        unused: keys of the file that the network lacks.
        example: one key of the file.
        shapes: for a key of another shape, how it differs.
    """
    loaded: int
    not_loaded: list[str]
    unused: list[str]
    example: str
    shapes: dict[str, str] = field(default_factory=dict)

    def why(self, key: str) -> str:
        return f': {self.shapes[key]}' if key in self.shapes else ''


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The weights inside a checkpoint: under one of :data:`INSIDE`, or the checkpoint itself; without the ``module.``
    that DDP puts before all names, and torch.compile's ``_orig_mod.``.
    """
    weights = _tensors(_inside(checkpoint))
    return {bare: weights[key] for key, bare in _bare(weights).items()}


def _inside(checkpoint: dict) -> dict:
    within = (dict.get(checkpoint, key) for key in INSIDE)
    return next((found for found in within if isinstance(found, dict) and _tensors(found)), checkpoint)


def _tensors(found: dict) -> dict[str, Tensor]:
    return {key: value for key, value in dict.items(found) if torch.is_tensor(value)}


def _bare(names: Iterable[str]) -> dict[str, str]:
    """What each name is without what DDP and torch.compile put in."""
    bare = {name: name.replace('_orig_mod.', '') for name in names}
    whole = all(name.startswith('module.') for name in bare.values())  # otherwise it is an attribute of the network's
    return {name: rest.removeprefix('module.') if whole else rest for name, rest in bare.items()}


def _named_for(network: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the network's own names, which may themselves be a wrapper's. Where none fits, as in a checkpoint
    of Lightning's, those below the one attribute that has all that the network has.
    """
    own = {bare: name for name, bare in _bare(network.state_dict()).items()}
    needed = {name for name in own if not name.endswith('num_batches_tracked')}
    if not any(key in own for key in weights):
        below: dict[str, set[str]] = {}
        for prefix, dot, rest in (key.partition('.') for key in weights):
            below.setdefault(prefix + dot, set()).add(rest)
        whole = [prefix for prefix, names in below.items() if needed <= names]
        if len(whole) == 1:  # of a student and a teacher of one kind it could be either
            weights = {key.removeprefix(whole[0]): value for key, value in weights.items()}
    return {own.get(key, key): value for key, value in weights.items()}


def load_weights(network: nn.Module, path: str, where: str) -> LoadReport:
    """Load what fits of a checkpoint into a network.

    Raises:
        ConfigError: if there is none or one of them is infinite, and as :func:`read_checkpoint`.
    """
    weights = _read_for(network, path, where)
    example = next(iter(weights), 'none')
    shapes: dict[str, str] = {}
    while True:
        try:  # the network's own version conversions run inside, so shapes can only be compared by trying
            missing, unused = network.load_state_dict(weights, strict=False)
            break
        except RuntimeError as error:
            found = re.findall(r'size mismatch for (\S+): (.*)', str(error))
            mismatched = {key: text for key, text in found if key in weights}
            if not mismatched:
                raise ConfigError(f"{where}: '{path}': {error}") from error
            shapes |= mismatched
            weights = {key: value for key, value in weights.items() if key not in mismatched}
    loaded = len(weights) - len(unused)
    missing, unused = ([key for key in keys if not key.endswith('num_batches_tracked')] for keys in (missing, unused))
    return LoadReport(loaded, missing, unused, example, shapes)


def _read_for(network: nn.Module, path: str, where: str) -> dict[str, Tensor]:
    checkpoint = read_checkpoint(path, where)
    if not (weights := stock_weights(checkpoint)):
        keys = ', '.join(map(repr, [*checkpoint][:8])) or 'none'
        raise ConfigError(f"{where}: '{path}' holds no weights: its keys are {keys}. Give one that has them alone, or "
                          f"under one of {', '.join(INSIDE)}")
    weights = _named_for(network, weights)
    _check_finite(network, weights, f"{where}: '{path}'")
    return weights


def _check_finite(network: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Buffers may be infinite, such as masks of attention; what was learned may not."""
    learned = {name for name, _ in network.named_parameters()}
    for key, value in weights.items():
        if key in learned or key.endswith(('running_mean', 'running_var')):
            try:
                finite = value.isfinite().all()
            except NotImplementedError:  # of kinds of float8 that have no infinity
                continue
            if not finite:
                raise ConfigError(f"{what} has infinite values in '{key}': the training that wrote it had diverged; "
                                  'take an earlier one')


def stock_weights(checkpoint: dict) -> dict[str, Tensor]:
    """The weights that a stock model loads: all but those of a distillation beside it, laid out as such a model's are
    (a student may have trained channels last).
    """
    return {key: value.contiguous() if torch.is_tensor(value) and value.dim() == 4 else value
            for key, value in weights_of(checkpoint).items() if not key.startswith('distillation.')}


def in_half_precision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16, but for those with values that it cannot hold, above 65,504, as a BatchNorm's variance may
    have: they stay as they are.
    """
    def half(value):
        rounded = value.half() if value.is_floating_point() else value
        return rounded if torch.equal(rounded.isfinite(), value.isfinite()) else value
    return {key: half(value) for key, value in weights.items()}


def load_strictly(network: nn.Module, path: str) -> None:
    """Load a checkpoint's stock weights so that every key fits: a score of half a model would be a wrong number, not a
    low one.

    Raises:
        ConfigError: where one does not, and as :func:`read_checkpoint`.
    """
    weights = _read_for(network, path, 'checkpoint')
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"checkpoint: '{path}' does not fit the config's model: {error}") from error


def stock_checkpoint(checkpoint: dict) -> dict:
    """A checkpoint as a stock one: :func:`stock_weights`, and the metadata that stock tools read."""
    meta = {key: value for key, value in checkpoint.get('meta', {}).items() if key in ('dataset_meta', 'epoch', 'iter')}
    return dict(meta={**meta, 'mmengine_version': mmengine.__version__}, state_dict=stock_weights(checkpoint))


def write_checkpoint(checkpoint: dict, path: str | Path) -> None:
    """Write a ``.pth`` (all of it) or a ``.safetensors`` (the weights alone), whole or not at all.

    Raises:
        ConfigError: if the file name ends in neither, or if the disk does not take it.
    """
    path = Path(path)
    if path.suffix not in ('.pth', '.safetensors'):
        raise ConfigError(f"'{path}' must end in .pth or .safetensors")
    with written_whole(path) as temporary:
        if path.suffix == '.pth':
            torch.save(checkpoint, temporary)
        else:
            from safetensors.torch import save_file
            save_file(
                {
                    key: value.clone(memory_format=torch.contiguous_format)
                    for key, value in _tensors(_inside(checkpoint)).items()
                }, temporary)


def unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder, or where that is still to be made; None where one can."""
    there = next(part for part in (folder, *folder.parents) if part.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        return error.strerror
    return None


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[str]:
    """Within the context, write the file whose name is its value; afterwards it has the name ``path``. Where that
    fails, what was there before is as it was.

    Raises:
        ConfigError: if the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    except OSError as error:
        raise ConfigError(f"cannot write '{path}': {error.strerror}") from error
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, (OSError, RuntimeError)):  # torch's writer says "unexpected pos" of a full disk
            free = shutil.disk_usage(path.parent).free / 2**20
            why = str(error).partition('\n')[0] or type(error).__name__
            raise ConfigError(f"cannot write '{path}' ({why}; {free:,.0f} MiB are free there): make room, or give "
                              'another --work-dir. What was saved before is as it was') from error
        raise


def _sync(path: str | Path) -> None:
    """Have the system put a file, or a folder's list of files, onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
