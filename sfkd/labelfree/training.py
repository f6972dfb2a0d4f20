"""The training of a student by a teacher alone, from a folder of pictures, in plain PyTorch."""
from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from .. import randomness
from ..checkpoint import load_weights, read_checkpoint, unwritable, write_checkpoint
from ..datasets import PictureFolder
from ..distillation import Distillation, Teacher
from ..distillation.cache import digest_of, digest_of_network
from ..distillation.teacher import normalisations_of
from ..errors import ConfigError
from ..openmmlab.resuming import Ended
from ..openmmlab.workers import Begin, started_deaf
from ..progress import Progress
from .crops import Crops, as_tensor, centre_crop, check_sizes, spread
from .drawing import draw_features
from .networks import Network, network_of

WEIGHT_DECAY, MAX_NORM = 0.05, 5.0  # as in the embedded benchmark's configs
WARM_UP, LOWEST = 500, 0.01  # steps, a tenth of the run at most; of the learning rate, at the end
SAVE_EVERY = 180.0  # seconds between two checkpoints
SHOWN = 6  # pictures, in the picture of the features


def distil(student: str, teacher: str, pictures: str, out: str, *, teacher_weights: str | None = None,
           student_weights: str | None = None, pretrained: bool = False, input_size: int = 224,
           epochs: int | None = None, steps: int | None = None, batch_size: int = 64, lr: float = 1e-3,
           workers: int = 2, amp: bool = False, seed: int = 0, device: str = 'auto', resume: bool = False,
           overwrite: bool = False) -> None:
    """Train a student by its teacher's features, and write its weights and a picture of both networks' features.

    Args:
        student, teacher: names of networks, see :func:`~sfkd.labelfree.networks.network_of`.
        pictures: a folder of any depth.
        out: a ``.safetensors`` or ``.pth`` file, of the student's weights under its library's names; the picture lies
            beside it, and until the end the checkpoint of the run.
        teacher_weights, student_weights: files of weights.
        pretrained: the teacher has its library's weights.
        input_size: H and W of the crops.
        epochs, steps: length; one of the two (default 10 epochs).
        batch_size, lr, workers, amp, seed, device: as usual; ``amp`` is bfloat16, 'auto' a GPU where there is one.
        resume: go on from the checkpoint of an interrupted run.
        overwrite: files of before may go.

    Raises:
        ConfigError: with what is wrong with the input.
        Ended: on SIGTERM or SIGINT, with a checkpoint.
    """
    saved = Path(out).with_suffix('.resume.pth')
    _check(out, saved, resume, overwrite, dict(epochs=epochs, steps=steps, input_size=input_size, batch_size=batch_size,
                                               lr=lr), dict(workers=workers, seed=seed))
    folder = PictureFolder(pictures)
    check_sizes(folder, input_size)
    steps = steps or math.ceil((epochs or 10) * len(folder) / batch_size)
    torch.manual_seed(seed)
    ours = network_of(student, '--student', input_size)
    theirs = network_of(teacher, '--teacher', input_size, pretrained, resized=True)
    if teacher.startswith(('timm:', 'torchvision:')) and not (pretrained or teacher_weights):
        raise ConfigError(f"--teacher: the weights of '{teacher}' would be random; give --teacher-weights FILE, or "
                          '--pretrained to download its own')
    if student_weights:
        _load(ours.module, student_weights)
    companion = _companion(ours, theirs, input_size)
    if teacher_weights:
        companion.teacher.load(teacher_weights, '--teacher-weights')
    run = dict(student=student, teacher=teacher, teacher_weights=teacher_weights, pictures=len(folder),
               digest_of_pictures=_digest_of(folder, pictures),
               digest_of_teacher=digest_of_network(companion.teacher.network), input_size=input_size, steps=steps,
               batch_size=batch_size, lr=lr, amp=amp, seed=seed)
    training = Training(ours, companion, Crops(folder, input_size, seed), steps, batch_size, lr, workers, amp,
                        _device(device), saved, run)
    print(f'{student} learns from {teacher}: {steps} steps of {batch_size} of {len(folder)} pictures at {input_size} '
          f'px, on {training.device}')
    for who, network in dict(student=ours, teacher=theirs).items():
        mean, std = (', '.join(f'{x:.3g}' for x in values) for values in (network.mean, network.std))
        print(f'  the {who} gets pictures of mean {mean} and std {std}, of values 0 to 1')
    print(companion.summary())
    if rest := companion.untaught():
        more = f' and {len(rest) - 1} layers more' if len(rest) > 1 else ''
        print(f"  behind the deepest pair, and not trained: '{rest[0]}'{more}")
    if resume:
        training.resume()
    training.run()
    write_checkpoint({key: value.cpu() for key, value in ours.module.state_dict().items()}, out)
    shown = [centre_crop(folder[i], input_size) for i in spread(folder, SHOWN)]
    seen, picture = training.normalised(torch.stack([as_tensor(x) for x in shown])), Path(out).with_suffix('.png')
    draw_features(ours.module, companion, shown, seen, picture)
    saved.unlink(missing_ok=True)
    print(f'{out}: {len(ours.module.state_dict())} tensors, for {ours.call}\n{picture}: what teacher and student see')


