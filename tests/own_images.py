"""Small image files of every kind, drawn for a test; two classes that a network can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def drawn(seed: int, height: int = 40, width: int = 48, warm: bool = True) -> Image.Image:
    """A smooth picture with some noise: reddish and bright at the top, or bluish and bright at the bottom."""
    rng = np.random.default_rng(seed)
    fall = np.linspace(1, 0, height)[:, None] if warm else np.linspace(0, 1, height)[:, None]
    light = 60 + 130 * fall + 20 * np.sin(np.linspace(0, 6 + rng.random(), width))[None]
    tint = np.array([1.0, 0.7, 0.5] if warm else [0.5, 0.7, 1.0])
    pixels = light[..., None] * tint + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def photos(root: Path, each: int = 5, splits: tuple[str, ...] = ("",), start: int = 0) -> Path:
    """A folder of JPEG files of several sizes: classes `cool` and `warm`, in every split."""
    for s, split in enumerate(splits):
        for name in ("cool", "warm"):
            for i in range(each):
                seed = start + 10_000 * s + 1000 * (name == "warm") + i
                image = drawn(seed, 40 + 3 * (i % 3), 48 - 4 * (i % 2), name == "warm")
                save(image, root / split / name / f"{i:03d}.jpg", quality=92)
    return root
