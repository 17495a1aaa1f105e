"""Trifeature, rebuilt by rule: a shape with a texture in a colour (Hermann and Lampinen, NeurIPS 2020).

"What is Left After Distillation?" (arXiv:2410.08407) takes it for its fairness by group; neither publishes the images
or which attribute is the group. Here (a declared design): images of 32 pixels, shapes and textures of our own; one
attribute is the class and another one the group, which is binary, the lower and the upper half of its ten values. In
training, class c comes with half c mod 2 at the rate `correlation`; in the test every class has both halves equally
often, so that what a network took over from the correlation shows as a gap.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distillery.config import Count
from distillery.data.arrays import Arrays, Bytes, Shape, Source
from distillery.data.pixels import mean_and_std

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SIDE = 32
VALUES = 10  # of each attribute
ATTRIBUTES = ("shape", "texture", "colour")
COLOURS = np.array(
    [
        *((230, 25, 75), (245, 130, 48), (255, 225, 25), (170, 110, 40), (250, 190, 212)),  # warm
        *((60, 180, 75), (70, 240, 240), (0, 130, 200), (145, 30, 180), (128, 128, 128)),  # cold
    ],
    dtype=np.float64,
)
NAMES = {
    "shape": ["disc", "square", "triangle", "cross", "star", "ring", "bar", "crescent", "hexagon", "frame"],
    "texture": ["plain", "rows", "columns", "diagonal", "checks", "dots", "grid", "circles", "fine rows", "waves"],
    "colour": ["red", "orange", "yellow", "brown", "pink", "green", "cyan", "blue", "purple", "grey"],
}
Attribute = Literal["shape", "texture", "colour"]


class Trifeature(Source):
    """Images of 32x32 in colour, ten classes, two groups."""

    grouped = True

    class Config(Source.Config):
        label: Attribute = "shape"
        """What the classes differ in."""
        group: Attribute = "colour"
        """What the groups differ in."""
        correlation: Annotated[float, Field(ge=0.5, le=1)] = 0.8
        """Share of a class's training images that are of the half it prefers; 0.5 is none."""
        train: Count = 3000
        """Training images, divided evenly by class."""
        test: Count = 4000
        """Test images, divided evenly by class and group."""
        seed: Annotated[int, Field(ge=0)] = 0
        """Of all that is random."""

        @model_validator(mode="after")
        def _two(self) -> Trifeature.Config:
            if self.label == self.group:
                raise ValueError("group: take another attribute than the label")
            if self.train % VALUES or self.test % (2 * VALUES):
                raise ValueError("train and test: give multiples of 10 and of 20")
            return self

    config: Config

    def shape(self) -> Shape:
        return Shape(3, SIDE, SIDE, VALUES, self.config.train, self.config.test)

    def load(self) -> Arrays:
        config, random = self.config, np.random.Generator(np.random.PCG64(self.config.seed))
        tensors: dict[str, Any] = {}
        for split, count in (("train", config.train), ("test", config.test)):
            label = np.repeat(np.arange(VALUES), count // VALUES)
            if split == "train":
                half = np.where(random.random(count) < config.correlation, label % 2, 1 - label % 2)
            else:
                half = np.arange(count) % 2
            values = {name: random.integers(0, VALUES, count) for name in ATTRIBUTES}
            values |= {config.label: label, config.group: half * (VALUES // 2) + random.integers(0, VALUES // 2, count)}
            tensors[f"{split}_images"] = drawn(values["shape"], values["texture"], values["colour"], random)
            tensors[f"{split}_labels"] = label.astype(np.uint8)
            tensors[f"{split}_groups"] = half.astype(np.uint8)
        names = NAMES[config.group]
        groups = [f"{names[0]} to {names[4]}", f"{names[5]} to {names[9]}"]
        mean, std = mean_and_std(tensors["train_images"])
        return Arrays(tensors, NAMES[config.label], 255.0, mean, std, self.selection(), config.group, groups)


def drawn(shape: Ints, texture: Ints, colour: Ints, random: np.random.Generator) -> Bytes:
    """Draw (N,) shapes, textures and colours as (N, 32, 32, 3) uint8, on black, with a little noise."""
    count = len(shape)
    angle = np.deg2rad(random.uniform(-45, 45, (count, 1, 1)))
    centre = random.uniform(-4, 4, (2, count, 1, 1))
    radius = random.uniform(9, 12, (count, 1, 1))
    line = np.arange(SIDE) - (SIDE - 1) / 2
    y, x = line[:, None] - centre[0], line[None, :] - centre[1]
    u, v = (np.cos(angle) * x + np.sin(angle) * y) / radius, (np.cos(angle) * y - np.sin(angle) * x) / radius
    inside = np.stack([_inside(kind, u[i], v[i]) for i, kind in enumerate(shape.tolist())])
    bright = np.stack([_bright(kind, u[i], v[i]) for i, kind in enumerate(texture.tolist())])
    ink = inside * np.where(bright, 1.0, 0.35)
    pixels = ink[..., None] * COLOURS[colour][:, None, None, :] + random.normal(0, 8, (count, SIDE, SIDE, 3))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _inside(kind: int, u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Which points belong to a shape; its own coordinates, within -1 to 1."""
    r, most = np.hypot(u, v), np.maximum(abs(u), abs(v))
    match NAMES["shape"][kind]:
        case "disc":
            return r < 0.9
        case "square":
            return most < 0.8
        case "triangle":
            return (v < 0.7) & (v > 2 * abs(u) - 0.9)
        case "cross":
            return (np.minimum(abs(u), abs(v)) < 0.28) & (most < 0.95)
        case "star":
            return r < 0.62 + 0.33 * np.cos(5 * np.arctan2(v, u))
        case "ring":
            return (r < 0.95) & (r > 0.5)
        case "bar":
            return (abs(v) < 0.35) & (abs(u) < 1.0)
        case "crescent":
            return (r < 0.95) & (np.hypot(u - 0.45, v) > 0.7)
        case "hexagon":
            return np.maximum(abs(u), abs(u) / 2 + abs(v) * 0.866) < 0.85
        case _:  # frame
            return (most < 0.9) & (most > 0.5)


def _bright(kind: int, u: Floats, v: Floats) -> NDArray[np.bool_]:
    """Where a texture is bright, in the coordinates of the shape."""
    a, b = np.sin(8 * u), np.sin(8 * v)
    match NAMES["texture"][kind]:
        case "plain":
            return np.ones_like(u, dtype=bool)
        case "rows":
            return b > 0
        case "columns":
            return a > 0
        case "diagonal":
            return np.sin(7 * (u + v)) > 0
        case "checks":
            return a * b > 0
        case "dots":
            return np.cos(10 * u) + np.cos(10 * v) > 0.6
        case "grid":
            return np.minimum(abs(a), abs(b)) > 0.4
        case "circles":
            return np.sin(12 * np.hypot(u, v)) > 0
        case "fine rows":
            return np.sin(16 * v) > 0
        case _:  # waves
            return np.sin(9 * v + 2 * np.sin(6 * u)) > 0
