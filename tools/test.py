"""Score a checkpoint on the config's test set, or its validation set. Of a distillation config the student alone is
built and scored: no teacher is needed.
"""
import argparse
import json
from pathlib import Path

from sfkd.checkpoint import load_strictly
from sfkd.openmmlab.configs import check_data, class_of, is_distillation, load_config, score_on, student_config
from sfkd.openmmlab.process import errors_for_people, leaving_together, prepare_process, tool_parser
from sfkd.openmmlab.running import build_runner, plain_scores
from sfkd.registry import HOOKS


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('checkpoint', help='.pth or .safetensors, of a whole distillation run or of the student alone')
    parser.add_argument('--split', choices=['val', 'test'], default='test', help='what it is scored on')
    parser.add_argument('--out', metavar='FILE.json', help='also write the scores there')
    return parser.parse_args()


def test(args: argparse.Namespace) -> None:
    config = load_config(args.config, args.work_dir, args.cfg_options)
    if is_distillation(config):
        config = student_config(config)
    score_on(config, args.split)
    check_data(config, ('test', ))
    config.train_dataloader = config.train_cfg = config.optim_wrapper = config.param_scheduler = None
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.resume, config.load_from = False, None
    config.custom_hooks = [hook for hook in config.get('custom_hooks') or []
                           if not getattr(class_of(hook, HOOKS, config), '__module__', '').startswith('sfkd.')]
    runner = build_runner(config, args.launcher)
    load_strictly(getattr(runner.model, 'module', runner.model), args.checkpoint)
    scores = plain_scores(runner.test())
    if args.out and runner.rank == 0:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(scores) + '\n')


def main() -> None:
    args = parse_args()
    prepare_process(args.launcher, args.local_rank)
    with errors_for_people(), leaving_together():
        test(args)


if __name__ == '__main__':
    main()
