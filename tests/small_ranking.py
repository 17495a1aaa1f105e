"""A small recommendation data set with structure: users and items of three tastes, items of falling popularity."""

from __future__ import annotations

from pathlib import Path

import numpy as np

USERS, ITEMS = 90, 150


def write_users(path: Path) -> Path:
    """In the format "users": each user mostly chooses items of one taste, popular ones more often."""
    random = np.random.Generator(np.random.PCG64(11))
    taste = np.arange(ITEMS) % 3
    popular = (1 + np.arange(ITEMS) // 3) ** -0.7
    lines = []
    for user in range(USERS):
        weight = popular * np.where(taste == user % 3, 1.0, 0.06)
        keys = random.exponential(size=ITEMS) / weight  # the smallest keys: drawn without replacement by weight
        chosen = np.argsort(keys, kind="stable")[: 12 + user % 9]
        lines.append(" ".join(map(str, [len(chosen), *chosen.tolist()])))
    path.write_text("\n".join(lines) + "\n")
    return path
