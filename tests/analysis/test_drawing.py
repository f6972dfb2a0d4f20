"""Boxes with what is written on them, and label maps."""
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData

from sfkd.analysis.drawing import annotate, as_truth, draw_boxes
from sfkd.analysis.report.outcomes import _drawn
from sfkd.datasets.digits_wild import label_colours

RED = (220, 20, 20)


def detection(scores=None):
    from mmdet.structures import DetDataSample
    found = InstanceData(bboxes=torch.tensor([[10., 20., 40., 60.], [50., 5., 70., 25.]]), labels=torch.tensor([1, 0]))
    if scores:
        found.scores = torch.tensor(scores)
    return DetDataSample(gt_instances=found, metainfo=dict(img_shape=(80, 80), ori_shape=(80, 80)))


def red(image):
    return int((image == RED).all(-1).sum())


def test_boxes_of_a_prediction_carry_class_and_score(monkeypatch):
    texts = []
    monkeypatch.setattr('sfkd.analysis.drawing.cv2.putText', lambda image, text, *args: texts.append(text))
    plain, names = annotate(np.zeros((80, 80, 3), np.uint8), detection(), ['zero', 'one'])
    assert names == 'one zero' and texts == []
    assert red(plain) == 2 * (30 + 40 - 2) + 2 * (20 + 20 - 2)  # the outlines alone
    image, _ = annotate(np.zeros((80, 80, 3), np.uint8), detection([0.9, 0.456]), ['zero', 'one'])
    assert texts == ['one 0.90', 'zero 0.46'] and red(image) > red(plain) + 200
    image, _ = annotate(np.zeros((80, 80, 3), np.uint8), detection(), ['zero', 'one'], side=160)
    assert texts[2:] == ['one', 'zero'] and image.shape == (160, 160, 3)
    assert (image[40, 25:79] == RED).all()  # twice as large: its upper edge, from x = 20 to 79, but for what is written


def test_texts_do_not_lie_over_each_other_nor_outside():
    """The same box twice, at the upper border: the texts go to different places, and both are whole."""
    once, twice = (np.zeros((60, 90, 3), np.uint8) for _ in range(2))
    draw_boxes(once, [[2, 0, 60, 40]], ['7 0.91'])
    draw_boxes(twice, [[2, 0, 60, 40]] * 2, ['7 0.91', '1 0.35'])
    outline = 2 * (58 + 40 - 2)
    one, both = ((image.any(-1)).sum() - outline for image in (once, twice))
    assert one > 300 and both > 1.7 * one


def test_a_low_score_is_left_out_and_boxes_are_those_of_the_shown_picture():
    sample = detection()
    sample.pred_instances = InstanceData(bboxes=torch.tensor([[10., 20., 40., 60.]] * 2), labels=torch.tensor([1, 0]),
                                         scores=torch.tensor([0.2, 0.8]))
    sample.set_metainfo(dict(ori_shape=(160, 160)))
    found = as_truth(sample, 0.3).gt_instances
    assert found.labels.tolist() == [0] and found.bboxes.tolist() == [[5, 10, 20, 30]]


@pytest.mark.parametrize('side', [None, 8])
def test_a_label_map_is_in_the_colours_of_its_legend(side):
    from mmseg.structures import SegDataSample
    labels = torch.tensor([[[0, 0, 2, 2], [0, 0, 2, 255]] * 2])
    image, names = annotate(np.full((4, 4, 3), 100, np.uint8), SegDataSample(gt_sem_seg=PixelData(data=labels)),
                            ['background', 'a', 'b'], side)
    assert names == 'b' and image.shape[0] == (side or 4)
    colour = label_colours(np.array([[2]]))[0, 0] // 2 + 50
    assert (image[0, -1] == colour).all() and (image[0, 0] == 100).all()


def test_the_legend_has_every_class_that_is_seen():
    from mmseg.structures import SegDataSample

    def label_map(left, right):
        return PixelData(data=torch.tensor([[[left, right]]]).repeat_interleave(16, 2).repeat(1, 32, 1))
    names = ['background', 'road', 'traffic light', 'light', 'out of sight']
    truth = SegDataSample(gt_sem_seg=label_map(1, 255))
    predicted = SegDataSample(pred_sem_seg=label_map(2, 0))
    pictures = SimpleNamespace(dataset=SimpleNamespace(metainfo={}), items=[dict(inputs=torch.zeros(3, 32, 32))],
                               item=lambda i: dict(data_samples=truth))
    page = _drawn(pictures, [0], dict(student=[predicted]), names)
    assert re.findall('class="swatch".*?</span>([^<]*)<', page) == ['road', 'traffic light']
    colour = label_colours(np.array([[2]]))[0, 0].tolist()
    assert f'rgb{tuple(colour)}"></span>traffic light' in page
