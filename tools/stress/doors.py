"""Where a checkpoint comes in: the tools, run in this process; and the folder of a teacher cache."""
from __future__ import annotations

import json
import os
import random
import re
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from formats import MIB

ROOT = Path(__file__).resolve().parents[2]
DOORS = ('teacher', 'load_from', 'init_cfg', 'resume', 'export', 'test')

CONFIG = """
_base_ = '{root}/configs/mini/cls_resnet.py'
model = dict(backbone=dict(stem_channels={channels}, base_channels={channels}), head=dict(in_channels={width}))
{loaders}
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(save_best=None))
val_cfg = val_dataloader = val_evaluator = None
"""
LOADERS = ''.join(f"{split}_dataloader = dict(batch_size=4, num_workers=0, dataset=dict(data_root='{{data}}'))\n"
                  for split in ('train', 'test'))
PAIR = """
_base_ = '{student}'
model = dict(_delete_=True, type='sfkd.SFKD', student='{student}', teacher='{student}', input_size=64)
"""


class Doors:
    """Runs the tools in this process, as from a command line."""

    def __init__(self, folder: Path):
        from sfkd.datasets.digits_wild import generate_cls
        self.folder = folder
        generate_cls(folder / 'data', counts=dict(train=4, val=4, test=4))
        loaders = LOADERS.format(data=folder / 'data')
        for name, channels in dict(narrow=8, wide=16).items():
            text = CONFIG.format(root=ROOT, channels=channels, width=8 * channels, loaders=loaders)
            (folder / f'{name}.py').write_text(text)
        (folder / 'pair.py').write_text(PAIR.format(student=folder / 'narrow.py'))

    def tool(self, name: str, *arguments: object) -> None:
        """Raises what the tool ended in."""
        before = sys.argv
        sys.argv = [f'{name}.py', *map(str, arguments)]
        try:
            runpy.run_path(str(ROOT / f'tools/{name}.py'), run_name='__main__')
        finally:
            sys.argv = before

    def train(self, name: str, *arguments: object) -> None:
        shutil.rmtree(self.folder / 'work', ignore_errors=True)
        self.tool('train', self.folder / f'{name}.py', '--no-validate', '--work-dir', self.folder / 'work', *arguments)

    def weights(self, name: str) -> dict:
        from mmengine.config import Config

        from sfkd.openmmlab.building import build_model
        return build_model(Config.fromfile(self.folder / f'{name}.py').model, name, scope='mmpretrain').state_dict()

    def checkpoint(self) -> dict:
        from sfkd.checkpoint import read_checkpoint
        self.train('narrow')
        return read_checkpoint(str(self.folder / 'work/epoch_1.pth'), 'epoch_1.pth')

    def open(self, door: str, path: Path) -> None:
        config = self.folder / 'narrow.py'
        if door == 'teacher':
            self.train('pair', '--cfg-options', f'model.teacher_ckpt={path}')
        elif door == 'load_from':
            self.train('narrow', '--cfg-options', f'load_from={path}')
        elif door == 'init_cfg':
            self.train('narrow', '--cfg-options', 'model.init_cfg.type=Pretrained', f'model.init_cfg.checkpoint={path}')
        elif door == 'resume':
            self.train('narrow', '--resume', path)
        elif door == 'export':
            self.tool('export_student', config, path, self.folder / 'out.safetensors')
        elif door == 'test':
            self.tool('test', config, path, '--work-dir', self.folder / 'work')


class CacheDoor:
    """The folder of a teacher cache, one of whose files is changed."""

    SHAPES = {'a': (3, 4, 4), 'b': (5, )}
    ROWS = 4

    def __init__(self, folder: Path):
        import torch
        self.folder, self.inputs = folder / 'cache', torch.zeros(self.ROWS, 3, 8, 8)
        self.open()  # makes it
        self.whole = {file.name: file.read_bytes() for file in self.folder.iterdir()}
        self.victim = folder / 'victim'

    def teacher(self, inputs, mask=None) -> dict:
        import torch
        return {path: torch.ones(len(inputs), *shape) for path, shape in self.SHAPES.items()}

    def open(self) -> None:
        from sfkd.distillation import TeacherCache
        cache = TeacherCache(self.teacher, self.folder, self.ROWS, self.SHAPES, dict(teacher='t'), 1.0)
        features = cache(self.inputs, rows=list(range(self.ROWS)))
        assert all(bool((value == 1).all()) for value in features.values()), 'wrong features'

    def cases(self, rng: random.Random) -> dict[str, tuple[str, Callable[[], None]]]:
        print_ = self.whole['fingerprint.json']

        def put(name: str, content: bytes) -> Callable[[], None]:
            return lambda: (self.folder / name).write_bytes(content)

        def instead(name: str, make: Callable[[Path], None]) -> Callable[[], None]:
            def change() -> None:
                (self.folder / name).unlink()
                make(self.folder / name)
            return change

        def linked(path: Path) -> None:
            self.victim.write_bytes(b'precious')
            path.symlink_to(self.victim)
        cases = {'cache: whole': ('loads', lambda: None)}
        for name, content in {
                'empty': b'', 'text': b'x', 'a list': b'[1]', 'a number': b'1', 'null': b'null', 'no text': b'\xff\xfe',
                'deep': b'[' * 200000, 'cut off': print_[:len(print_) // 2],
                'huge': print_[:-2] + b', "x": "' + b'y' * (64 * MIB) + b'"}', 'other types': json.dumps(
                    {key: 5 for key in json.loads(print_)}).encode(), 'another teacher': print_.replace(b'"t"', b'"u"'),
                'a huge number': re.sub(rb'"rows": \d+', b'"rows": 1' + b'0' * 5000, print_)}.items():
            cases[f'cache: fingerprint {name}'] = 'refused', put('fingerprint.json', content)
        for name in ('a-3x4x4.features.bin', 'a-3x4x4.checksums.bin'):
            content = self.whole[name]
            # without checksums there are no rows; without features there is nothing that checksums could be of
            nothing = 'loads' if 'checksums' in name else 'refused'
            cases[f'cache: {name} empty'] = nothing, put(name, b'')
            for title, other in {'cut off': content[:-3], 'too large': content + b'x' * 999}.items():
                cases[f'cache: {name} {title}'] = 'refused', put(name, other)
            cases[f'cache: {name} all ones'] = 'loads', put(name, b'\xff' * len(content))
            cases[f'cache: {name} zeros'] = 'loads', put(name, bytes(len(content)))
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1
            cases[f'cache: {name} bit flipped'] = 'loads', put(name, bytes(flipped))
            cases[f'cache: {name} a link'] = 'refused', instead(name, linked)
            cases[f'cache: {name} a pipe'] = 'refused', instead(name, os.mkfifo)
            cases[f'cache: {name} a device'] = 'refused', instead(name, lambda path: path.symlink_to('/dev/zero'))
            cases[f'cache: {name} a folder'] = 'refused', instead(name, Path.mkdir)
            cases[f'cache: {name} gone'] = nothing, instead(name, lambda path: None)
        cases['cache: fingerprint gone'] = 'refused', instead('fingerprint.json', lambda path: None)
        cases['cache: fingerprint a folder'] = 'refused', instead('fingerprint.json', Path.mkdir)
        return cases

    def run(self, change: Callable[[], None]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in self.whole.items():
            (self.folder / name).write_bytes(content)
        change()
        self.open()
        assert not self.victim.exists() or self.victim.read_bytes() == b'precious', 'wrote through a link'
