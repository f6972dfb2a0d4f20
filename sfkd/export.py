"""Any network as an ONNX file, which is compared with PyTorch before it gets its name."""
from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .checkpoint import written_whole
from .distillation.assembly import Size, as_size
from .errors import ConfigError
from .features.probe import unwrapped

TOLERANCE = 1e-4  # of the largest value of an output; float32 in another order gives about 1e-6
TRACED, CHECKED = 2, (1, 3)  # pictures in a batch: of the export, and of the comparison
OTHER_SIZE = (32, 64)  # by how many pixels pictures of another size are larger: a multiple of every stride


def export_onnx(model: nn.Module, path: str | Path, input_size: int | Size = 224, *, dynamic_size: bool = False,
                outputs: Sequence[str] = (), metadata: dict | None = None) -> float:
    """Write a network as an ONNX file for batches of any number of pictures, and compare it with PyTorch by
    onnxruntime.

    The network stays as it is: a copy in eval mode and float32, on the CPU, is exported. A file of that name stays too
    unless the new one has passed.

    Args:
        model: any module whose ``forward`` takes pictures (N, 3, H, W); its input is called ``images``.
        path: ends in ``.onnx``.
        input_size: (H, W) or one number.
        dynamic_size: whether height and width are free too, in steps of 32 from ``input_size``.
        outputs: names of the outputs, in their order; torch's own where there are none.
        metadata: ``{name: value}``, written as JSON into the file's ``metadata_props``.

    Returns:
        float: the largest difference between onnxruntime and PyTorch, relative to the largest value of an output, on
        random pictures.

    Raises:
        ConfigError: if a package is missing, if the network cannot be exported like this, or if the file differs from
            it.
    """
    _check_packages()
    import onnx
    path, size = Path(path), as_size(input_size)
    if path.suffix != '.onnx':
        raise ConfigError(f"'{path}' must end in .onnx")
    model = copy.deepcopy(unwrapped(model)).to('cpu', torch.float32).eval().requires_grad_(False)
    free = {0: 'batch', 2: 'height', 3: 'width'} if dynamic_size else {0: 'batch'}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter('ignore')
            program = torch.onnx.export(
                model, (torch.randn(TRACED, 3, *size), ), dynamo=True, verbose=False, input_names=['images'],
                output_names=list(outputs) or None, dynamic_shapes=(free, ))
    except Exception as error:  # whatever the network's own code raises, besides torch's exporter
        raise ConfigError(f"{_what(size, dynamic_size)}: torch.onnx.export refuses this network: "
                          f'{_reason(error)}{_way_out(dynamic_size)}') from error
    proto = program.model_proto
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in (metadata or {}).items()})
    sizes = [size] + [(size[0] + OTHER_SIZE[0], size[1] + OTHER_SIZE[1])] * dynamic_size
    named = [output.name for output in proto.graph.output]
    if outputs and len(outputs) != len(named):
        raise ConfigError(f'outputs: {len(outputs)} names, {list(outputs)}, for the {len(named)} that this network '
                          'gives; give as many')
    with written_whole(path) as temporary:
        onnx.save(proto, temporary)
        return _compare(model, temporary, sizes)


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"export to ONNX: '{error.name}' is not installed; pip install onnx onnxruntime onnxscript "
                          '(the extra sfkd[onnx])') from error


def _compare(model: nn.Module, file: str, sizes: Sequence[Size]) -> float:
    """How far a file's outputs are from the network's; see :func:`export_onnx`."""
    import onnx
    import onnxruntime
    try:
        onnx.checker.check_model(file, full_check=True)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised too
        session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # onnxruntime's errors have no common class
        raise ConfigError(f'the exported file is no valid ONNX: {_reason(error)}') from error
    names, worst = [output.name for output in session.get_outputs()], 0.0
    generator = torch.Generator().manual_seed(0)
    for size in sizes:
        where = _what(size, size is not sizes[0])
        for count in CHECKED:
            pictures = torch.randn(count, 3, *size, generator=generator)
            try:
                with torch.no_grad():
                    expected = [leaf for leaf in tree_leaves(model(pictures)) if torch.is_tensor(leaf)]
                found = session.run(None, {'images': pictures.numpy()})
            except Exception as error:
                raise ConfigError(f'{where}: the network or the exported file does not run on {count} pictures: '
                                  f'{_reason(error)}{_way_out(size is not sizes[0])}') from error
            for name, ours, theirs in zip(names, expected, map(torch.from_numpy, found), strict=True):
                if theirs.shape != ours.shape:
                    raise ConfigError(f"{where}: the exported '{name}' of {count} pictures is {tuple(theirs.shape)}, "
                                      f"PyTorch's {tuple(ours.shape)}{_way_out(size is not sizes[0])}")
                difference = _difference(ours, theirs)
                if not difference <= TOLERANCE:
                    raise ConfigError(f"{where}: the exported '{name}' of {count} pictures differs from PyTorch's by "
                                      f'{difference:.1e} of its largest value, where {TOLERANCE:.0e} is allowed'
                                      f'{_way_out(size is not sizes[0])}')
                worst = max(worst, difference)
    return worst


def _difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest finite value; of whole numbers and truths 0 or infinite."""
    differ = theirs != ours  # infinities, of masked classes, may be the same
    if not differ.any():
        return 0.0
    if not ours.is_floating_point():
        return math.inf
    largest = torch.where(ours.isfinite(), ours, 0).abs().max().clamp_min(1e-12)
    return float((theirs - ours)[differ].abs().max() / largest)


def _what(size: Size, dynamic: bool) -> str:
    return f"{'any height and width, tried' if dynamic else 'pictures of'} {size[0]}x{size[1]}"


def _way_out(dynamic: bool) -> str:
    return '; this network wants one size: leave out --dynamic-size (dynamic_size)' if dynamic else ''


def _reason(error: BaseException) -> str:
    """What the innermost error says, in one line: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]
