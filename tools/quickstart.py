"""Score a teacher, train the same student alone and with SFKD, compare and report: the body of quickstart.sh."""
import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

TOOLS = Path(__file__).resolve().parent
#: Task -> its metric, the factor that makes it a percentage, the teacher, and the configs of the student alone and with
#: SFKD.
PAIRS = dict(
    cls=dict(metric='accuracy/top1', name='top-1 (%)', factor=1, student='sfkd::mini/cls_mixer.py',
             teacher=('sfkd::mini/cls_resnet.py', 'sfkd::mini/teachers/resnet.safetensors'),
             sfkd='sfkd::mini/cls_resnet_to_mixer.py'),
    det=dict(metric='coco/bbox_mAP', name='box AP (%)', factor=100, student='sfkd::mini/det_gfl_resnet8.py',
             teacher=('sfkd::mini/det_gfl_swin.py', 'sfkd::mini/teachers/det_gfl_swin.safetensors'),
             sfkd='sfkd::mini/det_swin_to_resnet8.py'),
    seg=dict(metric='mIoU', name='mIoU (%)', factor=1, student='sfkd::mini/seg_fcn_resnet8.py',
             teacher=('sfkd::mini/seg_segformer_swin.py', 'sfkd::mini/teachers/seg_segformer_swin.safetensors'),
             sfkd='sfkd::mini/seg_swin_to_resnet8.py'))


def run(tool: str, arguments: list[str], log: Path, title: str, done: str, metric: str,
        factor: float = 1) -> list[tuple[int, float]]:
    """Run one of the tools, everything it prints going to a log file; to the screen goes one line an epoch and one that
    says it is `done`.

    Returns:
        list: (epoch, metric on the validation split in %), for a training.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    started, curve, eta, loss = time.time(), [], '', ''
    # One thread a process: on a few cores a second one costs more than it brings at this size, and the data loader
    # needs a core
    environment = {'OMP_NUM_THREADS': '1', **os.environ}
    with open(log, 'w') as file:
        process = subprocess.Popen([sys.executable, str(TOOLS / tool), *arguments], env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in process.stdout:
            file.write(line)
            if found := re.search(r'Epoch\(train\).* eta: (\S+).* loss: (\S+)', line):
                eta, loss = found[1], found[2]
            if found := re.search(rf'Epoch\(val\) \[(\d+)\].* {metric}: ([\d.]+)', line):
                curve.append((int(found[1]), factor * float(found[2])))
                print(f'  {title:<16} epoch {found[1]:>3}   loss {loss:<8} validation {curve[-1][1]:6.2f}   eta {eta}',
                      flush=True)
        process.wait()
    if process.returncode:
        print(''.join(log.read_text().splitlines(keepends=True)[-15:]), file=sys.stderr)
        sys.exit(f'{title}: exit status {process.returncode}; the whole log is {log}')
    print(f'  {title:<16} {done} in {time.time() - started:.0f} s', flush=True)
    return curve


def score(config: str, checkpoint: str, out: Path, title: str, metric: str, split: str = 'test') -> float:
    name = 'score' if split == 'test' else f'score_{split}'
    run('test.py', [config, checkpoint, '--work-dir', str(out / 'test'), '--split', split, '--out',
                    str(out / f'{name}.json')], out / f'{split}.log', title,
        'scored' if split == 'test' else 'scored on the validation split', metric)
    return json.loads((out / f'{name}.json').read_text())[metric]


def plot(curves: dict[str, list[tuple[int, float]]], teacher: float, ylabel: str, file: Path) -> None:
    import matplotlib
    matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    for name, curve in curves.items():
        axes.plot(*zip(*curve), marker='.', label=name)
    axes.axhline(teacher, color='gray', linestyle='--', label='teacher (validation split)')
    axes.set(xlabel='epoch', ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('task', choices=PAIRS)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--epochs', type=int, help='fewer than the config says, 2 at least, for a quick look')
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 2:
        parser.error(f'--epochs {args.epochs}: the first of at least 2 epochs warms the learning rate up')
    pair, out = PAIRS[args.task], Path('work_dirs/quickstart') / args.task
    out.mkdir(parents=True, exist_ok=True)
    (out / 'summary.json').unlink(missing_ok=True)
    metric, factor, started = pair['metric'], pair['factor'], time.time()
    options = ['--cfg-options', f'randomness.seed={args.seed}']
    if args.epochs:
        options += [f'train_cfg.max_epochs={args.epochs}', f'param_scheduler.1.end={args.epochs}',
                    f'param_scheduler.1.T_max={args.epochs - 1}']

    print('1/3 the teacher', flush=True)
    scores = dict(teacher=score(*pair['teacher'], out / 'teacher', 'teacher', metric))
    validation = score(*pair['teacher'], out / 'teacher', 'teacher', metric, 'val')
    curves, seconds = {}, {}
    for step, (name, title) in enumerate(dict(student='student alone', sfkd='student, SFKD').items(), 2):
        print(f'{step}/3 {title}: {pair[name]}', flush=True)
        begun, folder = time.time(), out / name
        curves[title] = run('train.py', [pair[name], '--work-dir', str(folder), *options], folder / 'train.log',
                            title, 'trained', metric, factor)
        seconds[name] = time.time() - begun
        last = folder / Path((folder / 'last_checkpoint').read_text().strip()).name
        scores[name] = score(pair[name], str(last), folder, title, metric)

    plot(curves, factor * validation, f"{pair['name']} on the validation split", out / 'curves.png')
    summary = dict(task=args.task, metric=metric, **scores, seconds=round(time.time() - started, 1),
                   torch=torch.__version__, seed=args.seed)
    (out / 'summary.json').write_text(json.dumps(summary, indent=1) + '\n')
    teacher, student, sfkd = (factor * scores[key] for key in ('teacher', 'student', 'sfkd'))
    print(f"\n{pair['name']} on the test split, last epoch, seed {args.seed}\n"
          f'  teacher            {teacher:6.2f}\n'
          f"  student alone      {student:6.2f}            {seconds['student']:5.0f} s of training\n"
          f"  student with SFKD  {sfkd:6.2f}  ({sfkd - student:+.2f})  {seconds['sfkd']:5.0f} s of training\n"
          f"whole run {summary['seconds']:.0f} s; {out}/summary.json, curves.png; "
          f"the student as a stock checkpoint: {out / 'sfkd/student_latest.pth'}")
    if args.task != 'cls':
        last = {name: out / name / Path((out / name / 'last_checkpoint').read_text().strip()).name
                for name in ('student', 'sfkd')}
        run('draw_predictions.py', [str(out / 'predictions.png'), 'teacher', *pair['teacher'], 'alone',
                                    pair['student'], str(last['student']), 'SFKD', pair['sfkd'], str(last['sfkd'])],
            out / 'draw.log', 'pictures', 'drawn', metric)
    run('report.py', [str(out)], out / 'report.log', 'report', 'made', metric)
    print(out / 'report.html')


if __name__ == '__main__':
    main()
