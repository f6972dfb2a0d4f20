"""Which networks can teach and be taught, and whether stock tools find the stock model in a distilled one. Rows go to a
file as they are done, so that a run that was ended goes on where it was; the page is written from that file.

  python tools/compat_matrix.py backbones      every registered backbone of mmpretrain, mmdet and mmseg, one step each
  python tools/compat_matrix.py models         a stock detector or segmentor of each config family of mmdet and mmseg
  python tools/compat_matrix.py timm           the smallest network of each of its families; so do torchvision and
                                               transformers
  python tools/compat_matrix.py seam           each config family with its own optimiser: names, groups, load_from; and
                                               real trainings with what stock recipes ask of a model
"""
import argparse
import gc
import json
import re
import time
from pathlib import Path

from mmengine.logging import MMLogger

from sfkd.analysis.matrix.networks import PARTS, Backbones, Models
from sfkd.analysis.matrix.seam import Seam
from sfkd.analysis.matrix.stock import LIBRARIES
from sfkd.analysis.matrix.zoos import SIZES, Timm, Torchvision, Transformers, Zoo
from sfkd.analysis.trainings.rows import Trainings
from sfkd.openmmlab.process import prepare_process

#: What the libraries' own messages do not say.
EXPLANATIONS = {
    'mmpretrain.LeNet5': 'takes pictures of one channel',
    'mmpretrain.SparseConvNeXt': "needs the mask of SparK's self-supervised training",
    'mmpretrain.SparseResNet': "needs the mask of SparK's self-supervised training",
    'mmseg.VPD': 'needs the class embeddings and the weights of Stable Diffusion',
    'mmpretrain/lenet': 'takes pictures of one channel',
    'mmdet/clrnet': 'a lane detector whose data processor mmdet does not register',
    'mmdet/common': 'a folder of base configs',
    'mmdet/lad': 'fetches a teacher of its own when it is built',
    'mmdet/ld': "reads its own teacher's config from a path within mmdet's checkout",
    'mmdet/simple_copy_paste': "mmcv's own SyncBN wants several processes when it is built",
    'mmdet/strong_baselines': "mmcv's own SyncBN wants several processes when it is built",
    'transformers/ImageGPTForImageClassification': 'takes colours as tokens',
    'transformers/Siglip2ForImageClassification': 'takes patches, of pictures of many shapes; the SigLIP2 of one '
                                                  'size is a SiglipVisionModel',
    'transformers/Siglip2VisionModel': 'takes patches, of pictures of many shapes; the SigLIP2 of one size is a '
                                       'SiglipVisionModel',
    'transformers/RfDetrDinov2Backbone': 'has windows in the batch from the embedding to the end',
}


ZOOS: dict[str, type[Zoo]] = dict(timm=Timm, torchvision=Torchvision, transformers=Transformers)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', choices=['backbones', 'models', *ZOOS, 'seam'])
    parser.add_argument('--only', nargs='+', metavar='NAME',
                        help='such as mmdet.ResNet, mmdet/retinanet, timm/vgg, seam/mmdet/retinanet or seam/run/ema')
    parser.add_argument('--results', type=Path, default=Path('docs/results/compatibility.jsonl'),
                        help='rows that are there are not made again')
    parser.add_argument('--retry', action='store_true', help='make the rows that did not pass again')
    parser.add_argument('--page', type=Path, help='write the page of all rows there, such as docs/compatibility.md')
    return parser.parse_args()


class SeamAndTrainings:
    """The rows of both: what can be compared without training, and what cannot."""

    def __init__(self):
        self.parts = {True: Trainings(), False: Seam()}

    @staticmethod
    def names() -> list[str]:
        return Seam.names() + Trainings.names()

    def row(self, name: str) -> dict:
        return self.parts[name in Trainings.names()].row(name)


def main() -> None:
    args = arguments()
    prepare_process()
    MMLogger.get_current_instance().setLevel('ERROR')
    kind = dict(ZOOS, backbones=Backbones, models=Models, seam=SeamAndTrainings)[args.kind]
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

