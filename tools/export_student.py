"""Take the student out of a distillation checkpoint, as a checkpoint that its stock config loads strictly."""
import argparse

from sfkd.engine.checkpoint import read_checkpoint, student_checkpoint, write_checkpoint
from sfkd.engine.running import errors_for_people, is_distillation, load_config, prepare_process
from sfkd.errors import ConfigError
from sfkd.models.distillers.building import build_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the distillation config')
    parser.add_argument('checkpoint', help='what it trained')
    parser.add_argument('out', help='.pth, or .safetensors for the weights alone')
    args = parser.parse_args()
    prepare_process()
    with errors_for_people():
        config = load_config(args.config)
        if not is_distillation(config):
            raise ConfigError(f"{args.config}: model.type is {config.model.get('type')!r}, not 'SFKD' or 'Distiller': there is no student "
                              'to take out')
        checkpoint = student_checkpoint(read_checkpoint(args.checkpoint, 'checkpoint'), args.checkpoint)
        student = build_model(config.model.student, 'model.student', config.get('data_preprocessor'), config.get('default_scope'))
        try:
            student.load_state_dict(checkpoint['state_dict'])
        except RuntimeError as error:
            raise ConfigError(f"checkpoint: '{args.checkpoint}' is not of this config's student: {error}") from error
        write_checkpoint(checkpoint, args.out)
        weights = checkpoint['state_dict']
        print(f'{args.out}: {len(weights)} tensors, {sum(w.numel() for w in weights.values()):,} values; loaded strictly into the student '
              f'of {args.config}')


if __name__ == '__main__':
    main()
