"""Train: a distillation config, or any stock config of mmpretrain, mmdet or mmseg."""
import argparse
import os

from mmengine.config import DictAction

from sfkd.engine.running import build_runner, check_data, errors_for_people, load_config, prepare_process


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('--work-dir', help='default: work_dirs/<config name>')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from a checkpoint, or without one from the last in the work directory')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--no-validate', action='store_true')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by the total batch size')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    args = parse_args()
    prepare_process(args.launcher)
    with errors_for_people():
        config = load_config(args.config, args.work_dir, args.cfg_options)
        if args.no_validate:
            config.val_cfg = config.val_dataloader = config.val_evaluator = None
        if args.amp:
            config.optim_wrapper.type = 'AmpOptimWrapper'
            config.optim_wrapper.setdefault('loss_scale', 'dynamic')
        if args.resume:
            config.resume, config.load_from = True, None if args.resume == 'auto' else args.resume
        if args.auto_scale_lr:
            config.setdefault('auto_scale_lr', {})['enable'] = True
        check_data(config, ('train', 'val'))
        build_runner(config, args.launcher).train()


if __name__ == '__main__':
    main()
