"""Which networks can teach and be taught: each takes one training step as teacher and as student, with the automatic
pairs and no connector of its own. Rows go to a file as they are done, so that a run that was ended goes on where it
was; the page is written from that file.

  python tools/compat_matrix.py backbones      every registered backbone of mmpretrain, mmdet and mmseg
  python tools/compat_matrix.py models         a stock detector or segmentor of each config family of mmdet and mmseg
"""
import argparse
import functools
import gc
import importlib
import inspect
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from mmdet.models import BaseDetector
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import revert_sync_batchnorm
from mmpretrain.models import LinearClsHead
from mmseg.models import BaseSegmentor
from torch import nn

from sfkd import SFKD
from sfkd.analysis.trial import initialise, training_step, without_downloads, works
from sfkd.openmmlab.building import read_config
from sfkd.openmmlab.running import prepare_process

LIBRARIES = ('mmpretrain', 'mmdet', 'mmseg')
SIZES = (64, 128, 224, 320, 512)  # the first that a network takes
#: Registered with the backbones, but none.
PARTS = {'mmseg.DeconvModule': "a layer of UNet's decoder", 'mmseg.InterpConv': "a layer of UNet's decoder"}
#: What the libraries' own messages do not say.
EXPLANATIONS = {
    'mmpretrain.LeNet5': 'takes pictures of one channel',
    'mmpretrain.SparseConvNeXt': "needs the mask of SparK's self-supervised training",
    'mmpretrain.SparseResNet': "needs the mask of SparK's self-supervised training",
    'mmseg.VPD': 'needs the class embeddings and the weights of Stable Diffusion',
    'mmdet/common': 'a folder of base configs',
    'mmdet/dyhead': "gives offsets of another grid than the output's, which torchvision's operator refuses",
    'mmdet/tridentnet': 'its forward wants data samples, in tensor mode too',
}
#: Backbones that no stock config has and whose constructors want something: what they get.
ARGUMENTS = {
    'mmdet.ResNetV1d': dict(depth=50),
    'mmdet.DetectoRS_ResNeXt': dict(depth=50, groups=32, base_width=4, conv_cfg=dict(type='ConvAWS')),
    'mmseg.ResNetV1d': dict(depth=18),
    'mmseg.ResNeXt': dict(depth=50, groups=32, base_width=4),
    'mmpretrain.TIMMBackbone': dict(model_name='resnet18'),
    'mmseg.TIMMBackbone': dict(model_name='vit_tiny_patch16_224', pretrained=False, dynamic_img_size=True),
}
#: What stock configs call their small versions, smallest first: a matrix of small networks is a matter of minutes.
SMALL = 'atto femto pico nano xxs xxsmall xs xsmall tiny t 5m r18 hr18 18 s0 b0 A0 m0 small s s12 s16 x0 mini effb3 r50 50 b base 31B 100'.split(
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', choices=['backbones', 'models'])
    parser.add_argument('--only', nargs='+', metavar='NAME', help='such as mmdet.ResNet or mmdet/retinanet')
    parser.add_argument('--results', type=Path, default=Path('docs/results/compatibility.jsonl'),
                        help='rows that are there are not made again')
    parser.add_argument('--retry', action='store_true', help='make the rows that did not pass again')
    parser.add_argument('--page', type=Path, help='write the page of all rows there, such as docs/compatibility.md')
    return parser.parse_args()


# ---- stock configs ----

def configs(library: str) -> Path:
    return Path(importlib.import_module(library).__file__).parent / '.mim/configs'


def smallest_first(files: list[Path]) -> list[Path]:
    def rank(file: Path) -> tuple:
        words = re.split(r'[-_.]', file.stem)
        return min([SMALL.index(word) for word in words if word in SMALL],
                   default=len(SMALL)), len(file.stem), str(file)
    return sorted(files, key=rank)


def within(config, kind: str) -> ConfigDict | None:
    """The part of a config that has this type."""
    if isinstance(config, (list, tuple)):
        config = dict(enumerate(config))
    if not isinstance(config, dict):
        return None
    if config.get('type') == kind:
        return config
    return next((found for value in config.values() if (found := within(value, kind)) is not None), None)


def stock_backbones(library: str, kind: str) -> Iterator[tuple[str, ConfigDict]]:
    """Where stock configs name a backbone, the smallest first: (path, its arguments)."""
    names = re.compile(rf"""type=(['"]){kind}\1""")
    for file in smallest_first([file for file in configs(library).rglob('*.py') if names.search(file.read_text())]):
        found = within(Config.fromfile(file).get('model'), kind)
        if found is not None:
            yield str(file.relative_to(configs(library))), found


# ---- rows: one network with a reason, or with what each of its roles gave ----

class PooledHead(LinearClsHead):
    """Classifies by the mean of a backbone's deepest output, whatever that is: heads of libraries fit their own
    backbones only.
    """

    def __init__(self, num_classes: int = 10):
        super().__init__(num_classes, 1)
        self.fc = nn.LazyLinear(num_classes)

    def pre_logits(self, feats):
        while isinstance(feats, (tuple, list)):
            feats = feats[-1]
        return feats.flatten(2).mean(2) if feats.dim() > 2 else feats

    def loss(self, feats, data_samples):
        scores = self(feats)
        return self._get_loss(scores, data_samples *
                              (len(scores) // len(data_samples)))  # TridentNet trains three copies of a picture


def classifier(library: str, name: str, size: int) -> tuple[str, nn.Module]:
    """A classifier with this backbone for pictures of a size, and where its arguments are from."""
    cls = importlib.import_module(f'{library}.registry').MODELS.get(name)
    source, backbone = f'{library}.{name}', ARGUMENTS.get(f'{library}.{name}')
    if backbone is None:
        source, backbone = next(stock_backbones(library, name), (source, {}))
    backbone = dict(backbone, type=name)
    signature = {
        key: p
        for base in reversed(cls.__mro__)
        for key, p in inspect.signature(base.__init__).parameters.items()
    }
    if 'img_size' in signature:
        backbone['img_size'] = (size, size) if isinstance(signature['img_size'].default, (tuple, list)) else size
    if 'pad_small_map' in signature:
        backbone['pad_small_map'] = True
    backbone.pop('init_cfg', None)
    backbone = without_downloads(backbone, name, scope=library)
    network = without_downloads(dict(type='mmpretrain.ImageClassifier', backbone=backbone), name)
    network.head = PooledHead()
    with torch.no_grad():  # gives the head its width, in train mode, where some backbones give more
        revert_sync_batchnorm(network).train()(torch.zeros(2, 3, size, size), mode='tensor')
    return source, initialise(network)


def small(kind: str, size: int) -> nn.Module:
    """A small student of ours."""
    backbone, channels, neck = {
        'CNN': (dict(type='ResNet', depth=18, stem_channels=16,
                     base_channels=16), 128, dict(type='GlobalAveragePooling')),
        'ViT': (dict(type='VisionTransformer', img_size=size, patch_size=16,
                     arch=dict(embed_dims=32, num_layers=4, num_heads=2, feedforward_channels=64)), 32, None)
    }[kind]
    head = dict(type='LinearClsHead', num_classes=10, in_channels=channels)
    return initialise(
        without_downloads(dict(type='mmpretrain.ImageClassifier', backbone=backbone, neck=neck, head=head), kind))


def stock(path: str, **backbone) -> nn.Module:
    """A stock model with random weights."""
    config = read_config(path, path)
    model = dict(config.model, backbone=dict(config.model.backbone, **backbone)) if backbone else config.model
    return initialise(without_downloads(model, path, config.get('data_preprocessor'), config.get('default_scope')))


def role(student: nn.Module, teacher: nn.Module, size: int) -> dict:
    """What one training step of a pair gave: the pairs and both gradients, or why there is none."""
    try:
        distiller = SFKD(student, teacher, input_size=size)
        step = training_step(distiller)
    except Exception as error:  # whatever any library raises is a result here
        return dict(passes=False, why=one_line(error))
    found = dict(passes=works(step),
                 pairs=[(pair.student_path, pair.teacher_path) for pair in distiller.distillation.pairs],
                 **{key: float(f'{step[key]:.3g}')
                    for key in ('gradient', 'distillation_gradient')})
    return found if found['passes'] else dict(found, why='a loss or gradient is zero or not finite')


def one_line(error: Exception) -> str:
    """What an error says, without the folders of the machine that it came from."""
    return re.sub(r'(/[\w.+-]+){3,}/', '', re.sub(r'\s+', ' ', f'{type(error).__name__}: {error}'))[:400]


class Backbones:
    """Rows ``library.Backbone``: as students of two stock teachers, then (frozen) as teachers of two small students."""

    def __init__(self):
        self.teachers = dict(Swin=stock('mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', pad_small_map=True),
                             ResNet=stock('mmpretrain::resnet/resnet50_8xb32_in1k.py'))

    @staticmethod
    def names() -> list[str]:
        found = []
        for library in LIBRARIES:
            importlib.import_module(f'{library}.models')
            registered = importlib.import_module(f'{library}.registry').MODELS.module_dict
            found += [
                f'{library}.{name}' for name, cls in registered.items()
                if cls.__module__.startswith(f'{library}.models.backbones.')
            ]
        return [name for name in found if name not in PARTS]

    def row(self, name: str) -> dict:
        for size in SIZES:
            try:
                source, network = classifier(*name.split('.'), size)
            except Exception as error:  # some take 224 only, and each says so in its own way
                row = dict(why=one_line(error))
                continue
            roles = {f'student of {key}': role(network, teacher, size) for key, teacher in self.teachers.items()}
            roles |= {f'teacher of {key}': role(small(key, size), network, size) for key in ('CNN', 'ViT')}
            row = dict(config=source, size=size, weights=sum(p.numel() for p in network.parameters()), roles=roles)
            if all(found['passes'] for found in roles.values()):
                break
        return row


class Models:
    """Rows ``library/family``: a small stock config of the family as a student, then as a teacher, of another
    family.
    """

    PARTNERS = dict(
        mmdet=('retinanet/retinanet_r18_fpn_1x_coco.py', 'gfl/gfl_r50_fpn_1x_coco.py'),
        mmseg=('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
               'fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py'))

    @staticmethod
    @functools.cache
    def partner(side: str, library: str, path: str) -> nn.Module:
        """One network for each side: a teacher is frozen."""
        return stock(f'{library}::{path}')

    @staticmethod
    def names() -> list[str]:
        return [f'{library}/{family.name}' for library in LIBRARIES[1:] for family in sorted(configs(library).iterdir())
                if family.name != '_base_' and family.is_dir()]

    def row(self, name: str) -> dict:
        """Of the family's three smallest configs the first that passes; if none does, what the smallest gave that
        builds.
        """
        library, family = name.split('/')
        partner = next(path for path in self.PARTNERS[library] if path.partition('/')[0] != family)
        tried = []
        for file in smallest_first(list((configs(library) / family).glob('*.py')))[:3]:
            tried.append(dict(config=f'{family}/{file.name}', **self.attempt(file, library, partner)))
            if outcome(tried[-1]) == 'passes':
                return tried[-1]
        return max(tried, key=lambda row: 'roles' in row) if tried else dict(why='a folder without configs')

    def attempt(self, file: Path, library: str, partner: str) -> dict:
        try:
            network = stock(str(file))
        except Exception as error:  # each library and each missing package says so in its own way
            return dict(why=one_line(error))
        if not hasattr(network, 'backbone') or not isinstance(network, (BaseDetector, BaseSegmentor)):
            return dict(why=f'{type(network).__name__} is no detector or segmentor of its own')
        other = partner.partition('/')[0]
        own = getattr(network.backbone, 'img_size', SIZES[1])  # BEiT takes no other
        for size in (*SIZES[1:], own if isinstance(own, int) else own[0]):
            roles = {f'student of {other}': role(network, self.partner('teacher', library, partner), size)}
            if roles[f'student of {other}']['passes']:
                break
        roles[f'teacher of {other}'] = role(self.partner('student', library, partner), network, size)
        return dict(size=size, weights=sum(p.numel() for p in network.parameters()), roles=roles)


def main() -> None:
    args = arguments()
    prepare_process()
    MMLogger.get_current_instance().setLevel('ERROR')
    kind = dict(backbones=Backbones, models=Models)[args.kind]
    names = args.only or kind.names()
    args.results.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.results.read_text().splitlines()] if args.results.exists() else []
    if args.retry:
        rows = [row for row in rows if row['name'] not in names or outcome(row) == 'passes']
        args.results.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    done = {row['name'] for row in rows}
    todo = [name for name in names if name not in done]
    made = kind() if todo else None
    for name in todo:
        start = time.perf_counter()
        row = dict(name=name, **made.row(name))
        row['seconds'] = round(time.perf_counter() - start, 1)
        rows.append(row)
        with args.results.open('a') as file:
            file.write(json.dumps(row) + '\n')
        print(f"{name}: {outcome(row)} ({row['seconds']} s)", flush=True)
        gc.collect()
    if args.page:
        args.page.write_text(page(rows))


def outcome(row: dict) -> str:
    if 'roles' not in row:
        return f"cannot be built: {row['why']}"
    failed = [f'{key}: {found["why"]}' for key, found in row['roles'].items() if not found['passes']]
    return '; '.join(failed) or 'passes'


# ---- the page ----

INTRODUCTION = """# Which networks can teach and be taught

Every pair below was built from one line, `SFKD(student, teacher)`, without a connector or a path in any config, and
took one training step on two random pictures with random weights: data preprocessor, forward, all losses, backward,
update. A cell says how many pairs of stages were found; a step passes if every loss is finite, and if two gradients
behind the student's first layer, at its pictures, are finite and not zero: that of everything, and that of the
distillation alone. Nothing here says how well anything learns. Encoders that mmpretrain registers for self-supervised
training only (their forward takes a mask) are not rows. A family is a folder of configs; several have one architecture.

Made by `python tools/compat_matrix.py backbones` and `... models`, with `--page docs/compatibility.md`; rows in
[results/compatibility.jsonl](results/compatibility.jsonl), pairs included. Look at one pair with `python
tools/inspect_pair.py --student CONFIG --teacher CONFIG --picture pair.png`.
"""


def page(rows: list[dict]) -> str:
    partners = ' or '.join(path.partition('/')[2] for pair in Models.PARTNERS.values() for path in pair)
    parts = [INTRODUCTION]
    for title, whole, what in (
        ('Backbones', False,
         'every backbone that the three libraries register, in the smallest stock config that has it, under a plain '
         'classification head; students of a stock Swin-T and ResNet-50, teachers of a ResNet-18 of a quarter of the width (CNN) and of a '
         'ViT of four blocks'),
        ('Whole models', True,
         'a stock detector or segmentor of each config family, of its three smallest the first that passes; students and '
         f'teachers of one of another family ({partners})')):
        chosen = [row for row in rows if ('/' in row['name']) == whole]
        if chosen:
            chosen.sort(key=lambda row: (LIBRARIES.index(re.split('[./]', row['name'])[0]), row['name'].lower()))
            parts.append(section(title, what, chosen))
    parts.append('Registered with the backbones, but none: ' + ', '.join(f'`{name}` ({why})'
                                                                         for name, why in PARTS.items()) + '.\n')
    return '\n'.join(parts)


def section(title: str, what: str, rows: list[dict]) -> str:
    built = [row for row in rows if 'roles' in row]
    passed = [row for row in built if outcome(row) == 'passes']
    families = [key.partition(' of ')[0] for key in built[0]['roles']]  # a model has one role of each
    roles = families if len(set(families)) == len(families) else list(built[0]['roles'])
    lines = [
        f'## {title}', '', f'Rows: {what}.', '',
        f'**{len(passed)} of the {len(built)} that can be built here pass ({len(passed) / len(built):.1%})**, '
        f"{len(rows) - len(built)} cannot be built; {sum(row['seconds'] for row in rows) / 60:.0f} minutes on two shared CPU cores.",
        '', f"| network | stock config | pixels | weights (M) | {' | '.join(roles)} |", '|' + '---|' * (len(roles) + 4)
    ]
    for row in built:
        cells = [str(len(found['pairs'])) if found['passes'] else 'fails' for found in row['roles'].values()]
        lines.append(
            f"| {row['name']} | {row['config']} | {row['size']} | {row['weights'] / 1e6:.1f} | {' | '.join(cells)} |")
    for heading, chosen in (('Built, and do not pass', [row for row in built if row not in passed]),
                            ('Cannot be built here, or is none', [row for row in rows if row not in built])):
        if chosen:
            lines += ['', f'{heading}:', '', '| network | why |', '|---|---|']
            lines += [f"| {row['name']} | {reason(row)} |" for row in chosen]
    return '\n'.join(lines) + '\n'


def reason(row: dict) -> str:
    known = EXPLANATIONS.get(row['name'])
    raised = outcome(row).removeprefix('cannot be built: ').replace('|', '/').replace('`', "'")
    return (f'{known}: ' if known else '') + f'`{raised[:240]}`'


if __name__ == '__main__':
    main()
