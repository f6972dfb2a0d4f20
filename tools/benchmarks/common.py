"""What the benchmarks share: fair timing of variants, their table and JSON, and the training steps of a pair."""
from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sfkd import SFKD  # noqa: E402
from sfkd.analysis.trial import initialise, random_samples, without_downloads  # noqa: E402
from sfkd.distillation import Teacher  # noqa: E402
from sfkd.distillation.precision import resolved  # noqa: E402
from sfkd.features.taps import Taps  # noqa: E402
from sfkd.openmmlab.configs import load_config  # noqa: E402
from sfkd.openmmlab.masks import picture_mask  # noqa: E402
from sfkd.openmmlab.process import prepare_process  # noqa: E402
from sfkd.registry import MODELS  # noqa: E402

#: The flagship pair of each task: its config and the image size and batch that a CPU takes seconds for.
PAIRS = dict(cls=('configs/sfkd/cls_swin_to_r18.py', (224, 224), 8),
             det=('configs/sfkd/det_maskrcnn_swin_t_to_retinanet_r50.py', (256, 416), 2),
             seg=('configs/sfkd/seg_upernet_swin_t_to_pspnet_r18.py', (512, 512), 2))


def parser(description: str, repeats: int) -> argparse.ArgumentParser:
    """The arguments of every benchmark."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    found.add_argument('--threads', type=int, default=1, help='of PyTorch on a CPU (default 1)')
    found.add_argument('--repeats', type=int, default=repeats,
                       help=f'counted rounds, each of which runs every variant once (default {repeats})')
    found.add_argument('--json', metavar='FILE', help='write the rows as a list')
    return found


def start(args: argparse.Namespace) -> None:
    """Fix threads and seed, and print what a figure needs beside it."""
    prepare_process()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.device != 'cpu' and not torch.cuda.is_available():
        sys.exit(f'--device {args.device}: this machine shows no GPU; leave it out for the CPU')
    processor = f'CPU {platform.machine()}, {args.threads} thread(s)'
    device = processor if args.device == 'cpu' else torch.cuda.get_device_name()
    print(f'{device}; Python {platform.python_version()}, torch {torch.__version__}; {args.repeats} rounds; '
          f'{" ".join(sys.argv)}')


def finish(args: argparse.Namespace, rows: list[dict]) -> None:
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + '\n')


def timed(work: Callable, device: str = 'cpu') -> float:
    """Seconds of one call: on a CPU those that this process computed, so that other programs count little; on a GPU to
    its last kernel's end.
    """
    if device == 'cpu':
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(variants: dict[str, Callable], repeats: int, device: str = 'cpu',
                warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each variant in each round. A round runs all of them, beginning with another one each time, so that
    what else the machine does meets every variant alike: compare within a round (:func:`ratio`)."""
    seconds = {name: [] for name in variants}
    names = list(variants)
    for i in range(-warm_up, repeats):
        turn = i % len(names)
        for name in names[turn:] + names[:turn]:
            taken = timed(variants[name], device)
            if i >= 0:
                seconds[name].append(taken)
    return seconds


