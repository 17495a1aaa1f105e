"""PKT: Passalis, Tefas, "Learning deep representations with probabilistic knowledge transfer" (arXiv:1803.10837).

Equation 6 as released: the KL divergence is a mean, not a sum, over the B * B entries, hence the weight of 30000. A
zero feature row, for which the released gradient is NaN, has cosine 0 to every row and a finite gradient here.
"""

from __future__ import annotations

from torch import Tensor

from distillery.config import Positive, Weight
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.features import pooled, pooled_widths, unit
from distillery.objectives.soft import full_precision


def _probabilities(features: Tensor, eps: float) -> Tensor:
    """Cosine similarities of the rows of (B, d), mapped to [0, 1], each row normalised to sum 1: (B, B)."""
    rows = unit(full_precision(features), eps)
    similarity = (rows @ rows.T + 1) / 2
    return similarity / similarity.sum(dim=1, keepdim=True)


def pkt_loss(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Mean of t * log((t + eps) / (s + eps)) over similarity probabilities of (B, d_s) and (B, d_t) features."""
    s, t = _probabilities(student, eps), _probabilities(teacher, eps)
    return (t * ((t + eps) / (s + eps)).log()).mean()


class PKT(Objective):
    """L = ce_weight * CE + feat_weight * pkt_loss on the pooled features. Defaults: mdistiller and RepDistiller."""

    needs = frozenset({"pooled"})

    class Config(Objective.Config):
        feat_weight: Weight = 30000.0
        eps: Positive = 1e-7
        """Added to norms and to the probabilities under the logarithm."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        pooled_widths(context, "PKT")

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        return {"pkt": self.config.feat_weight * pkt_loss(*pooled(batch), self.config.eps)}
