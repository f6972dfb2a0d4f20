"""What of a batch teaches: in classification all of it, whatever the loaded picture's size was."""
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.dataset import default_collate
from mmengine.registry import DefaultScope
from mmpretrain.datasets.transforms import PackInputs  # noqa: F401  (registers the pipeline's parts)

from sfkd.openmmlab.masks import picture_mask, taught_mask

CROP = 64


@pytest.mark.parametrize('loaded', [(40, 50), (30, 90), (100, 150)])
@pytest.mark.parametrize('kind', ['torchvision', 'mmpretrain'])
def test_classification_is_never_masked(zoo, kind, loaded):
    """torchvision's transforms leave the loaded picture's shape in img_shape."""
    steps = dict(mmpretrain=[dict(type='Resize', scale=(CROP, CROP))],
                 torchvision=[dict(type='NumpyToPIL', to_rgb=True),
                              dict(type='torchvision/Resize', size=(CROP, CROP)),
                              dict(type='PILToNumpy', to_bgr=True)])[kind]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([*steps, dict(type='PackInputs')])
        picture = np.zeros((*loaded, 3), np.uint8)
        items = [pipeline(dict(img=picture.copy(), img_shape=loaded, gt_label=i)) for i in range(2)]
    if kind == 'torchvision':
        assert items[0]['data_samples'].img_shape == loaded
    data = zoo.build(zoo.resnet()).data_preprocessor(default_collate(items), True)
    assert data['inputs'].shape == (2, 3, CROP, CROP)
    assert picture_mask(**data) is None and taught_mask(None, data['data_samples']) is None


def test_a_taught_picture_smaller_than_the_crop_counts_whole(zoo):
    """A stale img_shape changes no distillation loss."""
    distiller = zoo.distil(zoo.mixer(), zoo.resnet()).train()
    data = distiller.data_preprocessor(zoo.batch(), True)
    expected = distiller(**data, mode='loss')
    for sample in data['data_samples']:
        sample.set_metainfo(dict(img_shape=(20, 30)))
    found = distiller(**data, mode='loss')
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
