"""The model zoo: its rows, in OpenMMLab's format in configs/*/metafile.yml, and the page docs/zoo.md.

What a run trained, as a row with weights, log and score; of a plain config the model itself, which may be a teacher:
  python tools/zoo.py add sfkd::mini/cls_resnet_to_mixer.py work_dirs/cls_resnet_to_mixer
  python tools/zoo.py add sfkd::pretrained/det_gfl_resnet.py work_dirs/det_gfl_resnet --teacher
Pairs that wait for a data set or GPUs, with the cost of one training step counted:
  python tools/zoo.py plan configs/sfkd/*.py
Every row's config is built, its weights are loaded strictly into the stock config, and its score is measured again:
  python tools/zoo.py check
The page, from the metafiles and from the seeds in docs/results:
  python tools/zoo.py page
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from statistics import mean, stdev

import yaml
from mmengine.config import Config

from sfkd import shipped
from sfkd.analysis.intervals import spread
from sfkd.analysis.matrix.stock import configs as configs_of
from sfkd.analysis.runs import scaled
from sfkd.analysis.trial import built, random_batch
from sfkd.checkpoint import in_half_precision, read_checkpoint, stock_weights, write_checkpoint
from sfkd.errors import ConfigError, nearest
from sfkd.openmmlab.configs import is_distillation, load_config
from sfkd.openmmlab.process import errors_for_people, prepare_process
from sfkd.openmmlab.running import trained_student

ROOT = shipped.CONFIGS.parent  # paths in metafiles begin here
PAPER = dict(Title='SFKD: Spatial-Frequency Joint-Aware Heterogeneous Knowledge Distillation via Multi-Level Wavelet '
             'Spectral Interaction', URL='https://arxiv.org/abs/2607.01906')
#: Library -> the task, and a metric's key in scores and name in metafiles.
TASKS = dict(mmpretrain=('Image Classification', 'accuracy/top1', 'Top 1 Accuracy'),
             mmdet=('Object Detection', 'coco/bbox_mAP', 'box AP'),
             mmseg=('Semantic Segmentation', 'mIoU', 'mIoU'))
DATASETS = {'mini': 'Digits in the Wild', 'pretrained': 'Digits in the Wild', 'fashion': 'Fashion-MNIST',
            'cifar': 'CIFAR-100', 'cls': 'ImageNet-1K', 'det': 'COCO', 'seg': 'ADE20K'}
PICTURES = {'CIFAR-100': 50_000, 'ImageNet-1K': 1_281_167, 'COCO': 117_266}  # of an epoch; mmdet leaves out empty ones
FULL_SIZE = {'COCO': 800 * 1333}  # pixels, where configs have the dry run at less
SUSTAINED = 20e12  # operations a second of a GPU in mixed precision: an assumption, not a measurement
#: Rows of one seed are compared with the score beside them: float16 weights and another processor move some pictures.
TOLERANCE = 0.3


class Metafile:
    """The rows of a folder of configs."""

    def __init__(self, folder: Path):
        self.file = folder / 'metafile.yml'
        self.content = yaml.safe_load(self.file.read_text()) if self.file.exists() else dict(Collections=[], Models=[])

    @property
    def rows(self) -> list[dict]:
        return self.content['Models']

    def put(self, row: dict) -> None:
        """Add a row in the place of the one of its name, and write the file."""
        collection = f'sfkd/{self.file.parent.name}'
        self.content['Collections'] = [dict(Name=collection, Paper=PAPER)]
        row = {'Name': row['Name'], 'In Collection': collection, **row}
        names = [other['Name'] for other in self.rows]
        if row['Name'] in names:
            self.rows[names.index(row['Name'])] = row
        else:
            self.rows.append(row)
            self.rows.sort(key=lambda row: row['Name'])
        self.file.write_text(yaml.safe_dump(self.content, sort_keys=False, allow_unicode=True, width=150))


def metafiles() -> list[Metafile]:
    return [Metafile(file.parent) for file in sorted(shipped.CONFIGS.glob('*/metafile.yml'))]


def rows() -> list[dict]:
    return [row for metafile in metafiles() for row in metafile.rows]


def relative(path: Path) -> str:
    return str(path.resolve().relative_to(ROOT))


def stem(config_file: Path) -> str:
    """A row's name: the folder and the file."""
    return f'{config_file.parent.relative_to(shipped.CONFIGS)}/{config_file.stem}'


