"""Segmentation through the command line: trained with SFKD, exported, and scored as mmseg itself scores it."""
import json
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

mmseg = pytest.importorskip('mmseg')
from sfkd.datasets.digits_wild import generate_seg  # noqa: E402
from sfkd.registry import MODELS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAIR, ALONE = 'configs/mini/seg_swin_to_resnet8.py', 'configs/mini/seg_fcn_resnet8.py'


@pytest.fixture(scope='module')
def few(tmp_path_factory) -> list[str]:
    """Config options that make the pair a matter of seconds: few pictures, and a teacher without its checkpoint."""
    folder = tmp_path_factory.mktemp('data') / 'digits_wild/seg'
    generate_seg(folder, counts=dict(train=24, val=2, test=12))
    return [f'{split}_dataloader.dataset.data_root={folder}' for split in ('train', 'val', 'test')]


@pytest.fixture(scope='module')
def distilled(tool, few, tmp_path_factory) -> Path:
    """The checkpoint of one epoch, with a classifier drawn anew: after so short a training all would be background."""
    folder = tmp_path_factory.mktemp('distilled')
    text = tool('tools/train.py', PAIR, '--work-dir', folder, '--cfg-options', *few, 'train_cfg.max_epochs=1',
                'model.teacher_ckpt=init', 'default_hooks.logger.interval=1')
    assert 'Epoch(train) [1][3/3]' in ' '.join(text.split()) and 'distill.layer3.loss_spatial' in text
    assert 'aux.loss_ce' in text
    checkpoint = torch.load(folder / 'epoch_1.pth', weights_only=False)
    classifier = checkpoint['state_dict']['decode_head.conv_seg.weight']
    classifier.copy_(torch.randn(classifier.shape, generator=torch.Generator().manual_seed(0)))
    torch.save(checkpoint, folder / 'drawn.pth')
    return folder / 'drawn.pth'


@pytest.fixture(scope='module')
def exported(tool, distilled) -> Path:
    out = distilled.with_name('student.pth')
    tool('tools/export_student.py', PAIR, distilled, out)
    return out


def test_an_exported_student_is_the_stock_segmentor(exported):
    config = Config.fromfile(ROOT / ALONE)
    with DefaultScope.overwrite_default_scope('mmseg'):
        stock = MODELS.get('mmseg.EncoderDecoder')(**{key: value
                                                      for key, value in config.model.items() if key != 'type'},
                                                   data_preprocessor=config.data_preprocessor)
    stock.load_state_dict(torch.load(exported, weights_only=False)['state_dict'], strict=True)


def test_the_score_is_that_of_mmsegs_own_tool(tool, stock_tool, few, distilled, exported, tmp_path):
    tool(*stock_tool('mmseg', 'test'), ALONE, exported, '--work-dir', tmp_path / 'own', '--cfg-options', *few)
    theirs = json.loads(next((tmp_path / 'own').glob('*/*.json')).read_text())
    assert theirs['mIoU'] > 1 and abs(theirs['mAcc'] - 100 / 11) > 0.1  # not one class everywhere
    tool('tools/test.py', PAIR, distilled, '--out', tmp_path / 'score.json', '--work-dir', tmp_path, '--cfg-options',
         *few)
    ours = json.loads((tmp_path / 'score.json').read_text())
    assert set(ours) >= {'mIoU', 'aAcc', 'mAcc'} and all(ours[key] == theirs[key] for key in ours)


def test_label_maps_are_drawn_side_by_side(tool, tmp_path, exported):
    config = tmp_path / 'few.py'
    generate_seg(tmp_path / 'data', counts=dict(train=1, val=1, test=3))
    config.write_text(f"_base_ = '{ROOT / ALONE}'\ntest_dataloader = "
                      f"dict(dataset=dict(data_root='{tmp_path / 'data'}'))\n")
    text = tool('tools/draw_predictions.py', tmp_path / 'sheet.png', 'one', config, exported, 'other', PAIR, exported,
                '--number', 3)
    assert '3 pictures of the test split, truth, one, other' in text
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet.shape[1] >= 3 * 224
    truth, one, other = (sheet[:, i * (sheet.shape[1] // 3):][:, 20:200] for i in range(3))
    assert (one == other).mean() > 0.95 > (truth == one).mean()  # captions apart, the two are one network


@pytest.mark.long
def test_two_processes_train_and_test(tool, few, tmp_path):
    text = tool('tools/dist_train.sh', PAIR, 2, '--work-dir', tmp_path, '--cfg-options', *few, 'train_cfg.max_epochs=1',
                'model.teacher_ckpt=init', 'train_dataloader.batch_size=4')
    assert 'Epoch(val) [1]' in text and 'mIoU' in text
    text = tool('tools/dist_test.sh', PAIR, tmp_path / 'student_latest.pth', 2, '--work-dir', tmp_path, '--cfg-options',
                *few)
    assert 'mIoU' in text
