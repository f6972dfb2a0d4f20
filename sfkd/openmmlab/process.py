"""What every tool does around its work: arguments, memory, other processes, and mistakes as messages."""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import DictAction

from ..checkpoint import forbid_unsafe_loading, unwritable
from ..errors import ConfigError
from .resuming import Ended
from .workers import end_with_parent


@contextlib.contextmanager
def errors_for_people() -> Iterator[None]:
    """A user's mistake ends the program with its message and status 2, a signal to end with its own; without a
    traceback.
    """
    program = os.path.basename(sys.argv[0])
    try:
        yield
    except ConfigError as error:
        count = len(error.problems)
        print(f'{program}: {count} problem{"s" * (count > 1)} in the input\n{error}', file=sys.stderr)
        sys.exit(2)
    except Ended as ended:
        print(f'{program}: {ended}', file=sys.stderr)
        sys.exit(ended.status)


def tool_parser(description: str) -> argparse.ArgumentParser:
    """The arguments that training and testing share, as OpenMMLab's tools have them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--work-dir', help="default: the config's own, or work_dirs/<config name>, and behind it "
                        "'_<method>' of another method, '_together' of several")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='override parts of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0)
    return parser


def prepare_process(launcher: str = 'none', local_rank: int = 0) -> None:
    """Before anything is built: refuse unsafe checkpoints, quiet what no user can act on, keep memory, and join the
    other processes on a CPU.
    """
    if launcher == 'pytorch':
        end_with_parent()
        meet_anew()
    forbid_unsafe_loading()
    keep_freed_memory()
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    warnings.filterwarnings('ignore', category=FutureWarning)
    if launcher == 'pytorch' and not torch.cuda.is_available() and not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')  # mmengine's own launcher knows GPUs only


def meet_anew() -> None:
    """After a restart by torchrun: the processes find each other through a store of their own, at MASTER_PORT plus the
    number of restarts.

    The agent's store lives on with a static rendezvous (``--master_addr``), and in it the addresses of the processes
    that died: who looks before the new ones are written there, calls the dead.
    """
    restarts = int(os.environ.get('TORCHELASTIC_RESTART_COUNT') or 0)
    if restarts and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == str(True):
        os.environ['TORCHELASTIC_USE_AGENT_STORE'] = str(False)
        os.environ['MASTER_PORT'] = str(int(os.environ['MASTER_PORT']) + restarts)


def keep_freed_memory() -> None:
    """Without a GPU: have glibc keep the memory of freed tensors for the next ones.

    By default it hands large ones back to the system, and each step asks for them anew, page by page, cleared by the
    kernel (docs/benchmarks.md). Other C libraries and systems are left as they are.
    """
    if sys.platform == 'linux' and not torch.cuda.is_available():
        most, trim_threshold, mmap_threshold = 2 ** 31 - 1, -1, -3  # the numbers are those of malloc.h
        with contextlib.suppress(AttributeError):  # no mallopt: not glibc
            allocator = ctypes.CDLL(None)
            allocator.mallopt(trim_threshold, most)
            allocator.mallopt(mmap_threshold, most)


def prepare_file(path: Path | None, where: str, suffixes: Sequence[str] = ()) -> None:
    """Before the work, make sure that its result can be written: make the folder, look at the name.

    Args:
        path: of the result; None for none.
        where: the argument that named it.
        suffixes: of which the name must have one; none given: any.

    Raises:
        ConfigError: if it has none of them, or if there can be no such file.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise ConfigError(f"{where}: '{path}' must end in {', '.join(suffixes)}")
    if why := unwritable(path.parent):
        raise ConfigError(f"{where}: '{path}' cannot be written ({why}); give another")
    path.parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def leaving_together() -> Iterator[None]:
    """End the process group after the work, once nothing of the work holds it any more.

    A group that is still alive when Python ends lets its threads release tensors of an interpreter that is gone, and
    the process aborts after its work is done, now and then. So the body is one call, whose locals are free when it
    returns.
    """
    try:
        yield
    except Ended as ended:
        traceback.clear_frames(ended.__traceback__)
        _leave()
        raise
    _leave()


def _leave() -> None:
    if torch.distributed.is_initialized():
        gc.collect()  # a distributed model is part of reference cycles
        torch.distributed.destroy_process_group()