def stock_file(config_file: Path, config: Config) -> Path:
    """The plain config that loads the weights: of a pair its first base, the student's own."""
    if not is_distillation(config):
        return config_file
    base = (config_file.parent / re.search(r"_base_ = \[?\s*'([^']+)'", config_file.read_text())[1]).resolve()
    return stock_file(base, load_config(str(base)))


def dataset_of(config_file: Path) -> str:
    folder, task = config_file.parent.relative_to(shipped.CONFIGS).parts[0], config_file.stem.partition('_')[0]
    return DATASETS.get(folder) or DATASETS['cifar' if 'cifar' in config_file.stem else task]


def located(path: str) -> Path:
    file = Path(shipped.located(path, 'config')).resolve()
    if not file.is_relative_to(shipped.CONFIGS):
        raise ConfigError(f"config: '{path}' is not among the configs in {shipped.CONFIGS}; the zoo's rows are")
    return file


def length(config: Config) -> dict[str, int]:
    loop = config.train_cfg
    return {'Epochs': loop.max_epochs} if 'max_epochs' in loop else {'Iterations': loop.max_iters}


def measured(config_file: Path, weights: Path, scope: str) -> float:
    """A stock config's score on its test set with the weights, in %, by tools/test.py."""
    _, key, _ = TASKS[scope]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'score.json')
        done = subprocess.run([sys.executable, shipped.TOOLS / 'test.py', config_file, weights, '--work-dir', folder,
                               '--out', out], capture_output=True, text=True)
        if done.returncode:
            raise ConfigError(f"'{weights}' cannot be scored by '{config_file}': {done.stderr[-1500:]}")
        return scaled(key, json.loads(out.read_text())[key])


def add(args: argparse.Namespace) -> None:
    """Publish what a run trained."""
    config_file, run = located(args.config), Path(args.run)
    config = load_config(str(config_file))
    distils, stock, shipped_already = is_distillation(config), stock_file(config_file, config), run.is_file()
    teaches = args.teacher or shipped_already
    weights, log = ((run, run.with_suffix('.log')) if shipped_already else
                    publish(run, config_file, 'teachers' if teaches else 'students'))
    task, _, metric = TASKS[config.default_scope]
    data, method = dataset_of(config_file), 'SFKD' if distils else 'teacher' if teaches else 'alone'
    taught = {'Teacher': config.model.teacher.removeprefix('sfkd::').removesuffix('.py')} if distils else {}
    epochs = int(re.findall(r'Epoch\(train\)\s+\[(\d+)\]', log.read_text())[-1])
    parameters = sum(p.numel() for p in trained_student(load_config(str(stock)), str(weights)).parameters())
    score = round(measured(stock, weights, config.default_scope), 2)
    Metafile(config_file.parent).put({
        'Name': stem(config_file), 'Config': relative(config_file), 'Stock Config': relative(stock),
        'Weights': relative(weights), 'Training Log': relative(log),
        'Metadata': {'Training Data': data, 'Method': method, **taught, 'Epochs': epochs, 'Parameters': parameters},
        'Results': [{'Task': task, 'Dataset': f'{data}, test split', 'Metrics': {metric: score}}]})
    print(f'{stem(config_file)}: {metric} {score}, {relative(weights)} '
          f'({weights.stat().st_size / 2 ** 20:.1f} MiB), {relative(log)}')


