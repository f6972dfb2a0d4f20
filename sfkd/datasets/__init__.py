from .digits_wild import (
                          DEFAULT_COUNTS,
                          MAKE_COMMAND,
                          SEG_CLASSES,
                          contact_sheet,
                          generate_cls,
                          generate_det,
                          generate_seg,
                          overlay,
)
from .pictures import PictureFolder
from .replay import ReplayedDataset
from .scenes import CLASSES, SPLITS, PlacedDigit, Scene, SceneGenerator, split_digits

__all__ = [
    'CLASSES', 'DEFAULT_COUNTS', 'MAKE_COMMAND', 'SEG_CLASSES', 'SPLITS', 'PictureFolder', 'PlacedDigit',
    'ReplayedDataset', 'Scene', 'SceneGenerator', 'contact_sheet', 'generate_cls', 'generate_det', 'generate_seg',
    'overlay', 'split_digits'
]
