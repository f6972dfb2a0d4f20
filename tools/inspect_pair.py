"""Show which stages of a teacher teach which stages of a student, and run one training step of the pair. Exit status 0
only if it ran.
"""
import argparse
import json
import sys
from pathlib import Path

from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from sfkd import SFKD, Distiller
from sfkd.analysis.pair_picture import draw_pairs
from sfkd.analysis.trial import built, training_step, without_downloads, works
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import read_config
from sfkd.openmmlab.configs import is_distillation, load_config
from sfkd.openmmlab.process import errors_for_people, prepare_file, prepare_process


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', nargs='?', help='a distillation config, or else --student and --teacher')
    parser.add_argument('--student', metavar='CONFIG')
    parser.add_argument('--teacher', metavar='CONFIG')
    parser.add_argument('--input-size', nargs=2, type=int, metavar=('H', 'W'))
    parser.add_argument('--load-teacher', action='store_true',
                        help="load the config's teacher_ckpt (by default its weights are random)")
    parser.add_argument('--json', type=Path, metavar='FILE')
    parser.add_argument('--picture', type=Path, metavar='FILE.png',
                        help="both networks' stages, linked where one teaches the other")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    args = parser.parse_args()
    sides = [bool(args.student), bool(args.teacher)]
    if any(sides) != all(sides) or bool(args.config) == any(sides):
        parser.error('give a config, or both --student and --teacher')
    if not args.config and (args.load_teacher or args.cfg_options):
        parser.error('--load-teacher and --cfg-options are of a config; leave them out beside --student and --teacher')
    return args


def build(args) -> Distiller:
    size = dict(input_size=tuple(args.input_size)) if args.input_size else {}
    if args.student:
        init_default_scope(read_config(args.student, '--student').get('default_scope', 'mmpretrain'))
        return SFKD(args.student, without_downloads(args.teacher, '--teacher'), 'init', **size)
    config = load_config(args.config, options=args.cfg_options)
    if not is_distillation(config):
        raise ConfigError(f"'{args.config}' trains a model alone; give the config of a pair, or "
                          '--student and --teacher')
    config.model.update(size)
    return built(config, args.load_teacher)


def rows(distiller: Distiller) -> list[dict]:
    found = []
    for pair in distiller.distillation.pairs:
        s, t = pair.stages
        grid = tuple(map(min, s.grid, t.grid))
        levels = pair.connector.levels_on(grid) if hasattr(pair.connector, 'levels_on') else 0
        found.append(dict(
            pair=pair.name, student=s.path, student_shape=[s.channels, *s.grid], student_stride=s.stride,
            student_layout=s.layout, teacher=t.path, teacher_shape=[t.channels, *t.grid], teacher_stride=t.stride,
            teacher_layout=t.layout, grid=list(grid), levels=levels, bands=1 + 3 * levels if levels else 0,
            losses=pair.weights, connector_parameters=sum(p.numel() for p in pair.parameters())))
    return found


def table(found: list[dict]) -> str:
    header = ('student', 'C x h x w', 'stride', 'teacher', 'C x h x w', 'stride', 'grid', 'bands', 'connector weights')
    lines = [header] + [(r['student'], 'x'.join(map(str, r['student_shape'])), str(r['student_stride'] or '-'),
                         r['teacher'], 'x'.join(map(str, r['teacher_shape'])), str(r['teacher_stride'] or '-'),
                         'x'.join(map(str, r['grid'])), str(r['bands'] or '-'),
                         f"{r['connector_parameters']:,}") for r in found]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def main() -> None:
    args = parse_args()
    prepare_process()
    with errors_for_people():
        prepare_file(args.json, '--json')
        prepare_file(args.picture, '--picture', ['.png', '.pdf', '.svg'])
        distiller = build(args)
    found = rows(distiller)
    size = distiller.distillation.input_size
    print(f'input {size[0]}x{size[1]}\n{table(found)}\n')
    if args.picture:
        draw_pairs(distiller, args.picture)
    with errors_for_people():
        step = training_step(distiller)
    print('one training step: ' + '  '.join(f'{key} {value:.4g}' for key, value in step.items()))
    if args.json:
        shown = dict(input_size=size, pairs=found, step=step, works=works(step))
        args.json.write_text(json.dumps(shown, indent=1) + '\n')
    sys.exit(0 if works(step) else 'the step gave a loss or gradient that is zero or not finite')


if __name__ == '__main__':
    main()
