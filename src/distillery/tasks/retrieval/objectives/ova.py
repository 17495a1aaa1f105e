"""One versus all: the student trained alone, as every teacher is, on each label for itself."""

from __future__ import annotations

from typing import ClassVar

from distillery.tasks.retrieval.objectives.base import RetrievalObjective


class OVA(RetrievalObjective):
    """L = ce_weight * one-versus-all loss with the labels, over all labels."""

    needs: ClassVar[frozenset[str]] = frozenset()
