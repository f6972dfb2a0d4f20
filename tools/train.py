"""Train: a distillation config, or any stock config of mmpretrain, mmdet or mmseg."""
import argparse
import inspect
import json
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from sfkd.errors import ConfigError
from sfkd.openmmlab.amp import CPUAmpOptimWrapper
from sfkd.openmmlab.configs import LOGGERS, check_data, check_model, load_config, log_to, score_on
from sfkd.openmmlab.process import errors_for_people, leaving_together, prepare_process, tool_parser
from sfkd.openmmlab.running import build_runner, plain_scores, prepare_resume


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('--method', metavar='CONFIG',
                        help='distil the pair of the config by another method, such as configs/peers/dkd.py')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint, or without one from the last in the work directory')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision; bfloat16 on a CPU')
    parser.add_argument('--no-validate', action='store_true')
    parser.add_argument('--test', action='store_true',
                        help='in the end score the last epoch on the test split: <work dir>/score.json')
    parser.add_argument('--log-to', nargs='+', choices=LOGGERS, default=[], metavar='LOGGER',
                        help=f"draw the curves there too: {', '.join(LOGGERS)} (docs/logging.md)")
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the total batch size')
    return parser.parse_args()


def use_mixed_precision(config: Config) -> None:
    """A wrapper with mixed precision in place of mmengine's plain one: mmengine's on a GPU, ours on a CPU. Where there
    is a GPU, one derived from mmengine's stays.

    Raises:
        ConfigError: where the config's own wrapper is none of these.
    """
    named = config.optim_wrapper.get('type', 'OptimWrapper')
    with OPTIM_WRAPPERS.switch_scope_and_registry(config.get('default_scope')) as registry:
        kind = registry.get(named) if isinstance(named, str) else named
    if kind is OptimWrapper:
        config.optim_wrapper.type = 'AmpOptimWrapper' if torch.cuda.is_available() else 'CPUAmpOptimWrapper'
    elif kind is CPUAmpOptimWrapper:
        return
    elif not (inspect.isclass(kind) and issubclass(kind, AmpOptimWrapper)):
        raise ConfigError(
            f"--amp: optim_wrapper.type is '{named}', whose work mmengine's AmpOptimWrapper would not do in its place; "
            'leave --amp out, or derive it from AmpOptimWrapper')
    elif not torch.cuda.is_available():
        raise ConfigError(f"--amp: optim_wrapper.type is '{named}', which works on GPUs only, and this machine shows "
                          "none; leave --amp out, or give CPUAmpOptimWrapper")


def train(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.work_dir, args.cfg_options, args.method)
    check_model(config)
    if args.no_validate:
        config.val_cfg = config.val_dataloader = config.val_evaluator = None
    if args.amp:
        use_mixed_precision(config)
    log_to(config, args.log_to)
    prepare_resume(config, args.resume)
    if args.auto_scale_lr:
        config.setdefault('auto_scale_lr', {})['enable'] = True
    if args.test:
        score_on(config, 'test')
    check_data(config, ('train', 'val', 'test') if args.test else ('train', 'val'))
    runner = build_runner(config, args.launcher)
    runner.train()
    if args.test:
        scores = plain_scores(runner.test())
        if runner.rank == 0:
            Path(runner.work_dir, 'score.json').write_text(json.dumps(scores) + '\n')


def main() -> None:
    args = parse_args()
    prepare_process(args.launcher, args.local_rank)
    with errors_for_people(), leaving_together():
        train(args)


if __name__ == '__main__':
    main()
