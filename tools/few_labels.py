"""What pictures without labels are worth: Fashion-MNIST's 60,000 teach a student by features, then 600 are labelled.

  python tools/few_labels.py --seeds 0 1 2 3 4

A student is fine-tuned on the labelled pictures (60 a class, drawn by the seed), and a linear probe reads its frozen,
pooled features: as initialised, and after its backbone learned from a teacher without labels. The teachers are our
Fashion-MNIST CNN, which has seen 50,000 labels itself, and EfficientNet-Lite0 with its ImageNet weights, which has
seen none of such pictures. Each start has the learning rate of the fine-tuning that is best for it on the last 10,000
training pictures, in seed 0; the rows are scores on the test pictures. Rows that are in --results are not made again.
"""
import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegressionCV
from torch import Tensor, nn

from sfkd import Distillation
from sfkd.analysis.intervals import interval, spread
from sfkd.checkpoint import load_weights, write_checkpoint
from sfkd.distillation import Teacher
from sfkd.labelfree.training import MAX_NORM, WEIGHT_DECAY, factor
from sfkd.openmmlab.building import build_model, normalisation_of, read_config
from sfkd.openmmlab.process import errors_for_people, prepare_process
from sfkd.progress import Progress
from sfkd.registry import MODELS

STUDENT, TEACHER = 'sfkd::fashion/resnet4.py', 'sfkd::fashion/resnet.py'
WEIGHTS, IMAGENET = 'sfkd::fashion/teachers/resnet.safetensors', 'sfkd::foundation/teachers/efficientnet_lite0.py'
STARTS = ('random', 'fashion', 'imagenet')
IMAGENET_SIZE = 64  # of the pictures that the ImageNet teacher sees
HELD_OUT, A_CLASS = 10_000, 60  # pictures for choosing, at the end; labelled ones of each class
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
TUNED_BY = 0  # the seed that chooses the rate


def pictures_of(split: str) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST's (N, 28, 28) uint8 and labels."""
    from mmpretrain.datasets import FashionMNIST
    found = FashionMNIST('data/fashion_mnist', split=split)
    items = [found.get_data_info(i) for i in range(len(found))]
    return torch.stack([torch.as_tensor(x['img']) for x in items]), torch.tensor([int(x['gt_label']) for x in items])