def publish(run: Path, config_file: Path, place: str) -> tuple[Path, Path]:
    """Copy a run's last weights, in float16, and what its log says of each epoch, to a folder beside the config."""
    if not (run / 'last_checkpoint').exists():
        raise ConfigError(f"run: '{run}' has no last_checkpoint; give the work directory of a run of tools/train.py")
    last = run / Path((run / 'last_checkpoint').read_text().strip()).name
    state = stock_weights(read_checkpoint(str(last), 'run'))
    folder = config_file.parent / place
    folder.mkdir(exist_ok=True)
    weights, log = (folder / f'{config_file.stem}{suffix}' for suffix in ('.safetensors', '.log'))
    write_checkpoint(dict(state_dict=in_half_precision(state)), weights)
    text = '\n'.join(file.read_text() for file in sorted(run.glob('*/*.log')))
    log.write_text('\n'.join(last_of_epochs(text)) + '\n')
    return weights, log


def last_of_epochs(text: str) -> list[str]:
    """Of a training's log the last line of each epoch, and every score."""
    lines, last = [], None
    for line in text.splitlines():
        if found := re.search(r'Epoch\(train\)\s+\[(\d+)\]', line):
            if last and last[0] != found[1]:
                lines.append(last[1])
            last = found[1], line
        elif 'Epoch(val)' in line and re.search(r'\[(\d+)/\1\]', line):
            lines += [last[1]] if last else []
            lines.append(line)
            last = None
    return lines + ([last[1]] if last else [])


def plan(args: argparse.Namespace) -> None:
    """Rows of pairs that were not run, with what a step computes."""
    from torch.utils.flop_counter import FlopCounterMode
    for path in args.configs:
        file = located(path)
        config, text = load_config(str(file)), file.read_text()
        data = dataset_of(file)
        command = re.search(r'bash tools/dist_train.sh \S+ (\d+)', text)
        if command is None:
            raise ConfigError(f"config: '{path}' names no command; say in its first lines: "
                              f"bash tools/dist_train.sh {relative(file)} N")
        gpus, batch = int(command[1]), config.train_dataloader.batch_size
        distiller = built(config)
        images, samples = random_batch(distiller, 2)
        with FlopCounterMode(display=False) as counter:
            distiller.parse_losses(distiller(images, samples, mode='loss'))[0].backward()
        size = distiller.distillation.input_size
        a_picture = counter.get_total_flops() / 2 * FULL_SIZE.get(data, size[0] * size[1]) / (size[0] * size[1])
        steps = length(config)
        pictures = steps['Epochs'] * PICTURES[data] if 'Epochs' in steps else steps['Iterations'] * gpus * batch
        teacher = config.model.teacher
        row = {
            'Name': stem(file), 'Config': relative(file), 'Status': 'to be run',
            'Command': command[0],
            'Metadata': {'Training Data': data, 'Method': 'SFKD',
                         'Teacher': teacher if isinstance(teacher, str) else teacher['name'],
                         **steps, 'Batch Size': gpus * batch, 'GPUs': gpus,
                         'Training GFLOPs a Picture': round(a_picture / 1e9),
                         'Expected GPU Hours': round(a_picture * pictures / SUSTAINED / 3600, 1)}}
        if '://' in (config.model.get('teacher_ckpt') or ''):
            row['Metadata']['Teacher Weights'] = config.model.teacher_ckpt
        metafile = Metafile(file.parent)
        before = next((other for other in metafile.rows if other['Name'] == row['Name']), {})
        metafile.put(row | {key: before[key] for key in ('Reported', ) if key in before})
        print(row['Name'], row['Metadata'], flush=True)


def check(args: argparse.Namespace) -> None:
    """Whether every row is what it says."""
    failed, known = 0, rows()
    if args.only:
        names = [row['Name'] for row in known]
        if unknown := [name for name in args.only if name not in names]:
            raise ConfigError(f"--only: there is no row '{unknown[0]}'; nearest are {nearest(unknown[0], names)}")
        known = [row for row in known if row['Name'] in args.only]
    for row in known:
        try:
            said = checked(row)
        except (ConfigError, RuntimeError, OSError) as error:
            failed += 1
            said = f'FAILED: {error}'
        print(f"{row['Name']}: {said}", flush=True)
    print(f'{len(known) - failed} of {len(known)} rows are as they say')
    sys.exit(bool(failed))


