"""Distillation of the pyramid's maps: FGD and MGD, the hosts of IKD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillery.config import Config as BaseConfig
from distillery.config import Positive, Share, Weight
from distillery.data.views import seed_for
from distillery.objectives.base import Batch, Context, Incompatible
from distillery.objectives.soft import full_precision
from distillery.tasks.detection.criterion import in_padded
from distillery.tasks.detection.detections import CLASS
from distillery.tasks.detection.objectives.base import Detect


class Attention(NamedTuple):
    """Where a map is strong: (B, H, W) that sums to H W over places, (B, C) that sums to C over channels."""

    places: Tensor
    channels: Tensor


def attention(x: Tensor, temperature: float) -> Attention:
    """FGD's attention of (B, C, H, W) maps: softmax of mean absolute values over `temperature`."""
    b, c, height, width = x.shape
    size = x.abs()
    places = height * width * (size.mean(1) / temperature).flatten(1).softmax(1)
    return Attention(places.view(b, height, width), c * (size.mean((2, 3)) / temperature).softmax(1))


def masks(boxes: Sequence[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of places that belong to an object and of those that do not, (B, H, W) each.

    Within a box, rounded outwards and one more, a place weighs 1 / area, in several boxes the largest of these; all
    others weigh alike and sum to 1.

    Args:
        boxes: of every image (n, 4) corners in units of the map's sides.
        like: (B, H, W), for the size.
    """
    inner, (height, width) = torch.zeros_like(like), like.shape[1:]
    for i, of_image in enumerate(boxes):
        scaled = of_image.detach().cpu().double() * torch.tensor([width, height, width, height], dtype=torch.float64)
        low, high = scaled[:, :2].floor().long().tolist(), scaled[:, 2:].ceil().long().tolist()
        for (left, top), (right, bottom) in zip(low, high, strict=True):
            part = inner[i, top : bottom + 1, left : right + 1]
            part.clamp_(min=1.0 / ((bottom + 1 - top) * (right + 1 - left)))
    outer = (inner == 0).to(like.dtype)
    return inner, outer / outer.sum((1, 2), keepdim=True).clamp(min=1.0)


def focal_terms(student: Tensor, teacher: Tensor, boxes: Sequence[Tensor], temperature: float) -> tuple[Tensor, ...]:
    """FGD's three terms of (B, C, H, W) maps that have no weights of their own, each over images.

    Returns squared gaps within objects and outside, both by the teacher's attention; the L1 gap of the attentions.
    """
    of_teacher, of_student = attention(teacher, temperature), attention(student, temperature)
    inner, outer = masks(boxes, of_teacher.places)
    gaps = ((student - teacher).square() * of_teacher.channels[:, :, None, None]).sum(1) * of_teacher.places
    apart = [(a - b).abs().sum() for a, b in zip(of_student, of_teacher, strict=True)]
    n = len(student)
    return (gaps * inner).sum() / n, (gaps * outer).sum() / n, (apart[0] + apart[1]) / n


class Relation(nn.Module):
    """Adds to a map what it says as a whole (GCNet's context block), before two maps are compared."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mask = nn.Conv2d(channels, 1, 1)
        half = channels // 2
        self.add = nn.Sequential(
            nn.Conv2d(channels, half, 1), nn.LayerNorm([half, 1, 1]), nn.ReLU(), nn.Conv2d(half, channels, 1)
        )
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(self.mask.bias)  # type: ignore[arg-type]
        for p in self.add[3].parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.mask(x).flatten(2).softmax(2)  # (B, 1, H W)
        context = (x.flatten(2) @ weights.transpose(1, 2))[..., None]
        added: Tensor = x + self.add(context)
        return added


def widths(context: Context, method: str) -> list[tuple[int, int]]:
    """Channels of every pair of maps. Raises Incompatible if they do not pair."""
    if context.teacher is None:
        raise Incompatible(f"{method} compares with a teacher: name a pair that has one")
    mine, theirs = context.student.maps, context.teacher.maps
    if [m.shape[2:] for m in mine] != [t.shape[2:] for t in theirs]:
        raise Incompatible(f"{method} compares maps of one size: take a student and a teacher of one family")
    return [(m.shape[1], t.shape[1]) for m, t in zip(mine, theirs, strict=True)]


def aligner(student: int, teacher: int) -> nn.Module:
    """From the student's channels to the teacher's: nothing if they are as many, else a 1 x 1 convolution."""
    return nn.Identity() if student == teacher else nn.Conv2d(student, teacher, 1)


class FGDWeights(BaseConfig):
    """Of FGD's terms; the defaults are IKD's for RetinaNet."""

    temperature: Positive = 0.5
    """Of both attentions."""
    objects: Weight = 1e-3
    """Of the gap within objects (alpha)."""
    background: Weight = 5e-4
    """Of the gap elsewhere (beta)."""
    attentions: Weight = 5e-4
    """Of the gap of the attentions (gamma); FGD's own default is 1e-3."""
    relation: Weight = 5e-6
    """Of the gap of maps with their context (lambda)."""


class FGDTerm(nn.Module):
    """Focal and global distillation of one pair of maps."""

    def __init__(self, student: int, teacher: int, weights: FGDWeights) -> None:
        super().__init__()
        self.weights, self.align = weights, aligner(student, teacher)
        self.of_student, self.of_teacher = Relation(teacher), Relation(teacher)

    def forward(self, student: Tensor, teacher: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        student, w = self.align(student), self.weights
        inner, outer, apart = focal_terms(student, teacher, boxes, w.temperature)
        relation = (self.of_student(student) - self.of_teacher(teacher)).square().sum() / len(student)
        found: Tensor = w.objects * inner + w.background * outer + w.attentions * apart + w.relation * relation
        return found


class MGDWeights(BaseConfig):
    """Of MGD's term."""

    weight: Weight = 2e-5
    """Of the squared gap."""
    masked: Share = 0.65
    """Share of the student's places that are hidden."""


class MGDTerm(nn.Module):
    """Masked generative distillation of one pair of maps: the teacher's map is generated from what is left."""

    def __init__(self, student: int, teacher: int, weights: MGDWeights) -> None:
        super().__init__()
        self.weights, self.align = weights, aligner(student, teacher)
        self.generate = nn.Sequential(
            nn.Conv2d(teacher, teacher, 3, padding=1), nn.ReLU(), nn.Conv2d(teacher, teacher, 3, padding=1)
        )

    def forward(self, student: Tensor, teacher: Tensor, uniform: Tensor) -> Tensor:
        """`uniform`: (B, 1, H, W) numbers between 0 and 1, of which the larger ones hide."""
        kept = (uniform <= 1 - self.weights.masked).to(student.dtype)
        made = self.generate(self.align(student) * kept)
        found: Tensor = self.weights.weight * (made - teacher).square().sum() / len(teacher)
        return found


class FGDTerms(nn.ModuleList):
    """FGD on all levels of the pyramid."""

    def __init__(self, pairs: Sequence[tuple[int, int]], weights: FGDWeights) -> None:
        super().__init__([FGDTerm(s, t, weights) for s, t in pairs])

    def forward(self, batch: Batch) -> Tensor:
        boxes = [in_padded(rows[rows[:, CLASS] >= 0]) for rows in batch.targets]
        pairs = zip(self, batch.student.maps, batch.teacher.maps, strict=True)
        return torch.stack([term(full_precision(s), full_precision(t), boxes) for term, s, t in pairs]).sum()


class MGDTerms(nn.ModuleList):
    """MGD on all levels of the pyramid. What is hidden is a function of the batch, the same in every process."""

    def __init__(self, pairs: Sequence[tuple[int, int]], weights: MGDWeights) -> None:
        super().__init__([MGDTerm(s, t, weights) for s, t in pairs])

    def forward(self, batch: Batch) -> Tensor:
        random = torch.Generator().manual_seed(seed_for("masks", int(batch.epoch), *batch.index.tolist()))
        found = []
        for term, s, t in zip(self, batch.student.maps, batch.teacher.maps, strict=True):
            uniform = torch.rand(len(t), 1, *t.shape[2:], generator=random).to(t.device)
            found.append(term(full_precision(s), full_precision(t), uniform))
        return torch.stack(found).sum()


class FGD(Detect):
    """FGD: Yang et al., "Focal and global knowledge distillation for detectors" (arXiv:2111.11837, CVPR 2022).

    L = losses + over all maps: attention-weighted squared gaps within and outside of objects, the gap of the
    attentions, and that of the maps with their global context.
    """

    needs = frozenset({"maps"})

    class Config(Detect.Config, FGDWeights):
        """Keys of a method's block."""

        inherit: bool = False
        """Start the student's pyramid and heads from the teacher's weights."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        self.inherits = self.config.inherit
        kept = {key: getattr(self.config, key) for key in FGDWeights.model_fields}
        self.terms = FGDTerms(widths(context, "FGD"), FGDWeights(**kept))

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        return {"fgd": self.terms(batch)}


class MGD(Detect):
    """MGD: Yang et al., "Masked generative distillation" (arXiv:2205.01529, ECCV 2022).

    L = losses + over all maps: weight * squared gap of the teacher's map and one generated from the masked student's.
    """

    needs = frozenset({"maps"})

    class Config(Detect.Config, MGDWeights):
        """Keys of a method's block."""

        inherit: bool = False
        """Start the student's pyramid and heads from the teacher's weights."""

    config: Config

    def __init__(self, context: Context, config: Config | None = None) -> None:
        super().__init__(context, config)
        self.inherits = self.config.inherit
        kept = {key: getattr(self.config, key) for key in MGDWeights.model_fields}
        self.terms = MGDTerms(widths(context, "MGD"), MGDWeights(**kept))

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        return {"mgd": self.terms(batch)}
