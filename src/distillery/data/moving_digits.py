"""Moving digits: the scans of scikit-learn set in motion, by rule and seed; the class is the direction of the motion.

A declared design. It stands in for the "simulated data sets" of staged distillation for video (arXiv:2307.05201), which
are not public; Moving MNIST (Srivastava et al., ICML 2015) has other digits and another task. A glyph of 8 x 8 moves
one pixel a frame over a field of 16 x 16 that is closed to a ring in both directions, from a place drawn at random:
so no single frame tells where it goes. The test shows other glyphs than training.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distillery.config import Count, Fraction
from distillery.data.arrays import Arrays, Bytes, Shape, Source
from distillery.data.clips import constants_of, stacked
from distillery.data.digits import SCALE, Digits

Ints = NDArray[np.int64]
SIDE, GLYPH = 16, 8
# Rows and columns a frame, by the name of the direction.
DIRECTIONS = {
    "right": (0, 1),
    "down-right": (1, 1),
    "down": (1, 0),
    "down-left": (1, -1),
    "left": (0, -1),
    "up-left": (-1, -1),
    "up": (-1, 0),
    "up-right": (-1, 1),
}


class MovingDigits(Source):
    """Grey clips of 16 x 16, eight classes, as images whose channels are the frames.

    Every half of the scans that `digits` trains on and tests on gives the glyphs of its own clips. Labels are evenly
    many, but for the rest of a division by eight. Of the training labels round(noise * train) are wrong, each any other
    class alike; those of the test are right. Nothing that is written says which: clips are sorted by the label they
    have, then as they were drawn. A mirrored clip is one of another class, so recipes must say `flip: false`.
    """

    class Config(Source.Config):
        frames: Annotated[int, Field(ge=2, le=64)] = 8
        """Of a clip."""
        train: Count = 1800
        """Training clips."""
        test: Count = 1800
        """Test clips."""
        noise: Fraction = 0.0
        """Share of the training labels that are wrong."""
        grain: Annotated[float, Field(ge=0, le=255)] = 0.0
        """Standard deviation of the camera's noise, in greys of 255."""
        seed: Annotated[int, Field(ge=0)] = 0
        """Of all that is random."""

        @model_validator(mode="after")
        def _every_class(self) -> MovingDigits.Config:
            if min(self.train, self.test) < len(DIRECTIONS):
                raise ValueError(f"train and test: give {len(DIRECTIONS)} clips or more, one of each class")
            return self

    config: Config

    @property
    def mirrored(self) -> bool:
        return False  # left becomes right

    def shape(self) -> Shape:
        return Shape(self.config.frames, SIDE, SIDE, len(DIRECTIONS), self.config.train, self.config.test)

    def load(self) -> Arrays:
        config, scans = self.config, Digits().load().tensors
        tensors: dict[str, Any] = {}
        for split, count in (("train", config.train), ("test", config.test)):
            # Motions, grain and mistakes are drawn apart, so that none of them changes with another one's key.
            random, camera, clerk = (
                np.random.Generator(np.random.PCG64([config.seed, split == "test", purpose])) for purpose in range(3)
            )
            direction = random.permutation(np.arange(count) % len(DIRECTIONS))
            found = scans[f"{split}_images"]
            glyphs = found[random.integers(0, len(found), count), :, :, 0]
            clips = moved(glyphs, direction, random.integers(0, SIDE, (2, count)), config.frames)
            if config.grain:
                grain = camera.normal(0, config.grain, clips.shape)
                clips = np.clip(np.rint(clips + grain), 0, 255).astype(np.uint8)
            given = mislabelled(direction, config.noise, clerk) if split == "train" else direction
            order = np.argsort(given, kind="stable")
            tensors[f"{split}_images"] = stacked(clips[order])
            tensors[f"{split}_labels"] = given[order].astype(np.uint8)
        mean, std = constants_of(tensors["train_images"], config.frames)
        return Arrays(tensors, [*DIRECTIONS], 255.0, mean, std, self.selection())


def moved(glyphs: NDArray[np.uint8] | NDArray[np.uint16], direction: Ints, start: Ints, frames: int) -> Bytes:
    """Draw (N, 8, 8) glyphs of greys 0 to 16 that move in (N,) directions from (2, N) rows and columns.

    Returns (N, T, 16, 16, 1) uint8.
    """
    clips = np.zeros((len(glyphs), frames, SIDE, SIDE, 1), dtype=np.uint8)
    speed = np.array([*DIRECTIONS.values()]).T[:, direction]
    time, cell = np.arange(frames), np.arange(GLYPH)
    y, x = ((start[i] + speed[i] * time[:, None]).T[..., None] + cell for i in (0, 1))  # (N, T, 8)
    clip = np.arange(len(glyphs))[:, None, None, None]
    ink = np.rint(glyphs * (255 / SCALE)).astype(np.uint8)
    clips[clip, time[:, None, None], y[..., :, None] % SIDE, x[..., None, :] % SIDE, 0] = ink[:, None]
    return clips


def mislabelled(labels: Ints, noise: float, random: np.random.Generator) -> Ints:
    """Put another class, any alike, in place of round(noise * N) of (N,) labels."""
    wrong = random.permutation(len(labels))[: round(noise * len(labels))]
    given = labels.copy()
    given[wrong] = (labels[wrong] + random.integers(1, len(DIRECTIONS), len(wrong))) % len(DIRECTIONS)
    return given
