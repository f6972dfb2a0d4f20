"""In which precision a frozen network computes."""
from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from ..errors import ConfigError

PRECISIONS = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
AUTO = 'auto'


def check_precision(precision: str, where: str) -> str:
    """The same precision.

    Raises:
        ConfigError: if it is none.
    """
    if precision not in (AUTO, *PRECISIONS):
        raise ConfigError(f"{where}: {precision!r} is none of '{AUTO}', {', '.join(map(repr, PRECISIONS))}")
    return precision


def fast_precision(device: torch.device) -> str:
    """What a device multiplies matrices fastest in, of the precisions that lose no accuracy as a teacher's
    (docs/benchmarks.md): bf16 where it has instructions for that, fp16 on older GPUs, else fp32."""
    if device.type == 'cuda':
        return 'bf16' if torch.cuda.is_bf16_supported(including_emulation=False) else 'fp16'
    if device.type == 'cpu' and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return 'bf16'
    return 'fp32'


def resolved(precision: str, device: torch.device) -> str:
    """What 'auto' stands for on a device, outside of any autocast; any other precision as it is."""
    return fast_precision(device) if precision == AUTO else precision


def computing_in(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """A context in which a network of float32 computes in a precision, whatever holds outside of it.

    Args:
        precision: of :data:`PRECISIONS`; 'auto' is that of an autocast that is on already, and otherwise
            :func:`fast_precision`.
        device: of the network.
    """
    if precision == AUTO and torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    dtype = PRECISIONS[resolved(precision, device)]
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


def handed_on(pictures: Tensor, connectors: torch.dtype | None = None) -> torch.dtype | None:
    """The type in which the losses want what a network made of pictures: None, whatever it has, where they are computed
    in mixed precision too; else that of the connectors' weights; where there are none the pictures', or float32 where
    those are whole numbers.
    """
    if torch.is_autocast_enabled(pictures.device.type):
        return None
    if connectors is not None:
        return connectors
    return pictures.dtype if pictures.is_floating_point() else torch.float32
