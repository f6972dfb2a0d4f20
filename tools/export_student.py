"""Take the student out of a distillation checkpoint, as a checkpoint that its stock config loads strictly.

Of a plain config's checkpoint the model itself is taken (to publish a teacher, say).
"""
import argparse

from sfkd.checkpoint import read_checkpoint, stock_checkpoint, write_checkpoint
from sfkd.errors import ConfigError
from sfkd.openmmlab.building import build_model
from sfkd.openmmlab.running import errors_for_people, is_distillation, load_config, prepare_process, student_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the config that was trained')
    parser.add_argument('checkpoint', help='what it trained')
    parser.add_argument('out', help='.pth, or .safetensors for the weights alone')
    parser.add_argument('--half', action='store_true', help='float16 weights: half the file')
    args = parser.parse_args()
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
        if args.half:
            checkpoint['state_dict'] = {key: w.half() if w.is_floating_point() else w
                                        for key, w in checkpoint['state_dict'].items()}
        write_checkpoint(checkpoint, args.out)
        weights = checkpoint['state_dict']
        print(f'{args.out}: {len(weights)} tensors, {sum(w.numel() for w in weights.values()):,} values; loaded '
              f'strictly into the student of {args.config}')


if __name__ == '__main__':
    main()
