from .digits_wild import (CLASSES, DEFAULT_COUNTS, MAKE_COMMAND, SPLITS, PlacedDigit, Scene,
                          SceneGenerator, contact_sheet, generate_cls, split_digits)

__all__ = [
    'CLASSES', 'DEFAULT_COUNTS', 'MAKE_COMMAND', 'SPLITS', 'PlacedDigit', 'Scene',
    'SceneGenerator', 'contact_sheet', 'generate_cls', 'split_digits'
]
