"""The frozen teacher: absent from everything that trains, saves or averages the student."""
from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from ..checkpoint import load_weights
from ..errors import ConfigError
from ..features.continuation import Continuation
from ..features.layouts import lay_out
from ..features.probe import random_pictures, run_of, unwrapped
from ..features.taps import Taps
from ..ops import TabulatedActivations
from .assembly import as_size
from .precision import AUTO, check_precision, computing_in, handed_on, resolved


class Normalisation(NamedTuple):
    """How a network's pictures are normalised: ``(x - mean) / std``.

    Attributes:
        mean, std: (3,), in the order of the channels that the network gets; of values 0 to 255 in OpenMMLab, elsewhere
            in any unit that student and teacher share.
        reversed: whether these are the loaded channels (BGR with OpenCV) in reverse.
    """
    mean: Tensor
    std: Tensor
    reversed: bool = False


class Shown(nn.Module):
    """A network as a function of pictures that returns what some of its modules gave, which a compiler can follow:
    hooks that come and go it cannot.

    Args:
        network: has hooks until :meth:`close`.
        modules: their paths.
    """

    def __init__(self, network: nn.Module, modules: list[str]):
        super().__init__()
        self.network, self.modules = network, tuple(modules)
        self.calls: list[tuple[str, object]] | None = None  # of the pass of ours that is running
        self.hooks = [network.get_submodule(path).register_forward_hook(
            lambda _, __, output, path=path: self._note(path, output)) for path in modules]

    def _note(self, path: str, output: object) -> None:
        if self.calls is not None:  # others may run the network too
            self.calls.append((path, output))

    def forward(self, pictures: Tensor) -> list[tuple[str, object]]:
        """
        Args:
            pictures: (N, 3, H, W).

        Returns:
            list: (path, output) in the order of the calls.
        """
        self.calls = []
        run_of(self.network, self.modules)(pictures)
        calls, self.calls = self.calls, None  # nothing is held until the next pass
        return calls

    def close(self) -> None:
        """Take the hooks away."""
        for hook in self.hooks:
            hook.remove()