class Training:
    """Steps of AdamW, with a learning rate that warms up and then falls as a cosine.

    Args:
        student: is trained; its normalisation is that of the pictures.
        companion: beside it.
        crops: the pictures.
        steps, batch_size, lr, workers, amp, device: see :func:`distil`.
        saved: the checkpoint's file.
        run: what the run is; a checkpoint of another one is refused.
    """

    def __init__(self, student: Network, companion: Distillation, crops: Crops, steps: int, batch_size: int, lr: float,
                 workers: int, amp: bool, device: torch.device, saved: Path, run: dict):
        self.student, self.companion = student.module.to(device).train(), companion.to(device).train()
        self.crops, self.steps, self.batch_size, self.lr, self.workers = crops, steps, batch_size, lr, workers
        self.amp, self.device, self.saved, self.run_is, self.done = amp, device, saved, run, 0
        self.mean, self.std = (255 * torch.tensor(x, device=device).view(-1, 1, 1) for x in (student.mean, student.std))
        self.weights = [p for part in (self.student, self.companion) for p in part.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW([
            dict(params=[p for p in self.weights if p.dim() > 1], weight_decay=WEIGHT_DECAY),
            dict(params=[p for p in self.weights if p.dim() <= 1], weight_decay=0.0)], lr)

    def run(self) -> None:
        """From where the training is to its end.

        Raises:
            Ended: see :func:`distil`.
            ConfigError: if a loss is not finite.
        """
        progress = Progress(self.steps, math.ceil(len(self.crops.folder) / self.batch_size), self.done)
        written = time.monotonic()
        with _told_to_end() as told:
            for crops in self._batches():
                progress.step(self.step(self.normalised(crops)))
                ended = self.done == self.steps
                if ended or told or time.monotonic() - written > SAVE_EVERY:
                    self.save()  # in the end too: writing what came out may fail
                    written = time.monotonic()
                if ended:
                    break
                if told:
                    raise Ended(told[0], str(self.saved))

    def _batches(self) -> Iterator[Tensor]:
        places = range(self.done * self.batch_size, self.steps * self.batch_size)
        loader = DataLoader(self.crops, self.batch_size, sampler=places, num_workers=self.workers,
                            worker_init_fn=Begin(None), pin_memory=self.device.type == 'cuda',
                            generator=torch.Generator())  # of its own: the training's random numbers are the student's
        return started_deaf(lambda: iter(loader))

    def normalised(self, crops: Tensor) -> Tensor:
        """What the student gets of crops (N, 3, H, W), uint8."""
        return (crops.to(self.device, non_blocking=True).float() - self.mean) / self.std

    def step(self, pictures: Tensor) -> float:
        """One step, on normalised pictures; gives the loss.

        Raises:
            ConfigError: if it is not finite.
        """
        for group in self.optimizer.param_groups:
            group['lr'] = self.lr * factor(self.done, self.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp):
            with self.companion(pictures) as taught:
                self.student(pictures)
        value = taught.loss.item()
        if not math.isfinite(value):
            raise ConfigError(f'step {self.done + 1}: the loss is {value}; lower --lr, or leave out --amp'
                              + f". '{self.saved}' is of before" * self.saved.exists())
        self.optimizer.zero_grad()
        taught.loss.backward()
        nn.utils.clip_grad_norm_(self.weights, MAX_NORM)
        self.optimizer.step()
        self.done += 1
        return value

    # ---- interruptions ----

    def save(self) -> None:
        """Write all that the run needs to go on exactly."""
        write_checkpoint(dict(state_dict=self.student.state_dict(), companion=self.companion.state_dict(),
                              optimizer=self.optimizer.state_dict(), done=self.done, random=randomness.get_state(),
                              run=self.run_is), self.saved)

    def resume(self) -> None:
        """Go on from the checkpoint; from the beginning where there is none.

        Raises:
            ConfigError: if it is damaged, or of another run.
        """
        if not self.saved.exists():
            print(f"--resume: there is no '{self.saved}': the run begins anew")
            return
        found = read_checkpoint(str(self.saved), '--resume')
        if differ := [f'{key} was {found.get("run", {}).get(key)!r} and is {value!r}' for key, value in
                      self.run_is.items() if found.get('run', {}).get(key) != value]:
            raise ConfigError(f"--resume: '{self.saved}' is of another run: {'; '.join(differ)}. Give what it had, or "
                              'begin anew with --overwrite')
        try:
            self.student.load_state_dict(found['state_dict'])
            self.companion.load_state_dict(found['companion'])
            self.optimizer.load_state_dict(found['optimizer'])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--resume: '{self.saved}' does not fit these networks: {error}") from error
        randomness.set_state(found['random'])
        self.done = found['done']
        print(f'--resume: after step {self.done}')


def factor(step: int, steps: int) -> float:
    """Of the learning rate in a step, counted from 0: a line up to 1, then half a cosine down to :data:`LOWEST`."""
    warm = min(WARM_UP, max(steps // 10, 1))
    if step < warm:
        return (step + 1) / warm
    return LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1))) / 2


