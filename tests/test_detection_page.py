"""Detection on the report page: which detections are right, AP of every class."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from distillery.report.figures.detections import matched
from distillery.tasks.detection import Detection


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


def test_ap_by_class_of_teacher_and_methods() -> None:
    facts = {
        "data": {"class_names": ["", "cat", "dog"]},
        "test_labels": np.array([2, 1, 1, 2, 1]),
        "test_crowd": np.array([0, 0, 1, 0, 1], dtype=np.uint8),
        "teachers": {"t": {"classes": {"cat": 50.0, "dog": 60.0}}},
    }
    runs = {0: {"classes": {"cat": 10.0, "dog": None}}, 1: {"classes": {"cat": 20.0, "dog": None}}}
    cells = [SimpleNamespace(pair=pair, method="m", label="M", runs=runs, facts=facts) for pair in ("p", "q")]
    first, second = Detection().sections(iter(cells))
    assert (first.title, second.title) == ("AP by class: p", "AP by class: q")
    assert first.header == ("class", "objects", "teacher t", "M")
    assert first.rows == (("dog", "2", "60.00", ""), ("cat", "1", "50.00", "15.00 ± 7.07"))
    assert [s.title for s in Detection().sections(cells[:1])] == ["AP by class"]
    assert Detection().sections([]) == []