class Teacher:
    """A network that only shows its features.

    Not an ``nn.Module``, so that the module holding it has it in no ``state_dict()``, no ``parameters()``, no
    optimizer, no DDP and no EMA copy, and cannot switch it to train mode. ``to()``, ``cuda()`` and ``half()`` of that
    module reach it through :meth:`apply_`.

    Args:
        network: becomes frozen and eval; its ``forward`` takes pictures alone. DDP or ``torch.compile`` around it are
            taken off.
        own: how its pictures were normalised when it was trained; None takes the student's pictures as they are.
        student: how the student's are, needed beside ``own``. Where the two differ, one affine map turns the student's
            pictures into the teacher's.
        input_size: (H, W), or one number, to which pictures are resized for the teacher; None keeps the student's.
        precision: what the network computes in, whatever the student does: 'fp32', 'bf16', 'fp16'; 'auto': as the
            student where that trains in mixed precision, otherwise what the device has fast instructions for
            (:func:`~sfkd.distillation.precision.fast_precision`). Its weights stay what they are, and what is computed
            in 'fp32' is computed in their type.
        compiled: run the network through ``torch.compile``, from the first step on, which takes minutes. What nobody
            taps is not computed, whatever the order in which the layers run.

    Raises:
        ConfigError: if the precision is none of these, or if nobody says how the student's pictures are normalised
            beside those of the teacher.
    """

    def __init__(self, network: nn.Module, own: Normalisation | None = None, student: Normalisation | None = None,
                 input_size: int | tuple[int, int] | None = None, precision: str = AUTO, compiled: bool = False):
        if own is not None and student is None:
            raise ConfigError("Teacher: own says how the teacher's pictures are normalised, and nothing how the "
                              "student's are, which it is shown; give student=Normalisation(mean, std) too")
        self._hold(unwrapped(network).eval().requires_grad_(False))
        self.asked = self.precision = check_precision(precision, 'teacher_precision')
        self.input_size = as_size(input_size) if input_size else None
        self.affine = self._affine(student, own, next(self.network.parameters()).device) if student and own else None
        self.channels_last, self._laid_out = True, False  # whether it may be so in half precision, whether it is
        self.compiled = compiled
        self._tried: torch.device | None = None  # where layout and precision are known to work
        self._forget()

    def _hold(self, network: nn.Module) -> None:
        self.network, self._modules = network, tuple(network.modules())

    def _forget(self) -> None:
        """Read nothing, as at first."""
        self.taps: Taps | None = None
        self._shown: Shown | None = None
        self._compiled: Callable[[Tensor], list] | None = None
        self.rest: Continuation | None = None  # what follows one of the taps, where a pair asks for that
        self._begun: set[str] = set()
        self._ended: set[str] = set()

    def again(self) -> Teacher:
        """The same network, to be read by somebody else too."""
        other = copy.copy(self)
        other._forget()
        return other

    def copied(self) -> Teacher:
        """One with a network of its own, which reads the same."""
        other = self.again()
        network, other.taps, other.rest = copy.deepcopy((self.network, self.taps, self.rest))
        other._hold(network)
        if self._compiled is not None:
            other.read(other.taps)
        return other

    @staticmethod
    def _affine(student: Normalisation, teacher: Normalisation,
                device: torch.device) -> tuple[Tensor, Tensor, bool] | None:
        """(scale, shift, flip) with teacher_input = flip(student_input) * scale + shift; None where nothing differs."""
        (s_mean, s_std, s_reversed), (t_mean, t_std, t_reversed) = student, teacher
        flip = s_reversed != t_reversed
        if flip:
            s_mean, s_std = s_mean.flip(0), s_std.flip(0)
        if not flip and torch.equal(s_mean, t_mean) and torch.equal(s_std, t_std):
            return None
        scale, shift = ((values / t_std).view(1, -1, 1, 1).to(device) for values in (s_std, s_mean - t_mean))
        return scale, shift, flip

    def load(self, checkpoint: str, where: str = 'model.teacher_ckpt') -> None:
        """Load a checkpoint and report every key that did not fit.

        Args:
            checkpoint: a ``.pth`` or ``.safetensors`` file, or an http(s) or ``open-mmlab://`` address.
            where: the config key, for messages.

        Raises:
            ConfigError: if the file is missing, damaged or unsafe, or if it leaves a weight that the taps need at
                random.
        """
        keys = load_weights(self.network, checkpoint, where)
        needed = [key for key in keys.not_loaded if self._runs(key)]
        if needed:
            total = len(keys.not_loaded) + keys.loaded
            raise ConfigError(
                f"{where}: '{checkpoint}' is not of this teacher: {len(needed)} weights that the taps need are missing "
                f"or of another shape (such as '{needed[0]}'{keys.why(needed[0])}), {keys.loaded} of {total} were "
                f"found. Keys in the file look like '{keys.example}'. Give the checkpoint of the config in "
                'model.teacher; a distillation checkpoint must go through tools/export_student.py first')
        print_log(f'teacher: {keys.loaded} weights from {checkpoint}', 'current')
        if keys.not_loaded or keys.unused:
            print_log(f'teacher: not loaded (no tap needs them): {keys.not_loaded or "none"}; '
                      f'in the file but not in the model: {keys.unused or "none"}', 'current')

    def _runs(self, key: str) -> bool:
        """Whether the weight is of a module that runs before the deepest tap.

        Some modules use a child's weights without calling it (attention its ``out_proj``): those of a parent that ran
        to its end count too.
        """
        owner = key.rpartition('.')[0]
        return owner in self._begun or owner.rpartition('.')[0] in self._ended

    def tap(self, taps: Taps, image_size: tuple[int, int]) -> dict[str, Tensor]:
        """Set what to read, and read it once from two random pictures of ``image_size``, noting which modules have
        run.
        """
        self._see(taps)
        self._begun, self._ended = set(), set()
        hooks = []
        for path, module in self.network.named_modules():
            hooks += [module.register_forward_pre_hook(lambda _, __, path=path: self._begun.add(path)),
                      module.register_forward_hook(lambda _, __, ___, path=path: self._ended.add(path))]
        try:
            self._tried = None  # what others tap may want another layout
            features = self(random_pictures(self.network, image_size))
        finally:
            for hook in hooks:
                hook.remove()
        self.read(taps)
        return features

    def read(self, taps: Taps) -> None:
        """Set what to read from now on."""
        self._see(taps)
        if not self.compiled:
            return
        if self.rest is not None:
            raise ConfigError('teacher_compile: the anchor asks for the rest of the teacher layer by layer, which a '
                              'compiled one does not show; leave out one of the two')
        self._shown = Shown(self.network, taps.modules)
        self._compiled = torch.compile(self._shown)

    def _see(self, taps: Taps) -> None:
        """Set what to read, not compiled."""
        if self._shown is not None:
            self._shown.close()
        self.taps, self._shown, self._compiled = taps, None, None

    def _first_run(self, inputs: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """A call, the first on a device, in the first layout and precision that the network runs in there: some layers
        want maps in the usual layout, and some operators exist in float32 alone.

        Raises:
            ConfigError: where it does not run in the precision that was asked for, but in float32.
        """
        asked, first, features = self.asked, None, None
        self._tried = inputs.device
        try:
            for self.channels_last, self.precision in (True, asked), (False, asked), (False, 'fp32'):
                try:
                    self._lay_out()
                    features = self(inputs, mask)
                    break
                except torch.OutOfMemoryError:
                    raise  # fewer pictures may do
                except (RuntimeError, NotImplementedError) as error:
                    first = first or error
            else:
                raise first  # which is not of the precision
        finally:
            if features is None:  # the next call is the first again
                self.channels_last, self.precision, self._tried = True, asked, None
        if self.precision != asked:
            if asked != AUTO:
                raise ConfigError(f"teacher_precision: '{type(self.network).__name__}' does not run in {asked} "
                                  f"({first}); give 'fp32', or leave it out") from first
            print_log(f'teacher: in float32, as it does not run in less ({first})', 'current')
        return features

    def _lay_out(self) -> None:
        """The weights of convolutions as their faster kernels in half precision want them; in float32 as they came."""
        half = resolved(self.precision, next(self.network.parameters()).device) != 'fp32'
        if (half and self.channels_last) != self._laid_out:
            self._laid_out = not self._laid_out
            lay_out(self.network, torch.channels_last if self._laid_out else torch.contiguous_format)

    def computing(self) -> contextlib.AbstractContextManager:
        """The context in which the network, or what is left of it behind a tap, computes in its precision. What sends
        gradients back (the rest that an anchor asks for) computes in float32 where that would be float16 and nobody
        scales the loss: small gradients vanish there.
        """
        device = next(self.network.parameters()).device
        unscaled = self.rest is not None and not torch.is_autocast_enabled(device.type)
        vanish = unscaled and resolved(self.precision, device) == 'fp16'
        return computing_in('fp32' if vanish else self.precision, device)

    def __call__(self, inputs: Tensor, mask: Tensor | None = None, rows: list[int] | None = None) -> dict[str, Tensor]:
        """Read the taps.

        Args:
            inputs: (N, 3, H, W), as normalised for the student.
            mask: (N, 1, H, W), 1 where there is picture: padding is 0 for the teacher too, whatever its normalisation.
            rows: unused; a cache in the teacher's place finds its rows by them.

        Returns:
            dict: ``{path: (N, C, h, w) map, or raw output}``, without gradients; in float32 where the student does
                not train in mixed precision.
        """
        # Another module that holds it, or a part of it, was told to train
        if any(module.training for module in self._modules):
            self.network.eval()
        if self._tried != inputs.device and self._compiled is None:
            return self._first_run(inputs, mask)
        # What is of inference mode could not go through the rest of the network together with a map that learns
        with torch.inference_mode() if self.rest is None else torch.no_grad():
            full, inputs = handed_on(inputs), self._own(inputs, mask)
            tabulated = inputs.device.type == 'cpu' and self._compiled is None
            with self.computing(), TabulatedActivations() if tabulated else contextlib.nullcontext():
                return self._features(inputs, full)

    def _features(self, inputs: Tensor, full: torch.dtype | None) -> dict[str, Tensor]:
        size = inputs.shape[2:]
        if inputs.is_floating_point() and not torch.is_autocast_enabled(inputs.device.type):
            inputs = inputs.to(next(self.network.parameters()).dtype)
        if self._compiled is not None:
            return self.taps.read(self._compiled(inputs), size, full)
        with self.taps.capture(size, full) as features:
            (run_of(self.network, self.taps.modules) if self.rest is None else self.rest.record)(inputs)
        return features

    def _own(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """The pictures as this network expects them."""
        # torch 2.6's autocast would keep its copy of pictures that take gradients, born here, for the student
        inputs = inputs.detach()
        if self.affine is not None:
            scale, shift, flip = self.affine
            inputs = torch.addcmul(shift, inputs.flip(1) if flip else inputs, scale)
            inputs = inputs if mask is None else inputs * mask
        if self.input_size and inputs.shape[2:] != self.input_size:
            inputs = F.interpolate(inputs, self.input_size, mode='bilinear', antialias=True)
        return inputs

    def apply_(self, function: Callable[[Tensor], Tensor]) -> None:
        """Move or cast all of the teacher's tensors, as ``nn.Module._apply`` does."""
        self.network._apply(function)
        # parts that keep a device beside their tensors learn it by .to() alone
        self.network.to(next(self.network.parameters()).device)
        self._tried = None
        self._lay_out()
        if self.affine is not None:
            self.affine = (*map(function, self.affine[:2]), self.affine[2])

    def changed_by(self, function: Callable[[Tensor], Tensor]) -> bool:
        """Whether :meth:`apply_` would change the weights' type or device."""
        weight = next(self.network.parameters()).detach().flatten()[:0]
        other = function(weight)
        return (other.dtype, other.device) != (weight.dtype, weight.device)

    def __deepcopy__(self, memo) -> Teacher:
        return self  # frozen: an EMA copy of the student needs no second teacher


def teacher_of(network: nn.Module | Teacher, **normalisations: Sequence[float] | None) -> Teacher:
    """A teacher that is one already, or that is made of a network.

    Args:
        network: either.
        normalisations: ``student_mean``, ``student_std``, ``teacher_mean``, ``teacher_std``, see
            :class:`~sfkd.distillation.Distillation`.

    Raises:
        ConfigError: if a normalisation is wrong, or given beside a teacher that has its own.
    """
    own, student = normalisations_of(**normalisations)
    if not isinstance(network, Teacher):
        return Teacher(network, own, student)
    if own is not None:
        raise ConfigError('teacher_mean: a Teacher knows how its pictures are normalised; give mean and std there')
    return network if network.taps is None else network.again()


def normalisations_of(**given: Sequence[float] | None) -> tuple[Normalisation | None, Normalisation | None]:
    """The teacher's and the student's normalisation; None twice where nothing is given.

    Args:
        given: ``student_mean``, ``student_std``, ``teacher_mean``, ``teacher_std``.

    Raises:
        ConfigError: if some are missing, or one is no list of as many numbers, stds above 0, as the first.
    """
    if all(value is None for value in given.values()):
        return None, None
    if missing := [key for key, value in given.items() if value is None]:
        raise ConfigError(f'{missing[0]}: None beside other means and stds; give all four, or none where both networks '
                          'take the same pictures')
    try:
        tensors = {key: torch.tensor(value, dtype=torch.float32) for key, value in given.items()}
    except (TypeError, ValueError, RuntimeError):
        tensors = {}
    wrong = [key for key, value in given.items()
             if key not in tensors or tensors[key].dim() != 1 or len(tensors[key]) != len(tensors['student_mean'])
             or not tensors[key].isfinite().all() or key.endswith('std') and not (tensors[key] > 0).all()]
    if wrong:
        raise ConfigError([f'{key}: {given[key]!r} is no list of numbers{" above 0" * key.endswith("std")}, one a '
                           'channel' for key in wrong])
    return (Normalisation(tensors['teacher_mean'], tensors['teacher_std']),
            Normalisation(tensors['student_mean'], tensors['student_std']))