class Lessons:
    """A student, the pictures, and what is done with them.

    Args:
        student: a config of a classifier whose data preprocessor says how pictures are normalised.
        epochs: of distillation, over all training pictures.
        steps: of fine-tuning.
        batch_size, lr: of distillation.
    """

    def __init__(self, student: str, epochs: int, steps: int, batch_size: int, lr: float):
        config = read_config(student, '--student')
        self.model, self.processor = config.model, config.data_preprocessor
        self.mean, self.std = self.processor.mean[0], self.processor.std[0]
        self.epochs, self.steps, self.batch_size, self.lr = epochs, steps, batch_size, lr
        self.train, self.labels = pictures_of('train')
        self.test, self.test_labels = pictures_of('test')

    def student(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        student = build_model(self.model, 'student', self.processor, 'mmpretrain')
        student.init_weights()
        return student

    def shown(self, pictures: Tensor, mirrored: bool = True) -> Tensor:
        """What networks get: (N, 3, 28, 28), normalised; in training half of them mirrored, drawn at random."""
        x = ((pictures.float() - self.mean) / self.std).unsqueeze(1)
        flip = torch.rand(len(x), 1, 1, 1) < 0.5 if mirrored else torch.zeros(len(x), 1, 1, 1, dtype=torch.bool)
        return torch.where(flip, x.flip(3), x).expand(-1, 3, -1, -1)

    def distilled(self, teacher: str, seed: int, file: Path) -> nn.Module:
        """The student of a seed, taught without labels; read from its file where that is there."""
        student = self.student(seed)
        if file.exists():
            load_weights(student, str(file), 'the taught student')
            return student
        companion = Distillation(student, self._teacher(teacher, student), input_size=self.train.shape[1])
        weights = [p for part in (student, companion) for p in part.parameters()]
        optimizer = torch.optim.AdamW(weights, self.lr, weight_decay=WEIGHT_DECAY)
        per_epoch = len(self.train) // self.batch_size
        steps = self.epochs * per_epoch
        progress = Progress(steps, per_epoch)
        student.train()
        for step in range(steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(self.train)).split(self.batch_size)
            images = self.shown(self.train[order[step % per_epoch]])
            with companion(images) as taught:
                student.extract_feat(images)
            self._update(optimizer, taught.loss, weights, self.lr * factor(step, steps))
            progress.step(taught.loss.item())
        file.parent.mkdir(parents=True, exist_ok=True)
        write_checkpoint(dict(state_dict=student.state_dict()), file)
        return student

    @staticmethod
    def _teacher(name: str, student: nn.Module) -> Teacher:
        if name == 'imagenet':
            network = MODELS.build(read_config(IMAGENET, 'teacher').foundation)
            return Teacher(network, normalisation_of(network), normalisation_of(student, always=True),
                           (IMAGENET_SIZE, IMAGENET_SIZE))
        config = read_config(TEACHER, 'teacher')
        network = build_model(config.model, 'teacher', config.data_preprocessor, 'mmpretrain')
        load_weights(network, WEIGHTS, 'the teacher')
        return Teacher(network)

    def labelled(self, seed: int) -> Tensor:
        """Indices of the labelled pictures: so many of each class, none of those that are held out."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self.train) - HELD_OUT, generator=generator)
        labels = self.labels[order]
        return torch.cat([order[labels == label][:A_CLASS] for label in labels.unique()])

    @torch.inference_mode()
    def features(self, student: nn.Module, pictures: Tensor) -> Tensor:
        """(N, C), pooled as the student's head gets them."""
        student.eval()
        return torch.cat([student.head.pre_logits(student.extract_feat(self.shown(x, mirrored=False)))
                          for x in pictures.split(1000)])

    def probed(self, student: nn.Module, seed: int) -> float:
        """Accuracy in % of logistic regression on the features; its C by cross-validation on the labelled pictures."""
        chosen = self.labelled(seed)
        train, test = self.features(student, self.train[chosen]), self.features(student, self.test)
        mean, std = train.mean(0), train.std(0) + 1e-6
        probe = LogisticRegressionCV(Cs=7, cv=5, max_iter=2000).fit((train - mean) / std, self.labels[chosen])
        return 100 * probe.score((test - mean) / std, self.test_labels)

    @torch.inference_mode()
    def score(self, student: nn.Module, held_out: bool) -> float:
        """Accuracy in %, of the test pictures or of those held out."""
        images, labels = (self.train[-HELD_OUT:], self.labels[-HELD_OUT:]) if held_out else (self.test,
                                                                                            self.test_labels)
        student.eval()
        scores = torch.cat([student.head(student.extract_feat(self.shown(x, mirrored=False)))
                            for x in images.split(1000)])
        return 100 * (scores.argmax(1) == labels).float().mean().item()

    def fine_tuned(self, student: nn.Module, seed: int, lr: float) -> nn.Module:
        """The student after steps on the labelled pictures of a seed, whole batches of them."""
        torch.manual_seed(seed)
        images, labels = (x[self.labelled(seed)] for x in (self.train, self.labels))
        weights = list(student.parameters())
        optimizer = torch.optim.AdamW(weights, lr, weight_decay=WEIGHT_DECAY)
        student.train()
        for step in range(self.steps):
            chosen = torch.randperm(len(images))[:60]
            scores = student.head(student.extract_feat(self.shown(images[chosen])))
            self._update(optimizer, F.cross_entropy(scores, labels[chosen]), weights, lr * factor(step, self.steps))
        return student

    @staticmethod
    def _update(optimizer: torch.optim.Optimizer, loss: Tensor, weights: list[nn.Parameter], lr: float) -> None:
        for group in optimizer.param_groups:
            group['lr'] = lr
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, MAX_NORM)
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--student', default=STUDENT, help='a config of Fashion-MNIST')
    parser.add_argument('--starts', nargs='+', choices=STARTS, default=STARTS)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument('--epochs', type=int, default=5, help='of distillation')
    parser.add_argument('--steps', type=int, default=1500, help='of fine-tuning, 60 pictures each')
    parser.add_argument('--batch-size', type=int, default=200, help='of distillation')
    parser.add_argument('--lr', type=float, default=3e-3, help='of distillation')
    parser.add_argument('--results', type=Path, default=Path('docs/results/few_labels.jsonl'))
    args = parser.parse_args()
    prepare_process()
    rows = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    with errors_for_people():
        lessons = Lessons(args.student, args.epochs, args.steps, args.batch_size, args.lr)
        rates = {}
        for seed in args.seeds:
            for start in args.starts:
                key = dict(student=args.student, start=start, seed=seed, epochs=args.epochs, steps=args.steps)
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append(key | row_of(lessons, start, seed, rates))
                args.results.parent.mkdir(parents=True, exist_ok=True)
                with args.results.open('a') as file:
                    file.write(json.dumps(rows[-1]) + '\n')
                print(rows[-1], flush=True)
    print(table([row for row in rows if row['student'] == args.student]))


def row_of(lessons: Lessons, start: str, seed: int, rates: dict[str, float]) -> dict:
    """Scores on the test pictures, in %; ``rates`` gets the learning rate that is best for the start."""
    began = time.time()

    def begun(seed: int) -> nn.Module:
        file = Path(f'work_dirs/few_labels/{start}_{seed}_{lessons.epochs}.pth')
        return lessons.student(seed) if start == 'random' else lessons.distilled(start, seed, file)
    if start not in rates:
        found = {lr: lessons.score(lessons.fine_tuned(begun(TUNED_BY), TUNED_BY, lr), held_out=True) for lr in RATES}
        rates[start] = max(found, key=found.get)
        print(f'{start}: held out, by learning rate: {found}', flush=True)
    student = begun(seed)
    probe = lessons.probed(student, seed)
    tuned = lessons.score(lessons.fine_tuned(student, seed, rates[start]), held_out=False)
    return dict(probe=probe, fine_tuned=tuned, lr=rates[start], seconds=round(time.time() - began))


def table(rows: list[dict]) -> str:
    """Mean and standard deviation of each start, and what it gains over random weights, by seed, with 95% intervals."""
    lines = ['| backbone | linear probe | minus random | fine-tuned | minus random | learning rate |', '|' + '---|' * 6]
    of = {start: {row['seed']: row for row in rows if row['start'] == start} for start in STARTS}
    for start, found in of.items():
        if not found:
            continue
        cells = []
        for what in ('probe', 'fine_tuned'):
            shared = [seed for seed in found if seed in of['random']]
            gain = interval([found[seed][what] - of['random'][seed][what] for seed in shared]) if shared else ''
            cells += [spread([row[what] for row in found.values()]), '' if start == 'random' else gain]
        lines.append(f"| {start} | {' | '.join(cells)} | {next(iter(found.values()))['lr']:g} |")
    return '\n'.join(lines)


if __name__ == '__main__':
    main()
