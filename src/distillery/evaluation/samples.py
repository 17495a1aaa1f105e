"""Which samples are meant: the classes that a generator is shown with, and the rows that a run draws for itself."""

from __future__ import annotations

from typing import Any

import numpy as np


def shown_classes(count: int, most: int = 10) -> list[int]:
    """At most `most` of `count` classes, evenly spread, the first and the last among them."""
    return [int(c) for c in np.linspace(0, count - 1, min(most, count)).round()]


def sample_size(facts: dict[str, Any]) -> int:
    """Rows that a run of task `known` trained on: `recipe.batch_size`, or all that there are."""
    return int(min(facts["recipe"]["batch_size"], facts["data"]["counts"]["train"]))
