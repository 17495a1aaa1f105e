"""VkD on vision transformers: Miles, Elezi, Deng (arXiv:2403.06213), the ImageNet experiment (DeiT from RegNetY-160).

The student's patch tokens are averaged and projected, the teacher's feature map is averaged and normalised, and
smooth-L1 compares them (vkd.py). The distillation head, where there is one, learns the teacher's logits, the class head
the labels.

In the released training the feature term dies in the first step: the optimiser decays the projector's free parameter,
torch's householder map truncates its diagonal from -(1 - lr * decay) to 0, and the projection is exactly zero from the
second step on; what is left is a constant without gradient. The published numbers were made with an earlier projector,
which leftovers of that code show to be a matrix exponential with a bias, or with this one; that is not known. Hence
three arms: `householder`, the released map as it was meant, which survives decay; `matrix_exponential`, the earlier
one; `as_released`, torch's own parametrisation, an ablation that trains without a feature term unless the decay is 0.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from distillery.config import Positive, Weight
from distillery.models.base import Outputs
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.kd import kd_loss
from distillery.objectives.orthogonal import OrthogonalProjector
from distillery.objectives.soft import full_precision
from distillery.objectives.vkd import Normalise, vkd_loss

Kind = Literal["householder", "matrix_exponential", "as_released"]


class Projector(nn.Module):
    """Linear map (B, inputs) -> (B, outputs) with orthonormal columns (rows if wide), and a bias if asked for."""

    def __init__(self, inputs: int, outputs: int, kind: Kind, bias: bool) -> None:
        super().__init__()
        self.linear: nn.Module
        if kind == "as_released":
            self.linear = parametrizations.orthogonal(nn.Linear(inputs, outputs, bias=False))
        else:
            self.linear = OrthogonalProjector(inputs, outputs, "householder" if kind == "householder" else "matrix_exp")
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def weight(self) -> Tensor:
        """The (outputs, inputs) matrix."""
        if isinstance(self.linear, OrthogonalProjector):
            return self.linear.weight()
        return cast(Tensor, self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Project features."""
        out: Tensor = self.linear(x)
        return out if self.bias is None else out + self.bias


def stages(outputs: Outputs) -> list[Tensor]:
    """Mean features of every stage, (B, d) each: of tokens if there are any, else of maps, the stem left out."""
    if outputs.tokens:
        return [full_precision(tokens).mean(1) for tokens in outputs.tokens]
    return [full_precision(features).mean((2, 3)) for features in outputs.maps[1:]]


class VkDTokens(Objective):
    """L = ce_weight * CE + feat_weight * vkd_loss of the mean tokens + kd_weight * KD at `temperature`.

    Defaults: the released ImageNet set-up (all weights 1, KL at temperature 1, layer norm of the teacher's features)
    but for the projector, see above. Stages are paired deepest with deepest, each pair has its projector.
    """

    needs = frozenset({"logits", "maps", "tokens", "distilled"})

    class Config(Objective.Config):
        idle = MappingProxyType(
            {"temperature": ({"kd_weight": 0},)}
            | dict.fromkeys(("projector", "bias", "normalise", "beta", "stages"), ({"feat_weight": 0},))
        )

        feat_weight: Weight = 1.0
        """Of the feature term, a mean over the pairs."""
        kd_weight: Weight = 1.0
        temperature: Positive = 1.0
        """Of the KD term."""
        projector: Kind = "householder"
        """How the projector stays orthogonal; as_released does not (see above)."""
        bias: bool = False
        """Whether the projector has a bias, as the earlier one had."""
        normalise: Normalise = "layer_norm"
        """What is done to the teacher's features (see `vkd_loss`)."""
        beta: Positive = 1.0
        """Where smooth-L1 turns from square to linear."""
        stages: Literal["last", "all"] = "last"
        """Which stages are compared; a DeiT has one."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        if not context.student.tokens:
            raise Incompatible("vkd_tokens compares patch tokens, but the student gives none: take vkd for it.")
        if context.teacher is None or not stages(context.teacher):
            raise Incompatible("vkd_tokens compares feature maps, but the teacher gives none: choose another teacher.")
        widths = [(s.shape[1], t.shape[1]) for s, t in self._pairs(context.student, context.teacher)]
        self.projectors = nn.ModuleList(Projector(*pair, self.config.projector, self.config.bias) for pair in widths)

    def _pairs(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        ours, theirs = stages(student), stages(teacher)
        count = 1 if self.config.stages == "last" else min(len(ours), len(theirs))
        return list(zip(ours[-count:], theirs[-count:], strict=True))

    @property
    def static(self) -> bool:
        """False with whitening, whose eigensolver reports to the host, and with LAPACK's reflections in torch's own."""
        return super().static and self.config.normalise != "whiten" and self.config.projector != "as_released"

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        pairs = zip(self.projectors, self._pairs(batch.student, batch.teacher), strict=True)
        losses = [vkd_loss(project(s), t, self.config.normalise, self.config.beta) for project, (s, t) in pairs]
        terms = {"feature": self.config.feat_weight * torch.stack(losses).mean()}
        if self.config.kd_weight:
            head = batch.student.logits if batch.student.distilled is None else batch.student.distilled
            student, teacher = self.logits(head, batch.teacher.logits, batch.targets)
            terms["kd"] = self.config.kd_weight * kd_loss(student, teacher, self.config.temperature)
        return terms
