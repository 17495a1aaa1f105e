"""CRD: Tian, Krishnan, Isola, "Contrastive representation distillation" (arXiv:1910.10699, ICLR 2020), eq. 17 to 19.

As released in RepDistiller and mdistiller: noise-contrastive estimation against two memory banks of embeddings, whose
normalisers are set by the first batch and then stay. All of it is computed in log space, so any temperature is finite;
a zero embedding, which makes every later loss of the released code NaN, keeps its old row of the bank.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from distillery.config import Count, Positive, Share, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import pooled, pooled_widths, unit
from distillery.objectives.negatives import ClassSampler


def nce_loss(log_scores: Tensor, n_data: int, eps: float = 1e-7) -> Tensor:
    """Noise-contrastive loss, mean over the batch, scalar.

    log_scores: (B, K + 1) log of the normalised scores s, the positive first. With c = K / n_data the loss of a row is
    -log(s_0 / (s_0 + c + eps)) - sum_k log(c / (s_k + c + eps)).
    """
    noise = (log_scores.shape[1] - 1) / n_data
    zero = log_scores.new_zeros(())
    positive = torch.logaddexp(zero, math.log(noise + eps) - log_scores[:, 0])
    with_eps = torch.logaddexp(log_scores[:, 1:], zero + math.log(eps))
    negative = torch.logaddexp(zero, with_eps - math.log(noise))
    return (positive.sum() + negative.sum()) / len(log_scores)


class Bank(nn.Module):
    """One memory bank of unit rows (n_data, dim), all of it saved in checkpoints.

    log_normaliser is set by the first batch of `log_scores`.
    """

    rows: Tensor
    log_normaliser: Tensor
    started: Tensor

    def __init__(self, n_data: int, dim: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(dim / 3)
        self.register_buffer("rows", torch.empty(n_data, dim).uniform_(-bound, bound))
        self.register_buffer("log_normaliser", torch.zeros(()))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def log_scores(self, anchors: Tensor, chosen: Tensor, temperature: float) -> Tensor:
        """Log of exp(<row, anchor> / temperature) / Z at the chosen rows; (B, dim) and (B, K + 1) -> (B, K + 1).

        All rows are multiplied and the chosen products gathered: gathering the rows would move K * dim numbers for each
        anchor. The bank is cloned because `remember` changes it before the backward pass needs it.
        """
        scores = (anchors @ self.rows.clone().T).gather(1, chosen) / temperature
        with torch.no_grad():
            fresh = scores.logsumexp((0, 1)) + math.log(len(self.rows) / scores.numel())
            self.log_normaliser.copy_(torch.where(self.started, self.log_normaliser, fresh))
            self.started.fill_(True)
        return scores - self.log_normaliser.clone()

    @torch.no_grad()
    def remember(self, index: Tensor, embedded: Tensor, momentum: float) -> None:
        """Move the rows at index (B,) towards the embeddings (B, dim). Of duplicates the last wins, always."""
        last = (index[:, None] == index).int().cumsum(1).argmax(1)
        mixed = unit(momentum * self.rows[index] + (1 - momentum) * embedded)
        self.rows.index_copy_(0, index, mixed[last])


class CRD(Objective):
    """L = ce_weight * CE + feat_weight * (NCE of the student against the teacher's bank + the reverse).

    Both embeddings (linear, then L2-normalised) are trained. Negatives are drawn without replacement from the other
    classes. Defaults: mdistiller and RepDistiller.
    """

    needs = frozenset({"pooled"})

    class Config(Objective.Config):
        feat_weight: Weight = 0.8
        feat_dim: Count = 128
        """Width of the embeddings."""
        nce_k: Count = 16384
        """Negatives of each image; cut to the number of images that every class has against it."""
        temperature: Positive = 0.07
        momentum: Share = 0.5
        """Share of its old row that a bank keeps when an image comes by."""
        mode: Literal["exact", "relax"] = "exact"
        """The positive is the image itself or a random one of its class."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        student, teacher = pooled_widths(context, "CRD")
        self.embed_student = nn.Linear(student, self.config.feat_dim)
        self.embed_teacher = nn.Linear(teacher, self.config.feat_dim)
        self.student_bank = Bank(len(context.labels), self.config.feat_dim)
        self.teacher_bank = Bank(len(context.labels), self.config.feat_dim)
        self.sampler = ClassSampler(context.labels, self.config.nce_k)

    def contrast(self, student: Tensor, teacher: Tensor, index: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Give the losses of both sides and update both banks.

        student (B, d_s), teacher (B, d_t): pooled features; index (B,): the rows they belong to; chosen (B, K + 1): the
        rows they are contrasted with, the positive first.
        """
        s, t = unit(self.embed_student(student)), unit(self.embed_teacher(teacher))
        sides = ((s, self.teacher_bank), (t, self.student_bank))
        scores = [bank.log_scores(anchor, chosen, self.config.temperature) for anchor, bank in sides]
        self.student_bank.remember(index, s, self.config.momentum)
        self.teacher_bank.remember(index, t, self.config.momentum)
        count = len(self.student_bank.rows)
        return nce_loss(scores[0], count), nce_loss(scores[1], count)

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = pooled(batch)
        positives = self.sampler.positives(batch.labels) if self.config.mode == "relax" else batch.index
        chosen = torch.cat([positives[:, None], self.sampler.negatives(batch.labels)], dim=1)
        from_student, from_teacher = self.contrast(student, teacher, batch.index, chosen)
        return {"crd": self.config.feat_weight * (from_student + from_teacher)}
