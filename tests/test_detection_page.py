"""Detection on the report page: which detections are right."""

from __future__ import annotations

import numpy as np

from distillery.report.figures.detections import matched


def test_each_object_is_found_once_and_by_its_class() -> None:
    truth = np.array([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 80, 40]])
    labels, crowd = np.array([1, 1, 2]), np.array([False, False, True])
    found = np.array(
        [
            [0, 0, 10, 8, 0.9, 1],  # IoU 0.8
            [0, 0, 10, 10, 0.8, 1],  # the same object again
            [20, 0, 30, 10, 0.7, 2],  # another class
            [20, 0, 24, 10, 0.6, 1],  # IoU 0.4
            [40, 0, 80, 38, 0.5, 2],
            [40, 0, 80, 39, 0.4, 2],  # a crowd takes as many as there are
        ]
    )
    assert matched(found, truth, labels, crowd) == [True, False, False, False, True, True]
    assert matched(found[:1], truth[:0], labels[:0], crowd[:0]) == [False]