@contextlib.contextmanager
def _told_to_end() -> Iterator[list[int]]:
    """The signals that have asked for an end so far; a second one does what it always does."""
    told: list[int] = []

    def note(number: int, frame) -> None:
        told.append(number)
        signal.signal(number, handlers[number])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in handlers:
        signal.signal(number, note)
    try:
        yield told
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _digest_of(folder: PictureFolder, root: str) -> str:
    """Of the names of all pictures below the folder, which may lie elsewhere the next time, and their files' sizes."""
    paths = (folder.get_data_info(i)['img_path'] for i in range(len(folder)))
    return digest_of(*(f'{os.path.relpath(path, root)} {os.path.getsize(path) if os.path.exists(path) else ""}'
                       for path in paths))


def _companion(ours: Network, theirs: Network, size: int) -> Distillation:
    own, students = normalisations_of(student_mean=ours.mean, student_std=ours.std, teacher_mean=theirs.mean,
                                      teacher_std=theirs.std)
    return Distillation(ours.module, Teacher(theirs.module, own, students, theirs.size), input_size=size)


def _load(network: nn.Module, file: str) -> None:
    found = load_weights(network, file, '--student-weights')
    if not found.loaded:
        raise ConfigError(f"--student-weights: '{file}' is not of this student: its keys look like '{found.example}', "
                          f"the student's like '{found.not_loaded[0]}'")
    print(f'student: {found.loaded} weights from {file}; not in it: {", ".join(found.not_loaded) or "none"}')


def _device(name: str) -> torch.device:
    try:
        device = torch.device(('cuda' if torch.cuda.is_available() else 'cpu') if name == 'auto' else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise ConfigError(f"--device: '{name}' cannot be used ({str(error).partition(chr(10))[0]})") from error
    return device


def _check(out: str, saved: Path, resume: bool, overwrite: bool, positive: dict[str, float | None],
           natural: dict[str, int]) -> None:
    problems = [f'--{key.replace("_", "-")}: {value} is not above 0' for key, value in positive.items()
                if value is not None and not value > 0]
    problems += [f'--{key}: {value} is below 0' for key, value in natural.items() if value < 0]
    if None not in (positive['epochs'], positive['steps']):
        problems.append('--epochs and --steps: give one of the two')
    if Path(out).suffix not in ('.safetensors', '.pth'):
        problems.append(f"--out: '{out}' must end in .safetensors or .pth")
    for file in (Path(out), Path(out).with_suffix('.png')):
        if file.is_dir():
            problems.append(f"--out: '{file}' is a folder; give another")
        elif file.exists() and not overwrite:
            problems.append(f"--out: there is a '{file}' already; give another, or --overwrite")
    if why := unwritable(Path(out).parent):
        problems.append(f"--out: '{out}' cannot be written ({why}); give another")
    if saved.exists() and not (resume or overwrite):
        problems.append(f"--out: '{saved}' is of an interrupted run; go on with --resume, or begin anew with "
                        '--overwrite')
    if problems:
        raise ConfigError(problems)
