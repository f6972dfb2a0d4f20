"""Thousands of steps under watch: whether a training's memory or its open files grow. For Linux.

  python tools/stress/long_run.py                     3,000 steps (about 6 minutes on two cores)
  python tools/stress/long_run.py --cache             the same with a teacher cache

Prints the process's resident memory and open files every 250 steps; exit status 0 only if, after the first quarter,
memory has grown by less than 2% and the files by none.
"""
import argparse
import os
import resource
import sys
from pathlib import Path

from mmengine.hooks import Hook

from sfkd.datasets.digits_wild import generate_cls
from sfkd.openmmlab.configs import load_config
from sfkd.openmmlab.process import prepare_process
from sfkd.openmmlab.running import build_runner
from sfkd.registry import HOOKS

ROOT = Path(__file__).resolve().parents[2]
PICTURES, BATCH = 200, 20


@HOOKS.register_module()
class WatchHook(Hook):
    """Notes memory and open files."""

    def __init__(self, every: int):
        self.every, self.seen = every, []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.every):
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            memory, files = pages * resource.getpagesize() / 2**20, len(os.listdir('/proc/self/fd'))
            self.seen.append((memory, files))
            print(f'step {runner.iter + 1:>6}: {memory:8.1f} MiB, {files} open files', flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=3000)
    parser.add_argument('--cache', action='store_true')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/stress/long_run'))
    args = parser.parse_args()
    prepare_process()
    data = args.work_dir / 'data'
    generate_cls(data, counts=dict(train=PICTURES, val=20, test=20))
    config = load_config(str(ROOT / 'configs/mini/cls_resnet_to_mixer.py'), str(args.work_dir / 'run'))
    config.train_cfg.max_epochs = args.steps * BATCH // PICTURES
    config.model.teacher_ckpt = 'init'
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].dataset.data_root = str(data)
    config.train_dataloader.batch_size = BATCH
    config.test_dataloader = config.test_cfg = config.test_evaluator = None
    config.default_hooks.logger.interval = 10**6
    config.param_scheduler = None
    hooks = [dict(type='sfkd.WatchHook', every=max(args.steps // 12, 1))]
    if args.cache:
        config.train_dataloader.dataset = dict(type='sfkd.ReplayedDataset', dataset=config.train_dataloader.dataset)
        hooks.append(dict(type='sfkd.TeacherCacheHook', folder=str(args.work_dir / 'cache')))
    config.custom_hooks = [*(config.get('custom_hooks') or []), *hooks]
    runner = build_runner(config)
    runner.train()
    seen = next(hook.seen for hook in runner.hooks if isinstance(hook, WatchHook))
    settled = seen[len(seen) // 4:]
    growth = settled[-1][0] / settled[0][0] - 1
    more = settled[-1][1] - settled[0][1]
    print(f'{args.steps} steps{", with a teacher cache" * args.cache}: after the first quarter memory {growth:+.2%}, '
          f'open files {more:+d}')
    sys.exit(growth > 0.02 or more > 0)


if __name__ == '__main__':
    main()
