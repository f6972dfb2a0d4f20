"""The stock libraries' own tools with a distillation config."""
from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

from ...compat import WITH_SFKD
from ...shipped import CONFIGS, TOOLS
from .small import ALONE, LIBRARY, PAIRS, Findings, configured, run

FLAGSHIP = 'sfkd/seg_pspnet_r101_to_pspnet_r18.py'


def stock_tools(task: str, folder: Path, data: Path) -> Findings:
    """A library's own train.py and test.py with a distillation config."""
    tools = Path(importlib.import_module(LIBRARY[task]).__file__).parent / '.mim/tools'
    start = [sys.executable, '-c', WITH_SFKD]
    configs = {}
    for name, path in dict(pair=PAIRS[task], alone=ALONE[task]).items():
        config = configured(path, folder, data, epochs=8 if task == 'det' else 1, batch=2 if task == 'det' else 4)
        config.log_level, config.default_hooks.checkpoint.save_best = 'INFO', None
        if task == 'det':  # on the pictures of the training, so that there is something to score
            config.train_cfg.val_interval, training = 8, config.train_dataloader.dataset
            config.test_dataloader.dataset.update(ann_file=training.ann_file, data_prefix=training.data_prefix)
            config.test_evaluator.ann_file = str(Path(training.data_root, training.ann_file))
        configs[name] = folder / f'{task}_{name}.py'
        config.dump(configs[name])
    text = run(*start, tools / 'train.py', configs['pair'], '--work-dir', folder)
    measure = dict(cls='accuracy/top1', det='coco/bbox_mAP', seg='mIoU')[task]

    def score(text: str) -> str:
        return re.findall(rf'{measure}: +([\d.e+-]+)', text)[-1]
    full = folder / f'epoch_{config.train_cfg.max_epochs}.pth'
    scores = [score(run(*start, tools / 'test.py', configs[name], full, '--work-dir', folder / name))
              for name in ('pair', 'alone')]
    ours = score(run(sys.executable, TOOLS / 'test.py', configs['pair'], full, '--work-dir', folder / 'ours'))
    library, more = LIBRARY[task], {}
    if task == 'seg':  # OneDL's mmseg has a package name that mmengine does not know
        read = f"from mmengine import Config; Config.fromfile('{CONFIGS / FLAGSHIP}')"
        refused = re.findall(r'ModuleNotFoundError: .*', run(sys.executable, '-c', read, fails=True))
        run(sys.executable, '-c', f'import sfkd; {read}')
        more[f'configs/{FLAGSHIP}, whose base is mmseg::, is read once sfkd is imported, and not before'] = (
            bool(refused), ''.join(refused))
    return {
        f"{library}'s own train.py with {PAIRS[task]}": ('distill.' in text and full.exists(), 'trains and distils'),
        f"{library}'s own test.py scores the full checkpoint by the pair's config, by the student's own, as ours does":
            (len({*scores, ours}) == 1, f'{measure} {", ".join([*scores, ours])}'),
        **more
    }
