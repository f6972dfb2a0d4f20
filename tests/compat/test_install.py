"""How mmcv comes to the operators that it lacks, and that stock detectors train and predict with them."""
import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import sfkd  # noqa: F401  (it gives mmcv its operators)
from sfkd.compat import StandInFinder, install
from sfkd.compat.mmcv_ops import OPERATORS

mmcv_ops = pytest.importorskip('mmcv.ops')
pytestmark = pytest.mark.skipif(not isinstance(sys.modules['mmcv._ext'].__spec__.loader, StandInFinder),
                                reason='mmcv is compiled here')


def test_operators_have_the_names_that_mmcv_asks_for():
    """A name that mmcv does not use would be a stand-in that never runs."""
    calls = ''.join(file.read_text() for file in Path(mmcv_ops.__file__).parent.glob('*.py'))
    assert all(f'ext_module.{function.__name__}(' in calls for function in OPERATORS)


def test_missing_operator_names_itself_and_the_way_out():
    with pytest.raises(RuntimeError, match=r"'box_iou_rotated' is missing.*\n.*--no-build-isolation .*onedl-mmcv==\d"):
        mmcv_ops.box_iou_rotated(torch.rand(2, 5), torch.rand(2, 5))
    assert not hasattr(sys.modules['mmcv._ext'], '__file__')
    assert mmcv_ops.get_compiler_version().startswith('n/a')


def test_install_is_once_and_last():
    finders = list(sys.meta_path)
    install()
    assert sys.meta_path == finders and importlib.util.find_spec('mmcv._ext') is sys.modules['mmcv._ext'].__spec__


def test_compiled_operators_are_left_untouched(tmp_path, monkeypatch):
    """A package ``mmcv`` with an ``_ext`` of its own: Python finds that one; if it is broken, its error is what a user
    sees.
    """
    for name in [name for name in sys.modules if name.partition('.')[0] == 'mmcv']:
        monkeypatch.delitem(sys.modules, name)  # and back after the test
    (tmp_path / 'mmcv').mkdir()
    (tmp_path / 'mmcv' / '__init__.py').touch()
    (tmp_path / 'mmcv' / '_ext.py').write_text('compiled = True')
    monkeypatch.syspath_prepend(tmp_path)
    compiled = importlib.import_module('mmcv._ext')
    assert compiled.compiled and compiled.__file__ and not hasattr(compiled, 'nms')
    assert importlib.util.find_spec('mmcv._none') is None
    (tmp_path / 'mmcv' / '_ext.py').write_text('raise ImportError("undefined symbol: of another torch")')
    del sys.modules['mmcv._ext']
    with pytest.raises(ImportError, match='undefined symbol'):
        importlib.import_module('mmcv._ext')


def test_order_of_imports_and_what_is_said():
    done = subprocess.run([sys.executable, '-W', 'always::UserWarning', '-c', '''
import mmdet.utils, mmdet.structures.mask  # the first does without operators, the second does not
try:
    import mmcv.ops
except ModuleNotFoundError:
    import sfkd
    sfkd.compat.install()
    import mmdet.models, mmseg.models, mmpretrain.models
'''], capture_output=True, text=True)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert text.count('mmcv has no compiled operators') == 1 and 'cannot work without CUDA' not in text
    assert text.count('import sfkd before mmdet.structures.mask.structures: ') == 1


@pytest.mark.parametrize('version, first', [('5.24.0', 'sfkd'), ('5.24.0', 'mmpretrain.structures'),
                                             ('4.57.6', 'sfkd')])
def test_mmpretrain_beside_a_transformers_that_it_does_not_know(version, first, tmp_path):
    """Version 5 lacks what mmpretrain's vision-language models ask of it, and these are left out; version 4 has it."""
    info = tmp_path / f'transformers-{version}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: transformers\nVersion: {version}\n')
    code = f'''
import sys
sys.path.insert(0, {str(tmp_path)!r})
import {first}
import sfkd
from mmpretrain.utils import dependency
print('with' if dependency.WITH_MULTIMODAL else 'without', dependency.__file__)
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    kind, file = done.stdout.split()
    assert kind == ('without' if version[0] == '5' else 'with') and file.endswith('dependency.py'), done.stderr


# Stock models of mmdet, in a small size.
STOCK = ['retinanet/retinanet_r50_fpn_1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco.py',
         'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 'gfl/gfl_r101-dconv-c3-c5_fpn_ms-2x_coco.py',
         'fcos/fcos_r50-dcn-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
         'dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py', 'carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py',
         'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py']


@pytest.mark.parametrize('name', STOCK)
def test_stock_detectors_train_and_predict(name):
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules
    from mmengine.hub import get_config
    from mmengine.registry import DefaultScope
    from mmengine.structures import InstanceData
    register_all_modules(init_default_scope=False)
    config = get_config(f'mmdet::{name}').model
    config.backbone.update(depth=50, init_cfg=None)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config)
        model.init_weights()
        inputs = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
        samples = []
        for boxes in ([[4., 5., 40., 50.], [30., 10., 90., 60.]], []):  # the second picture has nothing on it
            truth = InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.arange(len(boxes)),
                                 masks=BitmapMasks(np.ones((len(boxes), 64, 96), np.uint8), 64, 96))
            samples.append(DetDataSample(gt_instances=truth, metainfo=dict(
                img_shape=(64, 96), ori_shape=(64, 96), batch_input_shape=(64, 96), pad_shape=(64, 96),
                scale_factor=(1., 1.))))
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=samples), True)
        losses = model.parse_losses(model.train()(**data, mode='loss'))[0]
        losses.backward()
        assert losses.isfinite()
        moved = [p.grad for n, p in model.named_parameters() if 'conv_offset' in n or 'rpn_cls' in n or 'upsample' in n]
        assert all(g is not None and g.isfinite().all() for g in moved)
        with torch.no_grad():
            found = model.eval()(**data, mode='predict')
        assert len(found) == 2 and all(f.pred_instances.bboxes.shape[1] == 4 for f in found)
