"""Dress rehearsal: every config of configs/sfkd through its own pipeline, on tiny data laid out as the real.

Each config is checked, trained for half of its iterations, validated, killed (SIGKILL), resumed to the end, exported,
and scored by the stock library's own test tool with the student's stock config. In the work directory lie data/, the
checkout's configs/, and a stand-in with random weights for every published checkpoint, under the name by which torch
would keep the download; so no path and no address of a config is overridden. OVERRIDES says what is.
"""
from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import checkpoint as model_names

from sfkd.checkpoint import read_checkpoint, write_checkpoint
from sfkd.datasets import miniature
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model, initialise, read_config
from sfkd.openmmlab.configs import is_distillation, student_config

ROOT = Path(__file__).resolve().parents[2]
HALF = 5  # iterations before the kill, and after it
OVERRIDES = f"""\
  train_cfg                       2 epochs of {HALF} iterations, or {2 * HALF} iterations, validated every {HALF}
  default_hooks.checkpoint        where training counts iterations: interval={HALF}
  default_hooks.logger            interval=1, so that every loss is seen
  *_dataloader.num_workers        1
  train_dataloader.batch_size     4 (classification), 1 (detection), 2 (segmentation: PSPNet's norms need two)
  val_ and test_dataloader        batch_size=4 (classification)
  score_thr of the detectors      0, so that after {2 * HALF} iterations there are boxes to score
  *_dataloader.dataset.type       CIFAR-100: mmpretrain's class without the MD5 sums, which only the real files have"""
BATCH = dict(mmpretrain=4, mmdet=1, mmseg=2)
#: the pictures that give an epoch HALF iterations; the last batch of classification is not full
MAKERS = {
    'imagenet': lambda root: miniature.make_imagenet(root, train=4 * HALF - 1, val=6),
    'cifar100': lambda root: miniature.make_cifar100(root, train=4 * HALF - 1, val=6),
    'coco': lambda root: miniature.make_coco(root, train=HALF, val=3),
    'ade/ADEChallengeData2016': lambda root: miniature.make_ade20k(root, train=5, val=2),
}
STAGES = ('stand-ins', 'train', 'resume', 'export', 'stock test')
# The library's own tool as it is; only, where mmcv has no compiled operators, sfkd gives it torch's before mmdet asks
STOCK_TOOL = ('-c',
              'import sys, runpy, sfkd; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")')


class Failure(Exception):
    """A stage did not do what it should."""


def overrides(config: Config) -> list[str]:
    """The ``--cfg-options`` of every training, as OVERRIDES lists them."""
    options = ['default_hooks.logger.interval=1']
    if config.train_cfg.get('max_iters'):
        options += [f'train_cfg.max_iters={2 * HALF}', f'train_cfg.val_interval={HALF}',
                    f'default_hooks.checkpoint.interval={HALF}']
    else:
        options.append('train_cfg.max_epochs=2')
    options.append(f'train_dataloader.batch_size={BATCH[config.default_scope]}')
    if is_distillation(config):
        return options + other_overrides(config, ('train', 'val', 'test'), config.model.student, 'model.student')
    return options + other_overrides(config, ('train', 'val', 'test'), config.model)


def other_overrides(config: Config, splits: tuple[str, ...], student: dict, at: str = 'model') -> list[str]:
    """What testing shares with training: of some splits, and of the student, which is at ``at``."""
    options = []
    if config.default_scope == 'mmdet':
        options.append(f'{at}.test_cfg.{"rcnn." if "rcnn" in student.test_cfg else ""}score_thr=0.0')
    for split in splits:
        options.append(f'{split}_dataloader.num_workers=1')
        if split != 'train' and config.default_scope == 'mmpretrain':
            options.append(f'{split}_dataloader.batch_size={BATCH["mmpretrain"]}')
        if config[f'{split}_dataloader'].dataset.type == 'CIFAR100':
            options.append(f'{split}_dataloader.dataset.type=sfkd.datasets.miniature.CIFAR100WithoutSums')
    return options


def stock_config(path: Path) -> Path:
    """The config that trains the same student alone: a distillation config's base, any other config itself."""
    if not is_distillation(Config.fromfile(path)):
        return path
    base, = bases if isinstance(bases := Config._get_base_files(str(path)), list) else [bases]
    found, _ = Config._get_cfg_path(base, str(path))
    return Path(found)