Made by `python tools/compat_matrix.py backbones`, `... models`, `... timm`, `... torchvision` and `... transformers`,
with `--page docs/compatibility.md`; rows in
[results/compatibility.jsonl](results/compatibility.jsonl), pairs included. Look at one pair with `python
tools/inspect_pair.py --student CONFIG --teacher CONFIG --picture pair.png`.
"""


ZOO = (f'with random weights and in plain PyTorch (`sfkd.Distillation`), at the first of {", ".join(map(str, SIZES))} '
       'pixels at which all passes; the own loss of a student is the mean square of what it returns; students and '
       "teachers of a CNN (torchvision's ResNet of four blocks) and of a ViT of four blocks")


def page(rows: list[dict]) -> str:
    kinds: dict[str, list[dict]] = {key: [] for key in ('backbones', 'models', *ZOOS, 'seams', 'trainings')}
    for row in rows:
        library = row['name'].partition('/')[0]
        kinds['trainings' if row['name'].startswith('seam/run/') else 'seams' if library == 'seam'
              else library if library in ZOOS else 'models' if '/' in row['name'] else 'backbones'].append(row)
    partners = ' or '.join(path.partition('/')[2] for pair in Models.PARTNERS.values() for path in pair)
    what = dict(
        backbones='every backbone that the three libraries register, in the smallest stock config that has it, under a '
        'plain classification head; students of a stock Swin-T and ResNet-50, teachers of a ResNet-18 of a quarter of '
        'the width (CNN) and of a ViT of four blocks',
        models='a stock detector or segmentor of each config family, of its three smallest the first that passes; '
        f'students and teachers of one of another family ({partners})',
        timm='a family is one of timm\'s modules, the row its network with the fewest weights, ' + ZOO,
        torchvision='a family is one of torchvision\'s modules of classifiers or segmentors, the row its network with '
        'the fewest weights, ' + ZOO,
        transformers='every classifier of pictures and every backbone that transformers lists, and a few vision models '
        'beside them, from their config classes, the isotropic ones four blocks of 64 channels deep, ' + ZOO)
    parts = [INTRODUCTION]
    for kind, title in dict(backbones='Backbones', models='Whole models', timm='timm', torchvision='torchvision',
                            transformers='transformers').items():
        if kinds[kind]:
            parts.append(step_section(title, what[kind], in_order(kinds[kind])))
        if kind == 'backbones' and kinds[kind]:
            parts.append(none_of(PARTS))
        if kind == 'transformers' and kinds[kind]:
            parts.append(none_of(Transformers.NONE))
    if kinds['seams']:
        parts.append(seam_section(in_order(kinds['seams'])))
    if kinds['trainings']:
        parts.append(training_section(kinds['trainings']))
    return '\n'.join(parts)


def none_of(parts: dict[str, str]) -> str:
    return 'Registered with them, but none: ' + ', '.join(f'`{name}` ({why})' for name, why in parts.items()) + '.\n'


def in_order(rows: list[dict]) -> list[dict]:
    """By library, then by name."""
    def rank(row: dict) -> tuple:
        library, name = re.split('[./]', row['name'].removeprefix('seam/'), maxsplit=1)
        return (*LIBRARIES, *ZOOS).index(library), name.lower()
    return sorted(rows, key=rank)


def counts(rows: list[dict], made: str = 'built') -> str:
    built = [row for row in rows if 'roles' in row]
    passed = [row for row in built if outcome(row) == 'passes']
    return (f'**{len(passed)} of the {len(built)} that can be {made} here pass ({len(passed) / len(built):.1%})**, '
            f"{len(rows) - len(built)} cannot be {made}; {sum(row['seconds'] for row in rows) / 60:.0f} minutes on two "
            'shared CPU cores.')


def reasons(rows: list[dict], made: str = 'built') -> list[str]:
    """Lines about those that do not pass and those that cannot be built."""
    lines = []
    for heading, chosen in (('Built, and do not pass', [row for row in rows if 'roles' in row
                                                        and outcome(row) != 'passes']),
                            (f'Cannot be {made} here, or is none', [row for row in rows if 'roles' not in row])):
        if chosen:
            lines += ['', f'{heading}:', '', '| network | why |', '|---|---|']
            lines += [f"| {row['name'].removeprefix('seam/')} | {reason(row)} |" for row in chosen]
    return lines


def step_section(title: str, what: str, rows: list[dict]) -> str:
    built = [row for row in rows if 'roles' in row]
    families = [key.partition(' of ')[0] for key in built[0]['roles']]  # a model has one role of each
    roles = families if len(set(families)) == len(families) else list(built[0]['roles'])
    lines = [f'## {title}', '', f'Rows: {what}.', '', counts(rows), '',
             f"| network | stock config | pixels | weights (M) | {' | '.join(roles)} |",
             '|' + '---|' * (len(roles) + 4)]
    for row in built:
        cells = [str(len(found['pairs'])) if found['passes'] else 'fails' for found in row['roles'].values()]
        lines.append(
            f"| {row['name']} | {row['config']} | {row['size']} | {row['weights'] / 1e6:.1f} | {' | '.join(cells)} |")
    return '\n'.join(lines + reasons(rows)) + '\n'


SEAM = """## The seam with the stock tools