def checked(row: dict) -> str:
    """What was found of a row; an error where that is not what it says."""
    built(load_config(str(ROOT / row['Config'])))
    if 'Weights' not in row:
        return 'builds; to be run'
    stock, weights = ROOT / row['Stock Config'], ROOT / row['Weights']
    stock_config = load_config(str(stock))
    trained_student(stock_config, str(weights))
    if not (ROOT / row['Training Log']).is_file():
        raise ConfigError(f"there is no log '{row['Training Log']}'")
    (_, said), = row['Results'][0]['Metrics'].items()
    found = measured(stock, weights, stock_config.default_scope)
    values = seeds_of(row)
    allowed = max(TOLERANCE, stdev(values) if len(values) > 1 else 0)
    if abs(found - said) > allowed:
        raise ConfigError(f'scores {found:.2f}, not {said:.2f} within {allowed:.2f}')
    return f'{found:.2f}, as said {said:.2f}'


def seeds_of(row: dict) -> list[float]:
    """The scores of a row's config over seeds, in %, of docs/results; of the same method and length."""
    method = dict(SFKD='sfkd', alone='alone').get(row['Metadata']['Method'])
    found = {}
    for file in sorted((ROOT / 'docs/results').glob('results_*.jsonl')):
        for line in file.read_text().splitlines():
            run = json.loads(line)
            if (run['method'], run['split'], run['epochs'], trained(run['config'], method)) == (
                    method, 'test', row['Metadata'].get('Epochs'), row['Config']):
                found[run['seed']] = scaled(run['metric'], run['value'])
    return list(found.values())


@cache
def trained(config: str, method: str) -> str:
    """The config that a row of docs/results stands for: it names the pair's, also of a student alone."""
    config = config.replace('sfkd::', 'configs/')
    return relative(stock_file(ROOT / config, load_config(str(ROOT / config)))) if method == 'alone' else config


@cache
def published() -> dict[str, str]:
    """What the libraries' own zoos say that weights score, by the names of their files."""
    found = {}
    for library in TASKS:
        for file in configs_of(library).glob('*/metafile.y*ml'):
            content = yaml.safe_load(file.read_text())
            for model in content.get('Models', []) if isinstance(content, dict) else []:
                results = model.get('Results') or []
                metrics = [result['Metrics'] for result in (results if isinstance(results, list) else [results])
                           if result.get('Metrics')]
                if metrics and isinstance(model.get('Weights'), str):  # some rows name several files
                    scores = ', '.join(f'{key} {value}' for key, value in metrics[0].items())
                    found[Path(model['Weights']).name] = scores
    return found


def page(args: argparse.Namespace) -> None:
    """Write docs/zoo.md."""
    (ROOT / 'docs/zoo.md').write_text(page_of(rows()))
    print(ROOT / 'docs/zoo.md')


def page_of(known: list[dict]) -> str:
    done, waiting = ([row for row in known if ('Weights' in row) == has] for has in (True, False))
    lines = [line.format(measured=len(done), waiting=len(waiting)) for line in HEAD.splitlines()]
    for data in dict.fromkeys(row['Metadata']['Training Data'] for row in done):
        lines += ['', f'## {data}', '', '| row | taught by | weights | epochs | score of the weights (%) | over seeds '
                  '| minus alone | files |', '|' + '---|' * 8]
        lines += [measured_line(row, done) for row in done if row['Metadata']['Training Data'] == data]
    lines += ['', WAITING, '', '| pair | data | teacher, as its library publishes it | reported by others | length | '
              'GFLOPs a picture | GPU hours expected | command |', '|' + '---|' * 8]
    lines += [waiting_line(row) for row in waiting]
    return '\n'.join(lines) + '\n'


