"""Take the student out of a distillation checkpoint, as a checkpoint that its stock config loads strictly, or as an
ONNX file (docs/export.md).

Of a plain config's checkpoint the model itself is taken (to publish a teacher, say).
"""
import argparse

from sfkd.checkpoint import in_half_precision, read_checkpoint, stock_checkpoint, write_checkpoint
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.configs import is_distillation, load_config, student_config
from sfkd.openmmlab.exporting import export_model
from sfkd.openmmlab.process import errors_for_people, prepare_process


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the config that was trained')
    parser.add_argument('checkpoint', help='what it trained')
    parser.add_argument('out', help='.pth, .safetensors for the weights alone, or .onnx')
    parser.add_argument('--half', action='store_true', help='float16 weights, but for those with values beyond its '
                        'range: half the file; not for .onnx')
    onnx = parser.add_argument_group('of .onnx files')
    onnx.add_argument('--input-size', type=int, nargs='+', metavar='PIXELS',
                      help='height and width, or one number; default: what the config says, or 224')
    onnx.add_argument('--dynamic-size', action='store_true', help='height and width are free, in steps of 32')
    onnx.add_argument('--backbone', action='store_true', help='the backbone alone, all of its stages; of a detector '
                      'its backbone and neck')
    args = parser.parse_args()
    if len(args.input_size or ()) > 2:
        parser.error('--input-size: give height and width')
    if args.out.endswith('.onnx') and args.half:
        parser.error('--half: an ONNX file is in float32')
    if not args.out.endswith('.onnx') and (args.input_size or args.dynamic_size or args.backbone):
        parser.error(f"--input-size, --dynamic-size and --backbone are of .onnx files; '{args.out}' is none")
    return args


def main() -> None:
    args = parse_args()
    prepare_process()
    with errors_for_people():
        config = load_config(args.config)
        stock = student_config(config) if is_distillation(config) else config
        checkpoint = stock_checkpoint(read_checkpoint(args.checkpoint, 'checkpoint'))
        student = build_model(stock.model, 'model', stock.get('data_preprocessor'), stock.get('default_scope'))
        try:
            student.load_state_dict(checkpoint['state_dict'])
        except RuntimeError as error:
            raise ConfigError(f"checkpoint: '{args.checkpoint}' is not of this config's student: {error}") from error
        if args.out.endswith('.onnx'):
            size = args.input_size and (args.input_size * 2)[:2]
            print(export_model(student, args.out, size or config.model.get('input_size'), backbone=args.backbone,
                               dynamic_size=args.dynamic_size,
                               classes=checkpoint['meta'].get('dataset_meta', {}).get('classes', ())))
            return
        if args.half:
            checkpoint['state_dict'] = in_half_precision(checkpoint['state_dict'])
        write_checkpoint(checkpoint, args.out)
        weights = checkpoint['state_dict']
        print(f'{args.out}: {len(weights)} tensors, {sum(w.numel() for w in weights.values()):,} values; loaded '
              f'strictly into the student of {args.config}')


if __name__ == '__main__':
    main()
