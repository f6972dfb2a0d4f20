"""Whole training steps of the flagship pairs: what SFKD costs over its floor, (student's own step) + (teacher forward
to the deepest tap, in the student's precision). 'own teacher' is that pass in the precision that the step has it in.
"""
import argparse

from common import PAIRS, Steps, finish, interleaved, milliseconds, parser, ratio, show, start


def parse_args() -> argparse.Namespace:
    found = parser(__doc__, repeats=11)
    found.add_argument('--pairs', nargs='+', choices=PAIRS, default=list(PAIRS))
    found.add_argument('--image', nargs=2, type=int, metavar=('H', 'W'),
                       help='default: 224x224 (cls), 256x416 (det), 512x512 (seg)')
    found.add_argument('--batch', type=int, help='default: 8 (cls), 2 (det), 2 (seg)')
    found.add_argument('--amp', action='store_true', help='bfloat16 autocast')
    found.add_argument('--teacher-precision', choices=['auto', 'fp32', 'bf16', 'fp16'], default='auto')
    found.add_argument('--teacher-compile', action='store_true', help='compile the teacher (minutes on a CPU)')
    found.add_argument('--compile', action='store_true', help='compile connectors and losses (needs a compiler)')
    found.add_argument('--channels-last', action='store_true',
                       help="lay out SFKD's student so; the floor's stays as it is")
    found.add_argument('--config', help="another SFKD config in place of the pair's own; give one of --pairs")
    return found.parse_args()


def measure(name: str, args: argparse.Namespace) -> tuple[dict, dict]:
    """The row for the JSON file, and that for the eye."""
    config, size, batch = PAIRS[name]
    size, batch = tuple(args.image or size), args.batch or batch
    options = dict(device=args.device, amp=args.amp, compiled=args.compile, teacher_precision=args.teacher_precision,
                   teacher_compile=args.teacher_compile)
    steps = ours = Steps(args.config or config, size, batch, **options)
    if args.channels_last:
        ours = Steps(args.config or config, size, batch, channels_last=True, **options)
    variants = {'student': steps.student, 'teacher': steps.teacher, 'own teacher': steps.own_teacher,
                'sfkd': ours.sfkd, 'mmrazor': steps.mmrazor()}
    if kd := steps.kd():
        variants['kd'] = kd
    seconds = interleaved(variants, args.repeats, args.device)
    floor = [a + b for a, b in zip(seconds['student'], seconds['teacher'])]
    over_floor, spread = ratio(seconds['sfkd'], floor)
    over_ours, razor_spread = ratio(seconds['mmrazor'], seconds['sfkd'])
    image = f'{size[0]}x{size[1]}'
    row = dict(pair=name, image=image, batch=batch, teacher_precision=steps.teacher_precision,
               channels_last=args.channels_last, step_over_floor=over_floor, mmrazor_over_ours=over_ours, spread=spread)
    return row, {
        'pair': name, 'image': image, 'batch': batch, 'teacher in': steps.teacher_precision,
        **{f'{key}, ms': milliseconds(seconds[key]) for key in variants if key != 'kd'},
        'kd, ms': milliseconds(seconds['kd']) if kd else None, 'sfkd / floor': f'{over_floor:.3f} ± {spread / 2:.3f}',
        'mmrazor / sfkd': f'{over_ours:.2f} ± {razor_spread / 2:.2f}'}


def main() -> None:
    args = parse_args()
    start(args)
    measured = [measure(name, args) for name in args.pairs]
    show([seen for _, seen in measured])
    finish(args, [row for row, _ in measured])


if __name__ == '__main__':
    main()