def measured_line(row: dict, done: list[dict]) -> str:
    meta, (metric, score), = row['Metadata'], *row['Results'][0]['Metrics'].items()
    values = seeds_of(row)
    alone = next((other for other in done if other['Config'] == row['Stock Config'] != row['Config']), None)
    without = seeds_of(alone) if alone else []
    gain = f'{mean(values) - mean(without):+.2f}' if values and without else (
        f"{score - next(iter(alone['Results'][0]['Metrics'].values())):+.2f}" if alone else '')
    files = ', '.join(f'[{name}](../{row[key]})' for name, key in (
        ('config', 'Config'), ('weights', 'Weights'), ('log', 'Training Log')))
    return (f"| {row['Name']} | {meta.get('Teacher', '')} | {meta['Parameters']:,} | {meta.get('Epochs', '')} | "
            f"{metric} {score:.2f} | {f'{spread(values)} ({len(values)})' if values else ''} | {gain} | {files} |")


def waiting_line(row: dict) -> str:
    meta = row['Metadata']
    steps = f"{meta['Epochs']} epochs" if 'Epochs' in meta else f"{meta['Iterations']:,} iterations"
    teacher = meta['Teacher'].rpartition('/')[2].removesuffix('.py')
    return (f"| [{row['Name']}](../{row['Config']}) | {meta['Training Data']} | {teacher} "
            f"{published().get(Path(meta.get('Teacher Weights', '')).name, '')} | {row.get('Reported', '')} | "
            f"{steps}, batch {meta['Batch Size']} | {meta['Training GFLOPs a Picture']:,} | "
            f"{meta['Expected GPU Hours']:,} | `{row['Command']}` |")


HEAD = """# Model zoo

Written by `python tools/zoo.py page` from `configs/*/metafile.yml` ([model-index.yml](../model-index.yml), in
OpenMMLab's format) and from the seeds in `docs/results`. {measured} rows were measured with this code, {waiting} wait
for data and GPUs.

`python tools/zoo.py check` builds every row's config, loads its weights strictly into the stock config, which knows
nothing of distillation, and measures the score again. "Over seeds" is mean ± standard deviation (number of seeds) of
the same training, "minus alone" the difference of the means to the same student trained alone. Weights are in float16.
"""
WAITING = f"""## To be run

Nobody has run these to the end with this code: no score is claimed. "GFLOPs a picture" is what one training step
computes: student, teacher and connectors, forward and backward, counted by `torch.utils.flop_counter`
(`python tools/zoo.py plan`), for COCO scaled from the size of the config's dry run to 800 x 1333. The hours assume
that a GPU sustains {SUSTAINED / 1e12:.0f} TFLOP/s in mixed precision and waits for no data: an assumption, not a
measurement. "Reported by others" are figures of other projects' papers, of their code, read second-hand: the sources
disagree in places, and students alone must be our own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar='add|plan|check|page')
    adding = commands.add_parser('add', help='publish what a run trained')
    adding.add_argument('config', help='the config that was trained')
    adding.add_argument('run', help='its work directory; or the weights of a teacher, beside their log')
    adding.add_argument('--teacher', action='store_true', help='its place is with the teachers')
    adding.set_defaults(run_command=add)
    planning = commands.add_parser('plan', help='pairs that are to be run')
    planning.add_argument('configs', nargs='+')
    planning.set_defaults(run_command=plan)
    checking = commands.add_parser('check', help='is every row what it says')
    checking.add_argument('--only', nargs='+', metavar='NAME', help='these rows')
    checking.set_defaults(run_command=check)
    commands.add_parser('page', help='write docs/zoo.md').set_defaults(run_command=page)
    args = parser.parse_args()
    prepare_process()
    with errors_for_people():
        args.run_command(args)


if __name__ == '__main__':
    main()
