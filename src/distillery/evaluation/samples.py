"""Of which classes a generator's images are shown, where there are many."""

from __future__ import annotations

import numpy as np


def shown_classes(count: int, most: int = 10) -> list[int]:
    """At most `most` of `count` classes, evenly spread, the first and the last among them."""
    return [int(c) for c in np.linspace(0, count - 1, min(most, count)).round()]
