"""What every network of the project gives: one forward pass, all its taps, named the same way for all families."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def anchor(network: nn.Module) -> Tensor:
    """A tensor of a network's device and type of numbers; one of the CPU for a formula, which holds none."""
    held = (t for t in chain(network.parameters(), network.buffers()) if t.is_floating_point())
    return next(held, torch.zeros(()))


@dataclass(frozen=True, slots=True)
class Outputs:
    """What one forward pass of a network yields. A view table fills only the fields it holds; the rest are empty.

    Attributes:
        logits: (B, C) class scores. Of a network with a distillation head: those of the class head while it trains,
            the mean of both heads, which is its prediction, while it does not.
        pooled: (B, d) penultimate features, the input of the classifier; None if not at hand.
        maps: feature maps, stem first, then one per stage, each (B, channels, height, width), as the family's
            reference code taps them (after the activation, except where the family has none there).
        preacts: the same taps before the stage's last activation; empty for families without them.
        tokens: of a vision transformer the (B, N, d) tokens of the patches, row by row of the image, at the end of
            every stage (there is one, unless the grid is pooled in between); without class and distillation tokens.
        distilled: (B, C) logits of the distillation head; None if there is none.
        last: (B, d, height, width) map whose mean over positions is `pooled`; None where pooling is another one.
        cams: (B, C, height, width) class activation maps, filled where they are asked for (`with_cams`).
    """

    logits: Tensor
    pooled: Tensor | None = None
    maps: tuple[Tensor, ...] = ()
    preacts: tuple[Tensor, ...] = ()
    tokens: tuple[Tensor, ...] = ()
    distilled: Tensor | None = None
    last: Tensor | None = None
    cams: Tensor | None = None

    def only(self, needs: Collection[str]) -> Outputs:
        """Without the taps that are not in `needs`, and without `last`, which is none."""
        left_out: dict[str, Any] = {name: () for name in ("maps", "preacts", "tokens") if name not in needs}
        return replace(self, pooled=self.pooled if "pooled" in needs else None, last=None, **left_out)

    def each(self, change: Callable[[Tensor], Tensor]) -> Outputs:
        """These outputs, without what a class derived from this one adds, with every tensor changed."""

        def changed(held: Any) -> Any:
            if isinstance(held, tuple):
                return tuple(map(change, held))
            return None if held is None else change(held)

        return Outputs(**{field.name: changed(getattr(self, field.name)) for field in fields(Outputs)})


class Network(nn.Module):
    """Base of every network: ``forward(images) -> Outputs``."""

    def forward(self, images: Tensor, preacts: bool = False) -> Outputs:
        """Map (B, channels, H, W) images to `Outputs`; the pre-activation taps are filled only if asked for."""
        raise TypeError(f"{type(self).__name__} has no forward pass")  # every family overrides this

    def renamed(self, key: str) -> str:
        """The name here of what a released checkpoint calls `key`, where the two differ; "" for what is not needed."""
        return key

    @property
    def head(self) -> nn.Linear:
        """The linear classifier on the pooled features, whatever its state-dict name in this family."""
        raise TypeError(f"{type(self).__name__} names no classifier")

    def stage_norms(self) -> list[nn.BatchNorm2d]:
        """The last batch normalisation before each stage's closing activation (OFD reads its margins from them)."""
        raise ValueError(f"{type(self).__name__} has no batch normalisation before its stages' last activation")

    def tail(self, features: Tensor, stage: int) -> Tensor:
        """Run the rest of the network from `maps[stage]` on and return the logits (AdaIN transfer, SRRL)."""
        raise ValueError(f"{type(self).__name__} cannot be entered in the middle")


def with_cams(network: Network, outputs: Outputs) -> Outputs:
    """Add class activation maps: the classifier at every position of the last map, without its bias.

    Their mean over positions is the logits without the bias. Outputs without a last map stay as they are.
    """
    if outputs.last is None:
        return outputs
    return replace(outputs, cams=F.conv2d(outputs.last, network.head.weight[:, :, None, None]))
