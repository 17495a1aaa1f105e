"""SimKD: Chen et al., "Knowledge distillation with the reused teacher classifier" (arXiv:2203.14001, CVPR 2022), eq. 3.

The student's last map is projected to the teacher's, and what follows the teacher's last map (pooling and classifier;
in families that have layers between, those too) classifies it, also at test time: projector and that part of the
teacher belong to the deployed student. Where the teacher's last tap holds negative values (WRN) the projector's closing
ReLU, which could not reach them, is left out.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from distillery.config import Count, Weight
from distillery.models.base import Network, Outputs
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.features import align, average_pool, conv_norm, stage_taps
from distillery.objectives.soft import full_precision


def bottleneck(inputs: int, outputs: int, factor: int = 2, relu: bool = True) -> nn.Sequential:
    """1x1 to outputs / factor, 3x3, 1x1 to outputs, each bias-free with batch normalisation and ReLU."""
    middle = outputs // factor
    return nn.Sequential(
        conv_norm(inputs, middle, relu=True),
        conv_norm(middle, middle, 3, relu=True),
        conv_norm(middle, outputs, relu=relu),
    )


class SimKD(Objective):
    """L = feat_weight * MSE(projected student map, teacher map); the larger map is pooled, no cross-entropy.

    Defaults: the authors' code (factor 2, weights 0 for CE and 1 for the feature term). The cross-entropy would train
    the student's own classifier, which no prediction uses: another `ce_weight` than 0 is refused.
    """

    needs = frozenset({"maps"})

    class Config(Objective.Config):
        ce_weight: Weight = 0.0
        feat_weight: Weight = 1.0
        factor: Count = 2
        """By which the projector's middle is narrower than the teacher's map."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        student, teacher = stage_taps(context, "SimKD")[-1]
        if context.teacher_model is None or context.teacher is None:
            raise Incompatible("SimKD reuses the teacher's classifier: it cannot run from a cached table alone.")
        self.stage = len(context.teacher.maps) - 1
        self.size = teacher.shape[-2:]
        relu = bool((teacher >= 0).all())
        self.projector = bottleneck(student.shape[1], teacher.shape[1], self.config.factor, relu)
        self._teacher: tuple[Network] = (context.teacher_model,)  # in a tuple: neither trained nor saved with this

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        student, teacher = align(batch.student.maps[-1], batch.teacher.maps[-1])
        return {"simkd": self.config.feat_weight * F.mse_loss(self.projector(student), teacher)}

    def predict(self, outputs: Outputs) -> Tensor:
        """Return the teacher classifier's logits of the projected student, (B, C).

        The projector's running statistics are used, also during training, so that looking changes nothing.
        """
        features = full_precision(outputs.maps[-1])
        if features.shape[2] > self.size[0]:
            features = average_pool(features, self.size)
        training = self.projector.training
        self.projector.eval()
        logits = self._teacher[0].tail(self.projector(features), self.stage)
        self.projector.train(training)
        return logits
