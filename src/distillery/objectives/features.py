"""Steps that several feature objectives share: precision, sizes, standardisation, connectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distillery.objectives.base import Batch, Context, Incompatible
from distillery.objectives.soft import full_precision


def unit(x: Tensor, eps: float = 0.0) -> Tensor:
    """Rows divided by (Euclidean norm + eps), (B, d) -> (B, d).

    A zero row stays zero and gets the gradient of the identity: its direction is undefined, and the released codes
    answer NaN (CRD, PKT).
    """
    square = x.square().sum(dim=1, keepdim=True)
    zero = square == 0
    return x / (torch.where(zero, 1.0, square).sqrt() + eps)


def centre(x: Tensor) -> Tensor:
    """Columns minus their batch mean, (B, d) -> (B, d). A column that is constant in working precision gives zeros."""
    centred = x - x.mean(dim=0)
    noise = 8 * torch.finfo(x.dtype).eps * x.detach().abs().amax(dim=0)
    return torch.where(centred.detach().abs().amax(dim=0) <= noise.clamp(min=1e-30), 0.0, centred)


def standardise(x: Tensor) -> Tensor:
    """Each column to mean 0 and unbiased standard deviation 1 over the batch, (B, d) -> (B, d), no epsilon.

    A constant column, and every column of a batch of one, gives zeros without gradient; the released codes (ITRD, VkD
    detection) divide zero by zero there.
    """
    centred = centre(x)
    peak = centred.detach().abs().amax(dim=0)
    centred = centred / torch.where(peak > 0, peak, 1.0)  # the result ignores the scale, its square may underflow
    square = centred.square().sum(dim=0)
    return centred * (max(len(x) - 1, 1) / torch.where(peak > 0, square, 1.0)).sqrt()


def average_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """Adaptive average pooling of (B, C, H, W) to (B, C, *size).

    Where the sizes divide it is plain pooling: its gradient is deterministic on CUDA, that of adaptive pooling is not.
    """
    (height, width), (h, w) = x.shape[-2:], size
    if height % h == 0 and width % w == 0:
        return x if (height, width) == (h, w) else F.avg_pool2d(x, (height // h, width // w))
    return F.adaptive_avg_pool2d(x, (h, w))


def align(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two (B, channels, H, W) maps to the smaller one's size; both in at least float32."""
    s, t = student.shape[-2:], teacher.shape[-2:]
    size = t if s[0] > t[0] else s
    return average_pool(full_precision(student), size), average_pool(full_precision(teacher), size)


def stage_pairs(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Pair the stages' maps of two networks, stem left out, deepest with deepest if their numbers differ.

    All published pairs have equal numbers, except those of a CIFAR ResNet with a network of four stages.
    """
    count = min(len(student), len(teacher)) - 1
    return list(zip(student[-count:], teacher[-count:], strict=True)) if count > 0 else []


def stages(batch: Batch) -> list[tuple[Tensor, Tensor]]:
    """Give the batch's paired stage maps, student first."""
    return stage_pairs(batch.student.maps, batch.teacher.maps)


def pooled(batch: Batch) -> tuple[Tensor, Tensor]:
    """Give the batch's pooled features (B, d_s) and (B, d_t), in at least float32."""
    student, teacher = batch.student.pooled, batch.teacher.pooled
    assert student is not None and teacher is not None  # `pooled_widths` has checked the networks
    return full_precision(student), full_precision(teacher)


def pooled_widths(context: Context, method: str) -> tuple[int, int]:
    """Widths of the pooled student and teacher features. Incompatible if one is missing."""
    if context.teacher is None or context.student.pooled is None or context.teacher.pooled is None:
        raise Incompatible(f"{method} compares pooled features, but the {_lacking(context, 'pooled')} has none.")
    return context.student.pooled.shape[1], context.teacher.pooled.shape[1]


def stage_taps(
    context: Context, method: str, student: str = "maps", teacher: str = "maps"
) -> list[tuple[Tensor, Tensor]]:
    """Give the example's paired taps ("maps" or "preacts") of both networks. Incompatible if there are none."""
    if context.teacher is not None:
        pairs = stage_pairs(getattr(context.student, student), getattr(context.teacher, teacher))
        if pairs:
            return pairs
    lacking = _lacking(context, student, teacher)
    kind = {"maps": "feature maps", "preacts": "maps before the activation"}[
        teacher if lacking == "teacher" else student
    ]
    raise Incompatible(f"{method} compares {kind}, but the {lacking} gives none: choose another network or method.")


def _lacking(context: Context, student: str, teacher: str | None = None) -> str:
    value = getattr(context.student, student)
    missing = value is None or (isinstance(value, tuple) and len(value) < 2)
    return "student" if missing and context.teacher is not None else "teacher"


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses its running statistics where the batch holds one value per channel.

    torch refuses to train on such a batch (one image, 1x1 map): there is no variance to take.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, channels, H, W)."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def conv_norm(inputs: int, outputs: int, size: int = 1, relu: bool = False, he_normal: bool = False) -> nn.Sequential:
    """Bias-free convolution (same size) and batch normalisation, then ReLU if asked for.

    `he_normal`: the convolution starts at N(0, 2 / (size^2 * outputs)), as in OFD and SRRL, else at torch's default.
    """
    conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False)
    if he_normal:
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, BatchNorm(outputs), *([nn.ReLU()] if relu else []))
