"""Rows whose class probabilities are known: one Gaussian for each class, as in "Why distillation helps".

Menon et al., "A statistical perspective on distillation" (arXiv:2005.10419, ICML 2021). Class c has the mean
separation / sqrt(2) in feature c and unit covariance, so that any two means are `separation` apart and Bayes' rule is
    p*(c | x) = softmax(separation / sqrt(2) * x_c over c).
Features are stored in one byte each; labels are drawn from p* of what is stored, so that p* is exact for it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from distillery.config import Count, Positive
from distillery.data.arrays import Arrays, Shape, Source
from distillery.data.rows import arrays_of_rows

LEVELS = 255.0
_TAIL = 4.0  # standard deviations beyond the means that can be stored


def weight_of(separation: float, classes: int, features: int) -> NDArray[np.float64]:
    """(C, F) of the logits log p*(c | x) = weight[c] . x up to a constant."""
    return separation / math.sqrt(2) * np.eye(classes, features)


class Gaussian(Source):
    """Rows that networks see as they were drawn: nothing is normalised."""

    class Config(Source.Config):
        features: Count = 10
        classes: Annotated[int, Field(ge=2, le=256)] = 2
        separation: Positive = 2.0
        """Of any two class means, in standard deviations."""
        train: Count = 20_000
        """Training rows, from which each run draws its own sample (`task: known`)."""
        test: Annotated[int, Field(ge=2)] = 5_000
        """Test rows: over them a variance is taken."""
        seed: Annotated[int, Field(ge=0)] = 0
        """Of all rows and labels."""

        @model_validator(mode="after")
        def _fits(self) -> Gaussian.Config:
            if self.classes > self.features:
                raise ValueError("features: each class needs one of its own, so give as many as classes or more")
            return self

    config: Config

    def shape(self) -> Shape:
        config = self.config
        return Shape(config.features, 1, 1, config.classes, config.train, config.test)

    def load(self) -> Arrays:
        config, random = self.config, np.random.Generator(np.random.PCG64(self.config.seed))
        weight = weight_of(config.separation, config.classes, config.features)
        reach = config.separation / math.sqrt(2) + _TAIL
        splits: dict[str, Any] = {}
        for split, count in (("train", config.train), ("test", config.test)):
            rows = random.normal(size=(count, config.features)) + weight[random.integers(0, config.classes, count)]
            stored = np.clip(np.rint((rows / reach + 1) / 2 * LEVELS), 0, LEVELS).astype(np.uint8)
            logits = (stored / LEVELS * 2 - 1) * reach @ weight.T
            gumbel = -np.log(-np.log(random.random((count, config.classes))))  # the largest sum is a draw from softmax
            splits[split] = (stored, (logits + gumbel).argmax(1))
        names = [str(c) for c in range(config.classes)]
        arrays = arrays_of_rows(splits, names, np.zeros(config.features, dtype=bool), self.selection(), scale=LEVELS)
        per = [1.0] * config.features
        return dataclasses.replace(arrays, mean=[0.5 * p for p in per], std=[p / (2 * reach) for p in per])
