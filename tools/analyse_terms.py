"""What each distillation term asks of the student over training, per stage and band: energies, gradient norms, CKA.

  python tools/train.py CONFIG --no-validate --cfg-options default_hooks.checkpoint.max_keep_ckpts=-1
  python tools/analyse_terms.py CONFIG --checkpoints work_dirs/NAME/epoch_1.pth work_dirs/NAME/epoch_6.pth

Without checkpoints: the untrained student. Gradients are those in the student's weights, in train mode, on the first
pictures of the validation split; nothing is trained.
"""
import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.config import DictAction
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from sfkd.analysis import PairReport, report_terms
from sfkd.analysis.report.examination import initialise_student
from sfkd.analysis.report.pictures import LeftOut
from sfkd.checkpoint import read_checkpoint, weights_of
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import check_data, load_config
from sfkd.openmmlab.process import errors_for_people, prepare_file, prepare_process
from sfkd.registry import MODELS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='of a distillation')
    parser.add_argument('--checkpoints', nargs='+', default=[], metavar='FILE',
                        help='of whole runs (not of the student alone)')
    parser.add_argument('--method', metavar='CONFIG', help='as in train.py')
    parser.add_argument('--pictures', type=int, default=100)
    parser.add_argument('--sigma', type=float, default=0.5, help='of the Gaussian whose share is shown')
    parser.add_argument('--json', type=Path, metavar='FILE')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    args = parser.parse_args()
    if args.pictures < 1:
        parser.error(f'--pictures {args.pictures}: 1 at least')
    if not args.sigma > 0:
        parser.error(f'--sigma {args.sigma:g}: it must be above 0')
    return args


def table(reports: list[PairReport]) -> str:
    lines = []
    for r in reports:
        task = r.gradients['task']
        terms = ', '.join(f'{key} {value:.3g} (gradient {r.gradients[key] / task:.2f} of the task\'s)'
                          for key, value in r.losses.items())
        cka = '' if r.cka is None else f'CKA {r.cka:.3f}; '
        kept = ''
        if r.kept is not None:
            kept = f'; the Gaussian keeps {r.kept[0]:.0%} of the teacher, {r.kept[1]:.0%} of the residual'
        lines.append(f'  {r.name}: {cka}{terms}; cosine with the task\'s gradient {r.cosine:+.2f}{kept}')
        if r.bands:
            lines.append('    band: share of the teacher / of the residual / residual over teacher: ' + ', '.join(
                f'{band} {share:.1%} / {missed:.1%} / {ratio:.2f}' for band, (share, missed, ratio) in r.bands.items()))
    return '\n'.join(lines)


def load(distiller: torch.nn.Module, file: str) -> None:
    try:
        distiller.load_state_dict(weights_of(read_checkpoint(file, '--checkpoints')))
    except RuntimeError as error:
        raise ConfigError(f"--checkpoints: '{file}' is no checkpoint of a whole run of this config: {error}") from error


def main() -> None:
    args = parse_args()
    prepare_process()
    with errors_for_people():
        prepare_file(args.json, '--json')
        config = load_config(args.config, options=args.cfg_options, method=args.method)
        check_data(config, ('val', ))
        init_default_scope(config.get('default_scope', 'mmengine'))
        torch.manual_seed(0)
        distiller = MODELS.build(dict(config.model, data_preprocessor=config.get('data_preprocessor')))
        if not getattr(distiller, 'distillation', None) or not distiller.distillation.pairs:
            raise ConfigError(f"'{args.config}' distils nothing: every weight is 0")
        if not args.checkpoints:
            try:
                initialise_student(distiller, config)
            except LeftOut as error:
                raise ConfigError(str(error)) from error
    distiller.train()
    dataset = Runner.build_dataloader(dict(config.val_dataloader, num_workers=0), seed=0).dataset
    count = min(args.pictures, len(dataset))
    chosen = [i * len(dataset) // count for i in range(count)]  # over all classes: folders come in order
    collate = default_collate if config.default_scope == 'mmpretrain' else pseudo_collate
    batch = distiller.data_preprocessor(collate([dataset[i] for i in chosen]), True)
    written = []
    for checkpoint in args.checkpoints or ['untrained']:
        if checkpoint != 'untrained':
            with errors_for_people():
                load(distiller, checkpoint)
        reports = report_terms(distiller, batch['inputs'], batch['data_samples'], args.sigma)
        print(f'{checkpoint}\n{table(reports)}', flush=True)
        written += [dict(checkpoint=checkpoint, **asdict(report)) for report in reports]
    if args.json:
        args.json.write_text(json.dumps(written, indent=1) + '\n')


if __name__ == '__main__':
    main()
