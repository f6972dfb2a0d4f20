"""A frozen network's forward pass by precision, layout of its convolutions, and compiled, over that in float32.

The models are mmpretrain's, with random weights, which cost the same.
"""
import copy

import torch
from common import finish, interleaved, milliseconds, parser, ratio, show, start
from mmpretrain import get_model

from sfkd.distillation import Teacher
from sfkd.distillation.precision import resolved
from sfkd.features.taps import Taps

MODELS = ['resnet50_8xb32_in1k', 'convnext-tiny_32xb128_in1k', 'regnetx-800mf_8xb128_in1k',
          'swin-tiny_16xb64_in1k', 'deit-small_4xb256_in1k']


def main() -> None:
    found = parser(__doc__, repeats=5)
    found.add_argument('--models', nargs='+', default=MODELS)
    found.add_argument('--image', type=int, default=224)
    found.add_argument('--batch', type=int, default=8)
    found.add_argument('--compile', action='store_true', help='also compiled (minutes each on a CPU)')
    args = found.parse_args()
    start(args)
    half = resolved('auto', torch.device(args.device))
    kinds = {'float32': dict(precision='fp32'), half: dict(precision=half), f'{half}, channels last': dict(
        precision=half)} | ({f'{half}, compiled': dict(precision=half, compiled=True)} if args.compile else {})
    rows = []
    for name in args.models:
        network, variants = get_model(name, pretrained=False), {}
        inputs = torch.randn(args.batch, 3, args.image, args.image, device=args.device)
        for kind, options in kinds.items():
            teacher = Teacher(copy.deepcopy(network).to(args.device), **options)
            teacher.tap(Taps(teacher.network, ['backbone'], raw=['backbone'], stop=True), (args.image, args.image))
            if kind == half:
                teacher.network.to(memory_format=torch.contiguous_format)
            variants[kind] = lambda teacher=teacher, inputs=inputs: teacher(inputs)
        seconds = interleaved(variants, args.repeats, args.device)
        row = {'model': name, 'float32, ms': milliseconds(seconds['float32'])}
        rows.append(row | {f'{kind}, share of it': ratio(seconds[kind], seconds['float32'])[0]
                           for kind in list(kinds)[1:]})
    show(rows)
    finish(args, rows)


if __name__ == '__main__':
    main()
