"""Steps that several logit objectives share. All take raw (B, C) logits and stay in log space."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Stands for minus infinity where a class is left out: exp of it is zero, and its differences stay finite.
LEFT_OUT = -1e9


def full_precision(tensor: Tensor) -> Tensor:
    """Raise half precision to float32, in which every loss is computed; leave float32 and float64 alone."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def tempered(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Divide logits by the temperature, in full precision."""
    return full_precision(logits) / temperature


def one_hot(index: Tensor, logits: Tensor) -> Tensor:
    """(B, C) boolean mask of one class per row, (B,) classes in; no class where the index is -1.

    With a mask an entry is picked or replaced to the same bits as by gather or scatter, whose deterministic forms on
    CUDA sort the indices: some 28 kernels each.
    """
    return torch.arange(logits.shape[1], device=logits.device) == index.unsqueeze(1)


def kl_rows(student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL(softmax(teacher/T) || softmax(student/T)) of each row.

    (..., C) logits in, (...) divergences out, no T^2 factor. Finite for any finite logits, and so is its gradient with
    respect to both sides and to the temperature: a teacher probability that underflows is held at the smallest normal
    number, where its logarithm exists and its share of the sum is nil.
    """
    log_q = F.log_softmax(tempered(student, temperature), dim=-1)
    p = tempered(teacher, temperature).softmax(dim=-1)
    return F.kl_div(log_q, p.clamp(min=torch.finfo(p.dtype).tiny), reduction="none").sum(dim=-1)


def kl_rows_without(left_out: Tensor, student: Tensor, teacher: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """KL of each row between the distributions over the classes that are not `left_out`.

    (B, C) mask and logits in, (B,) divergences out. A row without any class left counts zero, with zero gradient.
    """
    return kl_rows(
        tempered(student, temperature).masked_fill(left_out, LEFT_OUT),
        tempered(teacher, temperature).masked_fill(left_out, LEFT_OUT),
    )


def one_against_rest(logits: Tensor, index: Tensor, temperature: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """Split softmax(logits/T) into the odds of one class per row and the distribution over the others.

    (B, C) logits and (B,) classes in; out come log p[index] - log(1 - p[index]), (B,), and the (B, C) tempered logits
    with that class left out. The log-odds come from the logits by log-sum-exp, never as log(1 - p), so they are finite
    where the released codes' logarithm of an underflowed probability is not.
    """
    scaled = tempered(logits, temperature)
    chosen = one_hot(index, scaled)
    rest = scaled.masked_fill(chosen, LEFT_OUT)
    return scaled.masked_fill(~chosen, 0.0).sum(dim=1) - rest.logsumexp(dim=1), rest


def binary_kl_rows(student_log_odds: Tensor, teacher_log_odds: Tensor) -> Tensor:
    """KL(b_t || b_s) of each row, b = (p, 1 - p) given by its log-odds; (B,) in, (B,) out."""
    yes = F.logsigmoid(teacher_log_odds) - F.logsigmoid(student_log_odds)
    no = F.logsigmoid(-teacher_log_odds) - F.logsigmoid(-student_log_odds)
    return teacher_log_odds.sigmoid() * yes + (-teacher_log_odds).sigmoid() * no


def correlation(a: Tensor, b: Tensor, dim: int, eps: float = 1e-8) -> Tensor:
    """Pearson correlation along `dim`: cosine of the centred vectors, eps added to the product of their norms.

    A constant vector correlates 0 with everything, with zero or finite gradient (norms have subgradient 0 at 0).
    """
    a, b = a - a.mean(dim=dim, keepdim=True), b - b.mean(dim=dim, keepdim=True)
    return (a * b).sum(dim=dim) / (a.norm(dim=dim) * b.norm(dim=dim) + eps)
