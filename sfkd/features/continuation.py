"""What a frozen network makes of its maps, changed."""
from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..errors import ConfigError
from .layouts import as_map, cloned, hollow, part_of, with_maps
from .taps import split_path


class Continuation:
    """The rest of a network behind one of its modules: given other maps in the place of those that the module returned,
    what the network would have returned.

    A pass of the network is recorded first. In the continued pass all that ended before the module gives again what it
    gave in the recorded one, so that only what lies behind is computed, through which gradients reach the maps. Of most
    of it nothing depends then, and nothing is kept but its shape: a dry run tells.
    Works on any network whose layers are modules: what the modules that hold them do between two calls (a flatten, an
    addition) is done again.

    Args:
        network: frozen, in eval mode.
        paths: of the maps, as :class:`~sfkd.features.taps.Taps` names them, all of one module: a layer's, or levels of
            a neck's.
        run: runs the network on pictures (N, 3, H, W), up to what is asked for.
        computing: gives the context in which the network runs.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str], run: Callable[[Tensor], object],
                 computing: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext):
        self.network, self._run, self.computing = network, run, computing
        (self.module, ), self.indices = {split_path(path)[0] for path in paths}, [split_path(path)[1] for path in paths]
        self.before: dict[str, int] = {}  # what ends before the module, and how often
        self.kept: set[str] = {self.module}  # with those of it whose maps are read behind the module
        self.forget()

    def forget(self) -> None:
        """Let go of the recorded pass."""
        self._recorded: dict[str, list] = {}
        self._inputs: Tensor | None = None
        self.returned = None  # by the recorded pass

    def run(self, inputs: Tensor):
        """What the network returns for inputs (N, 3, H, W)."""
        with self.computing():
            return self._run(inputs)

    def look(self, pictures: Tensor) -> None:
        """Find out, in passes over pictures, what ends before the module, and what of it is needed behind it.

        Raises:
            ConfigError: if the module runs more than once.
        """
        ended, before = Counter(), []

        def begin(*_):
            before.append(Counter(ended))
        hooks = [self.network.get_submodule(self.module).register_forward_pre_hook(begin)]
        hooks += [module.register_forward_hook(lambda _, __, ___, path=path: ended.update([path]))
                  for path, module in self.network.named_modules() if path]
        try:
            self.run(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        if len(before) != 1:
            raise ConfigError(f"anchor: '{self.module}' runs {len(before)} times, and what the network makes of one of "
                              'its maps cannot be told; tap a module that runs once')
        # The outermost of what has ended: the rest lies within
        self.before = {path: count for path, count in before[0].items()
                       if not any(path.startswith(f'{other}.') for other in before[0])}
        everything = {*self.before, self.module}
        if not self._works({self.module}, pictures):
            self.kept = {path for path in everything
                         if path == self.module or not self._works(everything - {path}, pictures)}

    def _works(self, kept: set[str], pictures: Tensor) -> bool:
        """Whether a continued pass gives what the recorded one did, to the last bit, where only so much is kept."""
        self.kept = kept
        self.record(pictures)
        try:
            return _same(self(self.maps), self.returned)
        except (RuntimeError, ValueError):  # what has no memory was written to, or another number of outputs
            return False

    def record(self, inputs: Tensor) -> None:
        """Run the network on inputs (N, 3, H, W), outside of inference mode, and keep what a continued pass needs."""
        self.forget()
        self._inputs = inputs
        hooks = []

        def note(path, output):
            calls = self._recorded.setdefault(path, [])
            if path == self.module or len(calls) < self.before[path]:
                # a later layer may overwrite it
                calls.append(cloned(output) if path in self.kept else hollow(output))
        for path in (*self.before, self.module):
            module = self.network.get_submodule(path)
            hooks.append(module.register_forward_hook(lambda _, __, output, path=path: note(path, output)))
        try:
            self.returned = self.run(inputs)
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of the recorded pass."""
        return tuple(self._inputs.shape[2:])

    @property
    def maps(self) -> list[Tensor]:
        """The maps in the recorded pass, (N, C, h, w) each."""
        return [as_map(part_of(self._recorded[self.module][0], indices), self.image_size) for indices in self.indices]

    def __call__(self, maps: Sequence[Tensor]):
        """What the network returns with other maps, of the same shapes, in their place."""
        changed = with_maps(self._recorded[self.module][0], dict(zip(self.indices, maps, strict=True)), self.image_size)
        with contextlib.ExitStack() as stack:
            for path, calls in dict(self._recorded, **{self.module: [changed]}).items():
                stack.enter_context(_replayed(self.network.get_submodule(path), calls, path in self.kept))
            return self.run(self._inputs)


def last_to_end(network: nn.Module, paths: Sequence[str], run: Callable[[], object]) -> str:
    """Which of a network's modules ends last in a run of it; the last listed where none runs."""
    ended: list[str] = []
    hooks = [network.get_submodule(path).register_forward_hook(lambda *_, path=path: ended.append(path))
             for path in dict.fromkeys(paths)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return [*paths, *ended][-1]


def _same(a, b) -> bool:
    """Whether two outputs of a network have the same values."""
    pairs = zip(tree_leaves(a), tree_leaves(b), strict=True)
    return all(torch.equal(x, y) if torch.is_tensor(x) else x == y for x, y in pairs)


@contextlib.contextmanager
def _replayed(module: nn.Module, calls: list, kept: bool) -> Iterator[None]:
    """Within it, a module's first calls give what is listed, copies of it where it is kept; the later ones what they
    compute.
    """
    own, waiting, patched = module.forward, iter(calls), 'forward' in vars(module)

    def forward(*args, **kwargs):
        for output in waiting:
            return cloned(output) if kept else output
        return own(*args, **kwargs)
    module.forward = forward
    try:
        yield
    finally:
        if patched:
            module.forward = own
        else:
            del module.forward