class Rehearsal:
    """One config's stages, in the work directory of all."""

    def __init__(self, folder: Path, path: Path):
        self.folder, self.path = folder, path
        self.config = Config.fromfile(path)
        self.work_dir = folder / 'work_dirs' / path.stem
        self.exported = self.work_dir / 'exported.pth'
        self.by_epoch = not self.config.train_cfg.get('max_iters')
        self.seen: dict = {}

    def stand_ins(self) -> None:
        """Random weights for each published checkpoint that training will ask for, under the name of its download."""
        spec = self.config.model
        student = student_config(self.config).model if is_distillation(self.config) else spec
        for address, prefix in pretrained(student):
            self._stand_in(address, lambda: backbone_weights(student, self.config.default_scope, prefix))
        if is_distillation(self.config):
            self._stand_in(spec.teacher_ckpt, lambda: random_weights(read_config(spec.teacher, 'teacher')))
        if self.config.get('load_from'):
            published = Config.fromfile(self.path)
            published.model.head.num_classes = 1000
            self._stand_in(published.load_from, lambda: random_weights(published))

    def _stand_in(self, address: str, make) -> None:
        target = self.folder / address
        if '://' in address:
            target = self.folder / 'hub/checkpoints' / download_address(address).rpartition('/')[2]
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_checkpoint(make(), target)

    def train(self) -> None:
        """Half of the iterations, validation and checkpoint, and then SIGKILL at once."""
        shutil.rmtree(self.work_dir, ignore_errors=True)
        self.work_dir.mkdir(parents=True)
        validated = re.compile(r'\(val\) (\[1\])?\[(\d+)/\2\] +(?!eta)\S')  # the line with the scores
        with open(self.work_dir / 'train.txt', 'w') as log:
            process = self._start('tools/train.py', name_of(self.path), '--cfg-options', *overrides(self.config),
                                  log=log)
            try:
                while process.poll() is None and not validated.search(Path(log.name).read_text()):
                    time.sleep(0.2)
            finally:
                end(process)
            status = process.wait()
        if status != -signal.SIGKILL:
            raise Failure(f'ended by itself, status {status}: {tail(log.name)}')
        if not (self.work_dir / 'last_checkpoint').exists():
            raise Failure('validated, but without a checkpoint')
        self._check_losses(HALF)

    def resume(self) -> None:
        """From the checkpoint to the end of training."""
        text = self._run('resume.txt', 'tools/train.py', name_of(self.path), '--resume', '--cfg-options',
                         *overrides(self.config))
        place = 'resumed epoch: 1' if self.by_epoch else f'resumed epoch: 0, iter: {HALF}'
        if place not in text:
            raise Failure(f"its log does not say '{place}'")
        if is_distillation(self.config) and not (self.work_dir / 'student_latest.pth').exists():
            raise Failure('no student_latest.pth')
        self._check_losses(2 * HALF)
        best = self.config.default_hooks.checkpoint.get('save_best')
        if best and not list(self.work_dir.glob('best_*.pth')):
            raise Failure(f'save_best={best}, but there is no best_*.pth')
        if self.path.parent.name == 'teachers':  # its students' configs name the last epoch of the whole training
            shutil.copyfile(self.work_dir / 'epoch_2.pth', self.work_dir / self._last)

    def export(self) -> None:
        last = Path((self.work_dir / 'last_checkpoint').read_text())
        if is_distillation(self.config):  # the two ways to a student give the same
            latest = read_checkpoint(str(self.work_dir / 'student_latest.pth'), 'student')['state_dict']
        else:
            latest = None
        self._run('export.txt', 'tools/export_student.py', name_of(self.path), last, self.exported)
        weights = read_checkpoint(str(self.exported), 'exported')['state_dict']
        if latest is not None and not (weights.keys() == latest.keys()
                                       and all(torch.equal(weights[key], latest[key]) for key in weights)):
            raise Failure('student_latest.pth is not what export_student.py takes from the last checkpoint')
        if not all(weight.isfinite().all() for weight in weights.values() if weight.is_floating_point()):
            raise Failure('weights that are not finite')

    def stock_test(self) -> None:
        """The library's own tool, with the student's stock config, gives the score of the last validation."""
        library = importlib.import_module(self.config.default_scope)
        tool = Path(library.__file__).parent / '.mim/tools/test.py'
        stock = stock_config(self.path)
        text = self._run('test.txt', *STOCK_TOOL, tool, stock, self.exported, '--work-dir', self.work_dir / 'stock',
                         '--cfg-options', *other_overrides(self.config, ('test', ), Config.fromfile(stock).model))
        if complaint := re.search(r'The model and loaded state dict do not match[\s\S]{,300}', text):
            raise Failure(f'the exported file is not the stock model: {complaint[0]}')
        ours, theirs = self._scores(), scores(text)
        if not ours or ours != theirs:
            raise Failure(f'the last validation said {ours}, the stock tool says {theirs}')
        self.seen['scores'] = theirs

    @property
    def _last(self) -> str:
        return f'epoch_{self.config.train_cfg.get("max_epochs")}.pth'

    def clear(self) -> None:
        """Remove the large files; of a teacher all but the one that its students' configs name."""
        for file in self.work_dir.glob('*.pth'):
            if self.path.parent.name != 'teachers' or file.name != self._last:
                file.unlink()

    def _start(self, *command, log) -> subprocess.Popen:
        command = [str(ROOT / part) if str(part).startswith('tools/') else str(part) for part in command]
        environment = {**os.environ, 'TORCH_HOME': str(self.folder), 'PYTHONPATH': str(ROOT)}
        return subprocess.Popen([sys.executable, *command], cwd=self.folder, env=environment, stdout=log,
                                stderr=subprocess.STDOUT, start_new_session=True)

    def _run(self, log: str, *command) -> str:
        with open(self.work_dir / log, 'w') as file:
            process = self._start(*command, log=file)
            try:
                status = process.wait()
            finally:  # Ctrl-C reaches this process alone
                end(process)
        text = Path(file.name).read_text()
        if status:
            raise Failure(f'status {status}: {tail(file.name)}')
        return text

    def _rows(self) -> list[dict]:
        files = sorted(self.work_dir.glob('2*/vis_data/scalars.json'))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def _check_losses(self, iterations: int) -> None:
        """Every iteration once, every term finite, and those of the distillation among them."""
        rows = [row for row in self._rows() if 'loss' in row]
        steps = [row['step'] if not self.by_epoch else i for i, row in enumerate(rows, 1)]
        if steps != list(range(1, iterations + 1)):
            raise Failure(f'iterations logged: {steps}; expected 1 to {iterations}')
        for row in rows:
            if broken := [key for key, value in row.items() if 'loss' in key and not math.isfinite(value)]:
                raise Failure(f'step {row["step"]}: not finite: {", ".join(broken)}')
        if is_distillation(self.config) and not any(key.startswith('distill.') for key in rows[0]):
            raise Failure('no loss of the distillation in the log')
        self.seen.update(terms=sum('loss' in key for key in rows[0]) - 1,
                         step_seconds=round(sorted(row['time'] for row in rows)[len(rows) // 2], 2))

    def _scores(self) -> dict[str, str]:
        return scores((self.work_dir / 'resume.txt').read_text())


def end(process: subprocess.Popen) -> None:
    """SIGKILL to a tool and the workers of its data loaders."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def scores(text: str) -> dict[str, str]:
    """The scores in the last line that a validation or a test logs."""
    line = re.findall(r'\((?:val|test)\) +\[.*', text)[-1:]
    return {key: value for key, value in re.findall(r'([\w./]+): (-?[\d.]+)', ''.join(line))
            if key not in ('time', 'data_time', 'eta', 'memory')}


def tail(file: str) -> str:
    return ' | '.join(line for line in Path(file).read_text().splitlines()[-60:] if line.strip())[-900:]


def pretrained(spec: dict) -> list[tuple[str, str]]:
    """The published weights with which a model's parts start: address, and the prefix that its keys have."""
    found = []
    if isinstance(spec, dict):
        checkpoint = spec.get('pretrained') or (spec.get('checkpoint') if spec.get('type') == 'Pretrained' else None)
        if checkpoint:
            found.append((checkpoint, spec.get('prefix') or ('backbone.' if checkpoint.startswith('mmcls://') else '')))
        spec = list(spec.values())
    return found + [entry for part in spec if isinstance(part, (dict, list, tuple)) for entry in pretrained(part)]


def without_downloads(spec):
    """A model's config without the published weights that its parts start with."""
    if isinstance(spec, dict):
        return {key: without_downloads(value) for key, value in spec.items() if key != 'pretrained'
                and not (key == 'init_cfg' and 'Pretrained' in str(value))}
    return [without_downloads(part) for part in spec] if isinstance(spec, (list, tuple)) else spec


def random_network(spec: dict, scope: str, data_preprocessor: dict | None = None) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build_model(without_downloads(spec), 'stand-in', data_preprocessor, scope)
    initialise(network)
    for parameter in network.parameters():  # some of DINO's are left as the memory was, which may be no number
        torch.nan_to_num_(parameter.data, 0.0, 0.0, 0.0).clamp_(-1, 1)
    return network


def random_weights(config: Config) -> dict:
    network = random_network(config.model, config.default_scope, config.get('data_preprocessor'))
    return dict(meta={}, state_dict=network.state_dict())


def backbone_weights(spec: dict, scope: str, prefix: str) -> dict:
    weights = random_network(spec, scope).backbone.state_dict()
    return dict(meta={}, state_dict={prefix + key: value for key, value in weights.items()})


def download_address(name: str) -> str:
    """What mmengine's tables make of ``torchvision://resnet18`` and the like.

    Raises:
        ConfigError: for a name that is in none of them.
    """
    scheme, _, model = name.partition('://')
    tables = {'torchvision': model_names.get_torchvision_models, 'open-mmlab': model_names.get_external_models,
              'mmcls': model_names.get_mmcls_models}
    if scheme not in tables:
        return name
    if model not in (known := tables[scheme]()):
        raise ConfigError(f"'{name}' is none of mmengine's models")
    return known[model]


def processor_seconds() -> float:
    """Of this process and all that it has started and seen end: what others do on the machine does not count."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def rehearse(folder: Path, path: Path) -> dict:
    row: dict = dict(config=name_of(path), ok=True, stages={})
    run = Rehearsal(folder, path)
    for name, stage in zip(STAGES, (run.stand_ins, run.train, run.resume, run.export, run.stock_test)):
        start, processor = time.perf_counter(), processor_seconds()
        try:
            stage()
            outcome = 'ok'
        except (Failure, ConfigError) as error:
            outcome, row['ok'] = str(error), False
        row['stages'][name] = dict(outcome=outcome, seconds=round(time.perf_counter() - start, 1),
                                   processor_seconds=round(processor_seconds() - processor, 1))
        print(f'  {name}: {outcome} ({row["stages"][name]["seconds"]} s)', flush=True)
        if not row['ok']:
            break
    row.update(run.seen)
    if row['ok']:
        run.clear()
    return row


def order(path: Path) -> tuple[int, str]:
    """Teachers before the pairs that name their checkpoints."""
    return ['teachers', 'students', path.parent.name].index(path.parent.name), path.stem


def table(rows: list[dict]) -> str:
    lines = [f'{"config":<46}{"".join(f"{name:>12}" for name in STAGES)}{"s/step":>9}{"terms":>7}']
    for row in rows:
        cells = ''
        for name in STAGES:
            stage = row['stages'].get(name, dict(outcome='not reached'))
            text = f'{stage["seconds"]:.0f} s' if stage['outcome'] == 'ok' else 'FAILED' if 'seconds' in stage else '-'
            cells += f'{text:>12}'
        name = row['config'].removeprefix('configs/sfkd/').removesuffix('.py')
        lines.append(f'{name:<46}{cells}{row.get("step_seconds", "-"):>9}{row.get("terms", "-"):>7}')
    minutes, processor = (sum(stage[key] for row in rows for stage in row['stages'].values()) / 60
                          for key in ('seconds', 'processor_seconds'))
    passed = sum(row['ok'] for row in rows)
    return '\n'.join([*lines, f'{passed} of {len(rows)} configs passed every stage; {minutes:.0f} minutes, '
                      f'{processor:.0f} of a processor'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=f'What is overridden:\n{OVERRIDES}',
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', type=Path, help='default: all of configs/sfkd')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/rehearsal'))
    parser.add_argument('--resume-from-results', action='store_true',
                        help='leave out what has passed according to results.jsonl in the work directory')
    args = parser.parse_args()
    folder = args.work_dir.resolve()
    results = folder / 'results.jsonl'
    if not args.resume_from_results:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in MAKERS.items():
        if not (folder / 'data' / name).exists():
            make(folder / 'data' / name)
    if not (folder / 'configs').exists():
        (folder / 'configs').symlink_to(ROOT / 'configs')
    print(f'Overridden, and nothing else:\n{OVERRIDES}', flush=True)
    chosen = sorted([path.resolve() for path in args.configs] or (ROOT / 'configs/sfkd').rglob('*.py'), key=order)
    rows = {row['config']: row for row in map(json.loads, results.read_text().splitlines())} if results.exists() else {}
    for path in chosen:
        name = name_of(path)
        if not rows.get(name, {}).get('ok'):
            print(name, flush=True)
            rows[name] = rehearse(folder, path)
            with open(results, 'a') as file:
                file.write(json.dumps(rows[name]) + '\n')
    rows = [rows[name_of(path)] for path in chosen]
    print(table(rows))
    sys.exit(not all(row['ok'] for row in rows))


if __name__ == '__main__':
    main()
