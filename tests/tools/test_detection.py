"""Detectors through the command line: train, in two processes too, export, score as mmdet's own tool does, draw."""
import json
import re
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config

mmdet = pytest.importorskip('mmdet')
from sfkd.datasets.digits_wild import generate_det  # noqa: E402
from sfkd.openmmlab.building import build_model  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAIR, ALONE = 'configs/mini/det_swin_to_resnet8.py', 'configs/mini/det_gfl_resnet8.py'


@pytest.fixture(scope='module')
def small(tmp_path_factory) -> list[str]:
    """Config options for a small data set. It is scored on the pictures that it is trained on, so that there is
    something to score.
    """
    folder = tmp_path_factory.mktemp('data') / 'digits_wild/det'
    generate_det(folder, counts=dict(train=24, val=2, test=2))
    options = ['train_cfg.max_epochs=4', 'train_dataloader.batch_size=2', 'param_scheduler.1.end=4',
               'param_scheduler.1.T_max=3']
    for split in ('train', 'val', 'test'):
        options += [f'{split}_dataloader.dataset.data_root={folder}', f'{split}_dataloader.num_workers=0']
    for split in ('val', 'test'):
        options += [f'{split}_dataloader.dataset.ann_file=annotations/train.json',
                    f'{split}_dataloader.dataset.data_prefix.img=train',
                    f'{split}_evaluator.ann_file={folder}/annotations/train.json']
    return options


@pytest.fixture(scope='module')
def trained(tool, small, tmp_path_factory) -> Path:
    """The work directory of four epochs with a random teacher."""
    folder = tmp_path_factory.mktemp('trained')
    tool('tools/train.py', PAIR, '--work-dir', folder, '--cfg-options', *small, 'model.teacher_ckpt=init',
         'train_cfg.val_interval=4')
    return folder


def test_an_exported_detector_scores_in_mmdets_own_tool_to_the_last_digit(tool, stock_tool, small, trained, tmp_path):
    out = tmp_path / 'student.pth'
    tool('tools/export_student.py', PAIR, trained / 'epoch_4.pth', out)
    config = Config.fromfile(ROOT / ALONE)
    stock = build_model(config.model, 'test', config.data_preprocessor, 'mmdet')
    stock.load_state_dict(torch.load(out, weights_only=True)['state_dict'], strict=True)

    def scored(name, *command):
        text = tool(*command, '--work-dir', tmp_path, '--cfg-options', *small,
                    f'test_evaluator.outfile_prefix={tmp_path}/{name}')
        found = json.loads((tmp_path / f'{name}.bbox.json').read_text())
        return re.findall(r'coco/(bbox_mAP\w*): ([\d.]+)', text), sorted(found, key=lambda box: json.dumps(box))
    ours, boxes = scored('ours', 'tools/test.py', PAIR, trained / 'epoch_4.pth', '--out', tmp_path / 'score.json')
    theirs, stock_boxes = scored('stock', *stock_tool('mmdet', 'test'), ALONE, out)
    assert ours == theirs and [key for key, _ in ours] == ['bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_75']
    assert boxes == stock_boxes and len(boxes) > 100
    assert float(dict(ours)['bbox_mAP']) == json.loads((tmp_path / 'score.json').read_text())['coco/bbox_mAP'] > 0


@pytest.mark.long
def test_two_processes_train(tool, small, tmp_path):
    text = tool('tools/dist_train.sh', PAIR, 2, '--work-dir', tmp_path, '--cfg-options', *small,
                'model.teacher_ckpt=init', 'train_cfg.max_epochs=1')
    assert re.search(r'Epoch\(val\) \[1\]\[2/2\] +coco/bbox_mAP', text), text[-2000:]  # 24 pictures in batches of 2 x 8
    assert Config.fromfile(tmp_path / 'det_swin_to_resnet8.py').launcher == 'pytorch'
    assert (tmp_path / 'student_latest.pth').exists()


def test_predictions_are_drawn_side_by_side(tool, small, trained, tmp_path):
    data = tmp_path / 'small.py'  # the tool takes configs without options
    data.write_text(f"_base_ = '{ROOT / ALONE}'\ntest_dataloader = "
                    f"dict(dataset=dict(data_root='{small[4].partition('=')[2]}'))\n")
    out = tmp_path / 'drawn.png'
    text = tool('tools/draw_predictions.py', out, 'alone', data, trained / 'student_latest.pth', 'SFKD', PAIR,
                trained / 'epoch_4.pth', '--number', 2, '--cell', 128)
    assert '2 pictures of the test split, truth, alone, SFKD' in text
    height, width = cv2.imread(str(out)).shape[:2]
    assert height >= 2 * 128 and width >= 3 * 128


def test_inspect_pair_steps_two_detectors_without_a_download(tool, tmp_path):
    """mmdet's own configs name weights to download for both backbones; neither is asked for (this machine could not
    reach it).
    """
    out, picture = tmp_path / 'pair.json', tmp_path / 'pair.png'
    tool('tools/inspect_pair.py', '--student', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '--teacher',
         'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', '--input-size', 128, 160, '--json', out, '--picture',
         picture)
    found = json.loads(out.read_text())
    assert found['works'] and found['input_size'] == [128, 160]
    assert [(pair['student'], pair['teacher'], pair['student_stride'], pair['student_shape'])
            for pair in found['pairs'][:3]] == [
        (f'neck[{i}]', f'neck[{i + 1}]', 8 * 2**i, [256, 16 >> i, 20 >> i]) for i in range(3)]
    assert {'loss_cls', 'loss_bbox', 'distill.neck_0.loss_spatial', 'gradient',
            'distillation_gradient'} < set(found['step'])
    assert cv2.imread(str(picture)).shape[1] >= 800
