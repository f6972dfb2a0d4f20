"""What the image processors of transformers make of pictures before a network gets them."""
from __future__ import annotations

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std that a network without a word on it expects


def processing_of(name: str) -> tuple[tuple[float, ...], tuple[float, ...], bool] | None:
    """What the image processor beside a network of transformers makes of pictures.

    Args:
        name: the network's name or folder.

    Returns:
        tuple: mean and std, of values 0 to 1, in the order of RGB, and whether the network takes BGR; None where there
            is no processor.
    """
    import transformers
    try:
        expects, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return None
    given = (expects.get('image_mean'), expects.get('image_std')) if expects.get('do_normalize', True) else (0.0, 1.0)
    mean, std = ((value, ) * 3 if isinstance(value, (int, float)) else tuple(value or usual)
                 for value, usual in zip(given, IMAGENET))
    scale = 1.0 if expects.get('do_rescale', True) else 255.0
    return tuple(x / scale for x in mean), tuple(x / scale for x in std), bool(expects.get('do_flip_channel_order'))
