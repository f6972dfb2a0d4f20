"""Distil one network into another by a folder of pictures, without labels: docs/without_labels.md.

A network is timm:NAME, torchvision:NAME, transformers:FOLDER_OR_NAME, or file.py:function, which returns a torch
module.
"""
import argparse

from sfkd.labelfree import distil
from sfkd.openmmlab.process import errors_for_people, prepare_process


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--student', required=True, metavar='NETWORK')
    parser.add_argument('--teacher', required=True, metavar='NETWORK')
    parser.add_argument('--pictures', required=True, metavar='FOLDER', help='of any depth')
    parser.add_argument('--out', required=True, metavar='FILE', help="the student's weights, .safetensors or .pth; a "
                        'picture of what both networks see lies beside it, FILE.png')
    parser.add_argument('--teacher-weights', metavar='FILE')
    parser.add_argument('--student-weights', metavar='FILE', help='to begin with; without them it begins at random')
    parser.add_argument('--pretrained', action='store_true', help="the teacher's weights of its library, downloaded")
    parser.add_argument('--input-size', type=int, default=224, metavar='PIXELS')
    length = parser.add_mutually_exclusive_group()
    length.add_argument('--epochs', type=int, help='default: 10')
    length.add_argument('--steps', type=int)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--lr', type=float, default=1e-3, help='of AdamW, at its highest')
    parser.add_argument('--workers', type=int, default=2, help='processes that load pictures')
    parser.add_argument('--amp', action='store_true', help='mixed precision, in bfloat16')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='auto')
    parser.add_argument('--resume', action='store_true', help='go on with an interrupted run')
    parser.add_argument('--overwrite', action='store_true', help='files of before may go')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare_process()
    with errors_for_people():
        distil(**vars(args))


if __name__ == '__main__':
    main()
