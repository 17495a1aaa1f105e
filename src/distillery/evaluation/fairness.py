"""Fairness to groups and individuals: "What is Left After Distillation?" (arXiv:2410.08407, TMLR 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
AT_ONCE = 500  # pairs of samples in memory


def group_gaps(predicted: Integers, labels: Integers, groups: Integers, num_classes: int) -> dict[str, float]:
    """Demographic parity difference and equalised odds difference of predictions, each 0 (equal) to 1.

    Args:
        predicted, labels, groups: (N,) integers: predicted class, true class, group.
        num_classes: C. With two classes, class 1 is the favourable one. With more, every class is taken against the
            rest, and the largest gap counts (our extension: the paper's data sets are binary).

    Demographic parity: largest minus smallest P(predicted = class | group). Equalised odds: the larger of the same gaps
    in the true and the false positive rate; a group without images of one kind has no rate and is left out of that gap.
    """
    classes = [1] if num_classes == 2 else range(num_classes)
    everyone = np.ones(len(labels), dtype=bool)
    parity = [_gap(predicted == c, everyone, groups) for c in classes]
    odds = [_gap(predicted == c, part, groups) for c in classes for part in (labels == c, labels != c)]
    return {"demographic_parity": max(parity), "equalised_odds": max(odds)}


def _gap(hits: Integers, among: Integers, groups: Integers) -> float:
    """Largest minus smallest rate of `hits` among the chosen images of each group."""
    rates = [hits[chosen].mean() for g in np.unique(groups) if (chosen := among & (groups == g)).any()]
    return float(max(rates) - min(rates)) if rates else 0.0


def individual_unfairness(
    probabilities: Floats, samples: Floats, pairs: int = 20_000, seed: int = 0, nearest: float = 1e-3
) -> float:
    """I(f) = mean |f(x) - f(x')| / d(x, x') over pairs of samples, of which less is fairer (Dwork et al., ITCS 2012).

    Args:
        probabilities: (N, C) of a network.
        samples: (N, F) what tells one sample from another.
        pairs: drawn at random by `seed`, the same ones for every network.
        nearest: pairs of a smaller distance are left out: the same sample twice, as far as the features say.

    A declared design, since no text says which pairs, which |.| and which features the paper takes: |.| is half the L1
    distance of the probabilities, which for two classes is the difference of one of them; d is the cosine distance
    1 - cos of the samples as networks see them (the paper: of features of a pretrained network).
    """
    random = np.random.Generator(np.random.PCG64(seed))
    a = random.integers(0, len(samples), pairs)
    b = (a + random.integers(1, len(samples), pairs)) % len(samples)  # never the same sample
    norms = np.maximum(np.sqrt(np.square(samples).sum(axis=1)), 1e-12)
    parts = ((a[at : at + AT_ONCE], b[at : at + AT_ONCE]) for at in range(0, pairs, AT_ONCE))
    products = np.concatenate([(samples[one] * samples[other]).sum(axis=1) for one, other in parts])
    distance = 1 - products / (norms[a] * norms[b])
    apart = distance >= nearest
    if not apart.any():
        return 0.0
    change = 0.5 * np.abs(probabilities[a] - probabilities[b]).sum(axis=1)
    return float((change[apart] / distance[apart]).mean())
