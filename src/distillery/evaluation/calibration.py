"""Calibration: negative log-likelihood, expected calibration error with its reliability curve, output entropy."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BINS = 15  # the number of equal-width bins of Guo et al. 2017


def calibration(logits: Tensor, labels: Tensor, bins: int = BINS) -> dict[str, Any]:
    """Measure calibration, from (N, C) logits and (N,) labels.

    Returns:
        `nll` (nats per image), `ece` (in percentage points; Guo et al., "On Calibration of Modern Neural Networks",
        ICML 2017, eq. 3: bins ((m-1)/M, m/M] of the confidence), `reliability` (per bin: images, mean confidence
        and accuracy in percent, null where the bin is empty) and `entropy` (mean entropy of the output in nats).
    """
    log_p = F.log_softmax(logits.double(), dim=1)
    confidence, predicted = log_p.exp().max(dim=1)
    right = (predicted == labels).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(bin_of, minlength=bins)
    sums = [torch.bincount(bin_of, weights=w, minlength=bins) for w in (confidence, right)]
    mean = [s / count.clamp(min=1) for s in sums]
    filled = count.tolist()
    curve = {
        name: [round(100 * v, 6) if n else None for v, n in zip(values.tolist(), filled, strict=True)]
        for name, values in (("confidence", mean[0]), ("accuracy", mean[1]))
    }
    return {
        "nll": F.nll_loss(log_p, labels).item(),
        "ece": 100 * (count * (mean[0] - mean[1]).abs()).sum().item() / len(labels),
        "reliability": {"images": filled} | curve,
        "entropy": -(log_p.exp() * log_p).sum(1).mean().item(),
    }
