"""Where a formula comes from, as the class of an objective or plug-in of one's own says it: `basis = "reproduced"`."""

from __future__ import annotations

from typing import Any

from distillery.errors import DistilleryError
from distillery.registry import Component

DECIDES_RESULTS = False  # a word in tables (see pipeline/fingerprint.py)
DESIGN = "declared design"
BASES = ("reproduced", "third-party reading", DESIGN)  # the strongest first


def basis_of(component: Component, kind: Any) -> str:
    """What a component's class says; without a word the formula is no source's, and so a declared design.

    Raises DistilleryError for another word than the three.
    """
    said = getattr(kind, "basis", DESIGN)
    if not isinstance(said, str) or said not in BASES:
        known = ", ".join(map(repr, BASES[:-1]))
        raise DistilleryError(
            f"{component.kind} {component.name!r} has an unknown `basis`, {said!r}: write {known} or {BASES[-1]!r}"
        )
    return said