def ratio(above: list[float], below: list[float]) -> tuple[float, float]:
    """The median over the rounds of ``above / below``, and the range that the middle half of the rounds spans."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    spread = 0.0
    if len(ratios) > 1:
        low, _, high = statistics.quantiles(ratios, n=4, method='inclusive')
        spread = high - low
    return statistics.median(ratios), spread


def milliseconds(seconds: list[float]) -> float:
    return 1e3 * statistics.median(seconds)


def show(rows: list[dict]) -> None:
    """A Markdown table."""
    def cell(value):
        return f'{value:.3g}' if isinstance(value, float) else '' if value is None else str(value)
    print('| ' + ' | '.join(rows[0]) + ' |\n|' + '---|' * len(rows[0]))
    for row in rows:
        print('| ' + ' | '.join(map(cell, row.values())) + ' |')


class Steps:
    """The training steps of a distillation config on one random batch; each method runs one.

    Args:
        config: a config whose model is ``SFKD``; the teacher's weights are random, which costs the same.
        size: (H, W).
        batch: pictures. Every second one of a detector's is narrower than the batch, as in real batches.
        device: 'cpu' or 'cuda'.
        amp: whether forward passes run under bfloat16 autocast.
        compiled: whether connectors and losses run compiled.
        options: more of the model's keys, such as ``levels``.
    """

    def __init__(self, config: str, size: tuple[int, int], batch: int, device: str = 'cpu', amp: bool = False,
                 compiled: bool = False, **options):
        config = load_config(str(ROOT / config) if not Path(config).is_file() else config)
        init_default_scope(config.get('default_scope', 'mmengine'))
        model = dict(config.model, input_size=size, **options)
        model.setdefault('data_preprocessor', config.get('data_preprocessor'))
        model.update(teacher=without_downloads(model['teacher'], 'model.teacher', model['data_preprocessor']),
                     teacher_ckpt='init')
        self.plain = initialise(copy.deepcopy(model['teacher'])).to(device)  # not compiled, whatever the options
        self.distiller = MODELS.build(model).to(device).train()
        self.student_model, self.network = self.distiller.student, self.distiller.distillation.teacher.network
        if compiled:
            for pair in self.distiller.distillation.pairs:
                for module in filter(None, (pair.connector, *pair.losses.values())):
                    module.compile(dynamic=False)  # pairs share code; inductor fails over strides of unknown sizes
        self.device, self.amp = device, amp
        own = self.distiller.distillation.teacher
        self.floor_teacher = Teacher(self.plain, input_size=own.input_size, precision='auto' if amp else 'fp32')
        self.floor_teacher.affine = own.affine
        self.floor_teacher.tap(Taps(self.plain, own.taps.paths, own.taps.raw, own.taps.stop), size)
        self.inputs = torch.randn(batch, 3, *size, device=device)
        samples = random_samples(self.network, size)  # mmrazor's step asks for what the teacher learns from: masks
        if hasattr(samples[1], 'gt_instances'):
            samples[1].set_metainfo(dict(img_shape=(size[0], size[1] * 3 // 4)))
        self.samples = [copy.deepcopy(samples[i % 2]).to(device) for i in range(batch)]
        self.mask = picture_mask(self.inputs, self.samples)
        self.optimizer = torch.optim.SGD(self.distiller.parameters(), lr=1e-6, momentum=0.9)

    def _train(self, model: Callable[..., dict]) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            losses = model(self.inputs, self.samples)
        loss, _ = self.distiller.parse_losses(losses)
        loss.backward()
        self.optimizer.step()

    def student(self) -> None:
        """The student's own training step."""
        self._train(lambda *batch: self.student_model(*batch, mode='loss'))

    def teacher(self) -> None:
        """The teacher's forward pass to its deepest tap, without gradients, in what the student trains in: the floor's
        part of it.
        """
        self._show(self.floor_teacher)

    def own_teacher(self) -> None:
        """The same in the precision that the distillation has it in."""
        self._show(self.distiller.distillation.teacher)

    def _show(self, teacher: Teacher) -> None:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            teacher(self.inputs, self.mask)

    @property
    def teacher_precision(self) -> str:
        """In which precision that is."""
        precision = self.distiller.distillation.teacher.precision
        return 'bf16' if precision == 'auto' and self.amp else resolved(precision, torch.device(self.device))

    def sfkd(self) -> None:
        self._train(lambda *batch: self.distiller(*batch, mode='loss'))

    def kd(self) -> Callable | None:
        """The step of logit distillation alone; None where the heads give no class scores."""
        if not any(pair.name == 'logits' for pair in self.distiller.distillation.pairs):
            return None
        distiller = SFKD(self.student_model, self.network, spatial_weight=0, frequency_weight=0, logit_weight=1,
                         input_size=self.distiller.distillation.input_size).to(self.device).train()
        return lambda: self._train(lambda *batch: distiller(*batch, mode='loss'))

    def mmrazor(self) -> Callable:
        """The same pairs, connectors and losses in the step of mmrazor 1.0."""
        step = MMRazorStep(self.student_model, copy.deepcopy(self.plain), self.distiller.distillation.pairs)
        return lambda: self._train(step)


class MMRazorStep(nn.Module):
    """What a training step of mmrazor 1.0.0 does, copied because that release refuses mmcv > 2.1.0.

    From ``SingleTeacherDistill.loss`` and ``.train``
    (mmrazor/models/algorithms/distill/configurable/single_teacher_distill.py) and
    ``ConfigurableDistiller.compute_distill_losses`` and ``.get_record``
    (mmrazor/models/distillers/configurable_distiller.py): the whole teacher runs in mode 'loss', its BatchNorm alone in
    eval mode; recorders hold every output until the next step; for each argument of each loss the record is fetched and
    its connector runs (ours connects both sides in one call, hence once a loss here). There is no mask.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, pairs: nn.ModuleList):
        super().__init__()
        self.student, self.teacher, self.pairs = student, teacher.train().requires_grad_(False), pairs
        for module in self.teacher.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        self.records: dict[tuple[str, str], Tensor] = {}

    def forward(self, inputs: Tensor, samples: list) -> dict[str, Tensor]:
        with torch.no_grad():
            self._recorded('teacher', inputs, samples)
        losses = {f'student.{key}': value for key, value in self._recorded('student', inputs, samples).items()}
        for pair in self.pairs:
            for key, loss in pair.losses.items():
                connected = self.records['student', pair.name], self.records['teacher', pair.name]
                if pair.connector is not None:
                    connected = pair.connector(*connected)
                losses[f'distill.{pair.name}.loss_{key}'] = pair.weights[key] * loss(*connected)
        return losses

    def _recorded(self, side: str, inputs: Tensor, samples: list) -> dict[str, Tensor]:
        network = getattr(self, side)
        taps = Taps.on(network, [getattr(pair, f'{side}_stage') for pair in self.pairs])
        with taps.capture(inputs.shape[2:]) as found:
            losses = network(inputs, samples, mode='loss')
        self.records |= {(side, pair.name): found[getattr(pair, f'{side}_path')] for pair in self.pairs}
        return losses