A distilled model is the stock student, so whatever works by the names of its parts must find there what it finds in the
stock model. For each config family: its smallest config, and the smallest whose optimiser treats weights by their names
(one with layer decay before one with plain `paramwise_cfg`), each with its own `optim_wrapper`, built by its own
constructor. The stock model alone is compared with `SFKD(student, teacher)` of the same config:

- the names and the order of all parameters, buffers and saved tensors are the same, and all that is added begins with
  `distillation.`;
- every student weight has the learning rate, the weight decay and all other options that it has in the stock model's
  optimiser, and the connectors' weights are in the optimiser too;
- a checkpoint of the stock model with changed values arrives whole, to the last value, through mmengine's `load_from`;
- the distilled model is an object of the stock class.

Mixed precision and DeepSpeed's wrapper want a GPU; groups do not depend on them, and they are replaced by the plain
wrapper here. "Rates" counts the different pairs of learning rate and weight decay. Made by `python
tools/compat_matrix.py seam`.
"""
TRAININGS = """## What stock recipes ask of a model, in real trainings

Each trains a distilled student on a few pictures of Digits in the Wild, in most cases for 6 to 12 iterations of
mmengine's own runner: nothing here says how well it learns. BEiT, UPerNet and Mask R-CNN are small ones of the stock
classes with their stock recipe's optimiser, YOLOX-tiny is the stock one with its own hooks and optimiser. Mask R-CNN
and Mask2Former for instances learn a few pictures by heart, so that there are masks to compare; panoptic scores want
panopticapi, which is not on the package index. mmengine's
`AmpOptimWrapper` refuses to be built without a GPU; here that one check is answered for it. mmdet's own tools are
started with `import sfkd` before them, for where mmcv has no compiled operators. Made by `python tools/compat_matrix.py
seam`, which takes {minutes:.0f} minutes for these; each is a test too (`tests/openmmlab/test_seam.py`, the longer ones
with `-m long`).
"""


def seam_section(rows: list[dict]) -> str:
    lines = [SEAM, counts(rows, 'built and distilled'), '',
             '| family | stock config | weights (M) | tensors | optimiser constructor | rates | pairs | |',
             '|---|---|---|---|---|---|---|---|']
    for row in rows:
        for config, found in row.get('roles', {}).items():
            cells = (row['name'].removeprefix('seam/'), config, f"{found['weights'] / 1e6:.1f}", found['tensors'],
                     found['constructor'] or 'default', found['rates'], found['pairs'],
                     'same' if found['passes'] else 'differs')
            lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    if lost := [f"| {row['name'].split('/')[1]}: {config} | {quoted(why)} |"
                for row in rows for config, why in row.get('not_built', {}).items()]:
        lines += ['', 'Configs that cannot be, beside others of their family that can:', '', '| config | why |',
                  '|---|---|', *lost]
    return '\n'.join(lines + reasons(rows, 'built and distilled')) + '\n'


def training_section(rows: list[dict]) -> str:
    lines = [TRAININGS.format(minutes=sum(row['seconds'] for row in rows) / 60),
             '| training | what was looked at | found |', '|---|---|---|']
    for row in sorted(rows, key=lambda row: Trainings.names().index(row['name'])):
        for what, found in row['roles'].items():
            lines.append(f"| {row['name'].removeprefix('seam/run/')} | {what} | "
                         f"{'' if found['passes'] else '**fails**: '}{found['found']} |")
    return '\n'.join(lines) + '\n'


def reason(row: dict) -> str:
    known = EXPLANATIONS.get(row['name'].removeprefix('seam/'))
    return (f'{known}: ' if known else '') + quoted(outcome(row).removeprefix('cannot be built: '))


def quoted(text: str) -> str:
    """What was raised, as code in a table's cell."""
    return '`' + text.replace('|', '/').replace('`', "'")[:240] + '`'


if __name__ == '__main__':
    main()
