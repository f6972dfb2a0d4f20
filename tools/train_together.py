"""Train one student by several methods at once: every batch is loaded once, every pass of the teacher is made once.

Each student is, to the last bit, the one that tools/train.py gives with the same method and seed (if no layer draws
random numbers in training). In the end all are scored after their last epoch. A method is 'alone', 'sfkd' (the config
as it stands), the name of a config in configs/peers/ or configs/ablation/, a file of your own written as these are
(mine.py), or one of these with options of the model: 'sfkd+refine=within'. Options of the model in --cfg-options are
for all of them.

  python tools/train_together.py configs/mini/cls_resnet_to_mixer.py --methods alone kd sfkd sfkd_lean

What the teacher showed can be kept for other runs, by whatever methods and of its other students
(docs/guides/teacher_cache.md):

  python tools/train_together.py configs/fashion/resnet_to_mixer.py --methods alone kd sfkd --teacher-cache DIR

Writes <work dir>/<method>/student.pth, a stock checkpoint, and <work dir>/scores.json, {method: {metric: value}}.
"""
import json
from pathlib import Path

from mmengine.hooks import EMAHook

from sfkd.checkpoint import stock_checkpoint, write_checkpoint
from sfkd.errors import ConfigError
from sfkd.openmmlab.configs import check_data, class_of, load_config, score_on
from sfkd.openmmlab.hooks import TeacherCacheHook
from sfkd.openmmlab.methods import folder_of, model_of
from sfkd.openmmlab.process import errors_for_people, prepare_process, tool_parser
from sfkd.openmmlab.running import build_runner, plain_scores, prepare_resume
from sfkd.registry import HOOKS


def train(args) -> None:
    config = load_config(args.config, args.work_dir, args.cfg_options)
    if not args.work_dir:
        config.work_dir += '_together'  # beside a run of tools/train.py
    if args.launcher != 'none':
        raise ConfigError(f'--launcher {args.launcher}: students that train together share one process; leave it out, '
                          'or use tools/dist_train.sh for one method')
    hooks = config.get('custom_hooks') or []
    if any(issubclass(class_of(hook, HOOKS, config) or object, EMAHook) for hook in hooks):
        raise ConfigError('custom_hooks: an EMAHook averages one model, here there are several; use tools/train.py for '
                          'each method')
    members = {method: model_of(args.config, method, args.cfg_options) for method in args.methods}
    folders = {folder_of(method): method for method in members}
    if same := [method for method in members if folders[folder_of(method)] != method]:
        raise ConfigError(f"--methods: '{same[0]}' and '{folders[folder_of(same[0])]}' would be saved in one folder, "
                          f"'{folder_of(same[0])}'; rename one of the files")
    score_on(config, args.split)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    check_data(config, ('train', 'test'))
    if saving := (config.get('default_hooks') or {}).get('checkpoint'):
        saving.save_best = None  # nothing is scored on the way
    # never: a cohort looks itself
    config.custom_hooks = [*hooks, dict(type='sfkd.InvalidLossHook', interval=0)]
    if args.teacher_cache:
        others = [hook for hook in config.custom_hooks if class_of(hook, HOOKS, config) is not TeacherCacheHook]
        config.custom_hooks = [*others, dict(type='sfkd.TeacherCacheHook', stored='bf16',
                                             folder=f'{args.teacher_cache}/{{fingerprint}}')]
    config.model = dict(type='sfkd.Cohort', members=members)
    config.optim_wrapper = dict(constructor='CohortOptimizers', each=config.optim_wrapper)
    prepare_resume(config, args.resume)
    runner = build_runner(config)
    runner.train()
    cohort, scores = runner.model, {}
    for i, name in enumerate(cohort.names):
        cohort.shown = i
        if name not in cohort.dropped:
            scores[name] = plain_scores(runner.test())
            checkpoint = dict(state_dict=cohort.student(name).state_dict(),
                              meta=dict(epoch=runner.epoch, iter=runner.iter))
            write_checkpoint(stock_checkpoint(checkpoint), Path(runner.work_dir, folder_of(name), 'student.pth'))
    Path(runner.work_dir, 'scores.json').write_text(json.dumps(scores) + '\n')
    if cohort.dropped:
        raise ConfigError([f'{name} dropped out: {why}' for name, why in cohort.dropped.items()])


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument('--methods', nargs='+', required=True, metavar='METHOD[+KEY=VALUE...]')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint, or without one from the last in the work directory')
    parser.add_argument('--split', choices=['val', 'test'], default='test', help='what the students are scored on')
    parser.add_argument('--teacher-cache', metavar='FOLDER', help='keep what teachers show there, in bfloat16 and '
                        "20 GiB at most for each, and read it where it is there; in place of the config's own "
                        'TeacherCacheHook. The training set must be an sfkd.ReplayedDataset')
    args = parser.parse_args()
    prepare_process()
    with errors_for_people():
        train(args)


if __name__ == '__main__':
    main()
