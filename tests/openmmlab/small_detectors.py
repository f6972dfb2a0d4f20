"""Small detectors of mmdet, batches for them and their distillers, for several files of tests."""
import pytest
import torch

pytest.importorskip('mmdet')
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from sfkd import SFKD, Distiller  # noqa: E402
from sfkd.distillation.pair import common_grid  # noqa: E402
from sfkd.features.padding import TaughtCells  # noqa: E402
from sfkd.openmmlab.building import read_config  # noqa: E402

SHAPES = [(96, 128), (128, 90)]  # padded to 128x128
OTHER = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)  # as the 'caffe' weights want it
CWD, MSE = dict(type='ChannelWiseDivergence', name='cwd'), dict(type='FeatureMSE', name='mse')
CLASS_MAPS = [f'bbox_head.retina_cls[{i}]' for i in range(3)]


def detector(path, classes, preprocessor):
    """A stock config with a ResNet-18 of 8 base channels and necks and heads of 16."""
    model = read_config(f'mmdet::{path}', 'test').model
    model.type = f'mmdet.{model.type}'
    model.data_preprocessor.update(preprocessor)
    model.backbone.update(depth=18, stem_channels=8, base_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    head = model.get('bbox_head') or model.roi_head.bbox_head
    head.update(num_classes=classes, in_channels=16)
    model.test_cfg.get('rcnn', model.test_cfg).score_thr = 0.0  # boxes of an untrained network are boxes too
    return model


def retinanet(classes=3, **preprocessor):
    """Its pyramid has strides 8 to 128."""
    model = detector('retinanet/retinanet_r50_fpn_1x_coco.py', classes, preprocessor)
    model.bbox_head.update(feat_channels=16, stacked_convs=1)
    return model


def faster_rcnn(classes=3, **preprocessor):
    """Its pyramid has strides 4 to 64."""
    model = detector('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', classes, preprocessor)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.fc_out_channels = 16
    return model


def one_level(**kwargs):
    """A RetinaNet whose neck gives the deepest stage only, as YOLOF's does."""
    model = retinanet(**kwargs)
    model.backbone.out_indices = (3, )
    model.neck = dict(type='ChannelMapper', in_channels=[64], out_channels=16, num_outs=1)
    model.bbox_head.anchor_generator.strides = [32]
    return model


def batch(shapes=SHAPES, boxes=([[4, 5, 60, 70], [30, 10, 80, 90]], [[10, 20, 70, 80]]), seed=0):
    """What a data loader gives: raw pictures of different shapes, and their boxes."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for shape, found in zip(shapes, boxes):
        truth = InstanceData(bboxes=torch.tensor(found, dtype=torch.float32).view(-1, 4),
                             labels=torch.arange(len(found)) % 3)
        samples.append(DetDataSample(gt_instances=truth,
                                     metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))))
    pictures = [torch.randint(0, 256, (3, *shape), generator=generator, dtype=torch.uint8) for shape in shapes]
    return dict(inputs=pictures, data_samples=samples)


def cells(mask, maps):
    return TaughtCells(mask, [common_grid(*maps)])


def distil(student, teacher, teacher_ckpt='init', kind=SFKD, **kwargs):
    """A distiller in train mode whose networks and connectors have generic weights, biases and batch statistics."""
    torch.manual_seed(0)
    distiller = kind(student, teacher, teacher_ckpt, **dict(dict(input_size=128, teacher_precision='fp32'), **kwargs))
    with torch.no_grad():
        for tensor in (*distiller.distillation.teacher.network.state_dict().values(), *distiller.parameters()):
            if tensor.is_floating_point():
                tensor += 0.02 * torch.randn_like(tensor)
    return distiller.train()


def class_maps(losses, levels=CLASS_MAPS[:2]):
    return dict(kind=Distiller,
                pairs=[dict(student=level, teacher=level, connector=None, losses=losses) for level in levels])


def distilled(losses):
    return {key: value for key, value in losses.items() if key.startswith('distill.')}
