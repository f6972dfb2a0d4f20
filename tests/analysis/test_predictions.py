"""Scores by class, by hand."""
import math

import numpy as np
import pytest

from sfkd.analysis.report.predictions import box_precisions, confusion_of, ious

BOX, OTHER = (10., 10., 30., 40.), (50., 50., 90., 80.)


def test_box_precisions_by_hand():
    """Class 0: found exactly. Class 1: a wrong box is surer than the right one, so precision is 1/2 at every recall.
    Class 2: of two boxes one is found, so precision is 1 up to recall 0.5: 51 of pycocotools' 101 points. Class 3:
    missed. Class 4: nowhere. Class 5: to be ignored.
    """
    truth = [[(BOX, 0, 0), (BOX, 1, 0), (BOX, 2, 0), (BOX, 3, 0)], [(BOX, 2, 0), (BOX, 5, 1)]]
    found = [[(BOX, 0, 0.5), (OTHER, 1, 0.9), (BOX, 1, 0.8), (BOX, 2, 0.7)], [(BOX, 5, 0.9)]]
    each, mean, count = box_precisions(truth, found, 6)
    assert each[:4] == pytest.approx([100, 50, 100 * 51 / 101, 0], rel=1e-6)
    assert np.isnan(each[4:]).all() and mean == pytest.approx(np.mean(each[:4]))
    assert count.tolist() == [1, 1, 2, 1, 0, 0]


def test_a_box_that_overlaps_by_two_thirds_counts_at_four_of_ten_thresholds():
    """IoU 2/3: 0.50, 0.55, 0.60, 0.65."""
    each, _, _ = box_precisions([[((0, 0, 30, 10), 0, 0)]], [[((0, 0, 20, 10), 0, 0.9)]], 1)
    assert each[0] == pytest.approx(40, rel=1e-6)


def test_nothing_found_is_zero_and_nothing_to_find_is_no_number():
    assert box_precisions([[(BOX, 0, 0)]], [[]], 2)[0][0] == 0
    each, mean, count = box_precisions([[]], [[(BOX, 0, 0.9)]], 2)
    assert np.isnan(each).all() and math.isnan(mean) and count.tolist() == [0, 0]


@pytest.mark.parametrize('unlabelled', [255, 200])
def test_ious_by_hand(unlabelled):
    truth, found = np.array([[0, 0, 1], [1, unlabelled, 1]]), np.array([[0, 1, 1], [1, 1, 0]])
    each, mean, count = ious(confusion_of(truth, found, 3))
    assert each[:2] == pytest.approx([100 / 3, 50]) and np.isnan(each[2])  # 1 of 3, 2 of 4; without a label nowhere
    assert mean == pytest.approx(np.mean([100 / 3, 50])) and count.tolist() == [2, 3, 0]
