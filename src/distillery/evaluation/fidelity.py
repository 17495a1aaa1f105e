"""Fidelity: how much the student's outputs are its teacher's, and the scale of the logits themselves."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

BEYOND = 1000  # logits of a training that goes astray grow without bound, and with them the bins


def fidelity(student: Tensor, teacher: Tensor) -> dict[str, float]:
    """Compare (N, C) logits of student and teacher on the same images.

    Returns:
        `agreement`: images, in percent, where both predict the same class (Stanton et al., "Does Knowledge
        Distillation Really Work?", NeurIPS 2021, eq. 5). `kl`: mean KL(teacher || student) in nats at temperature 1.
        `logit_correlation`: mean over images of the correlation between both logit vectors, that is of the product
        of the logits once standardised (Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024).
    """
    student, teacher = student.double(), teacher.double()
    same = (student.argmax(1) == teacher.argmax(1)).double().mean().item()
    log_s, log_t = F.log_softmax(student, dim=1), F.log_softmax(teacher, dim=1)
    return {
        "agreement": 100 * same,
        "kl": F.kl_div(log_s, log_t, reduction="batchmean", log_target=True).item(),
        "logit_correlation": (_standardise(student) * _standardise(teacher)).mean().item(),
    }


def _standardise(logits: Tensor) -> Tensor:
    deviation = logits.std(1, correction=0, keepdim=True)
    return (logits - logits.mean(1, keepdim=True)) / deviation.clamp(min=1e-12)


def logit_scale(logits: Tensor) -> dict[str, Any]:
    """Describe the size of (N, C) logits, as the figures of the logit standardisation paper do.

    Returns:
        `mean`, `std` (over the classes of an image, correction 0) and `range` (largest minus smallest), each averaged
        over images; `min` and `max` over everything; `histogram`: counts in bins one unit wide, the first of which
        begins at `from`; what is beyond 1,000, either way, is in the last of them.
    """
    logits = logits.double()
    spread, shown = logits.amax(1) - logits.amin(1), logits.clamp(-BEYOND, BEYOND)
    lowest = shown.min().floor()
    counts = (shown - lowest).floor().long().flatten().bincount()
    return {
        "mean": logits.mean().item(),
        "std": logits.std(1, correction=0).mean().item(),
        "range": spread.mean().item(),
        "min": logits.min().item(),
        "max": logits.max().item(),
        "histogram": {"from": int(lowest), "counts": counts.tolist()},
    }
