"""The grid of what generators make."""

from __future__ import annotations

import numpy as np

from distillery.evaluation.samples import shown_classes
from distillery.report.figures.samples import tiled


def test_classes_are_spread_evenly_from_the_first_to_the_last() -> None:
    assert shown_classes(4) == [0, 1, 2, 3] and shown_classes(1) == [0]
    assert shown_classes(100) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]


def test_a_class_is_a_row_and_white_lines_part_the_images() -> None:
    samples = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    grid = tiled(samples, rows=2)
    assert grid.shape == (8 + 1 + 8, 3 * 8 + 2, 3)
    assert [grid[4, x, 0] for x in (0, 8, 9, 17, 18)] == [0, 255, 1, 255, 2]
    assert [grid[y, 0, 2] for y in (7, 8, 9)] == [0, 255, 3]
