"""The logit objectives by name, and random logits, for the tests of what holds for all of them and of each."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from distillery.objectives import OBJECTIVES as ALL
from distillery.objectives.base import Context, Objective
from distillery.objectives.build import build
from distillery.objectives.plugins import PLUGINS

LOGIT_NEEDS = {"logits", "strong", "teachers"}
OBJECTIVES = sorted(name for name, row in ALL.items() if row.load().needs <= LOGIT_NEEDS)


def made(name: str, ctx: Context, plugins: dict[str, dict[str, Any]] | None = None, **hyper: Any) -> Objective:
    return build(SimpleNamespace(objective=name, hyper=hyper, plus={}, plugins=plugins or {}), ctx)


def accepted(name: str, plugins: Iterable[str], classes: int) -> dict[str, dict[str, Any]]:
    """Those of some transforms that an objective takes together, with default settings."""
    found = sorted(set(plugins) - ALL[name].load().refuses.keys())
    if "revise" in found and "swap" in found:
        found.remove("swap")
    return {plugin: {} for plugin in found if PLUGINS[plugin].load().least_classes <= classes}


def normal(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def teachers_of(objective: Objective, one: Tensor, other: Tensor) -> Tensor | tuple[Tensor, ...]:
    """Both teachers' logits for an objective that distils from several, else those of one."""
    return (one, other) if "teachers" in objective.needs else one
