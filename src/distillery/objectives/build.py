"""From a method block of params.yaml to the module that computes its loss."""

from __future__ import annotations

import importlib
from typing import Any, cast

from torch import Tensor, nn

from distillery.models.base import Outputs
from distillery.objectives import signatures
from distillery.objectives.base import Batch, Context, Objective, Plugin, Selector


class _Combined(Objective):
    """An objective with partners: the distillation terms of the partners are added, the supervised term counts once."""

    def __init__(self, context: Context, main: Objective, partners: dict[str, tuple[float, Objective]]) -> None:
        super().__init__(context, ce_weight=main.ce_weight)
        self.main = main
        self.partners = nn.ModuleDict({name: partner for name, (_, partner) in partners.items()})
        self.weights = {name: weight for name, (weight, _) in partners.items()}
        self.needs = main.needs.union(*(p.needs for _, p in self.named_partners()))  # type: ignore[misc]

    @property
    def static(self) -> bool:
        return super().static and self.main.static and all(p.static for _, p in self.named_partners())

    def named_partners(self) -> list[tuple[str, Objective]]:
        return [(name, cast(Objective, partner)) for name, partner in self.partners.items()]

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        return self.main.supervised(batch)

    def distil(self, batch: Batch) -> dict[str, Tensor]:
        terms = dict(self.main.distil(batch))
        for name, partner in self.named_partners():
            terms |= {f"{name}_{k}": self.weights[name] * v for k, v in partner.distil(batch).items()}
        return terms

    @property
    def predicts(self) -> bool:
        return self.main.predicts

    def predict(self, outputs: Outputs) -> Tensor:
        return self.main.predict(outputs)


def _make(signature: signatures.Signature, *args: Any, **hyper: Any) -> Any:
    package = "distillery.objectives" + ("" if signature.kind == "Objective" else ".plugins")
    return getattr(importlib.import_module(f"{package}.{signature.name}"), signature.cls)(*args, **hyper)


def build(method: Any, context: Context) -> Objective:
    """Build the loss of a `Method` (already specialised to its pair by `for_pair`) for one run."""
    known, extras = signatures.objectives(), signatures.plugins()
    main: Objective = _make(known[method.objective], context, **method.hyper)
    partners: dict[str, tuple[float, Objective]] = {}
    for name, values in method.plus.items():
        hyper = dict(values)
        weight = float(hyper.pop("weight", 1.0))
        partners[name] = (weight, _make(known[name], context, **hyper))
    made: list[Plugin] = []
    selector: Selector | None = None
    for name, values in method.plugins.items():
        if extras[name].kind == "Selector":
            selector = _make(extras[name], context, **values)
        else:
            made.append(_make(extras[name], **values))
    made.sort(key=lambda plugin: plugin.order)
    for objective in (main, *(partner for _, partner in partners.values())):
        objective.plugins = nn.ModuleList(made)
    objective = _Combined(context, main, partners) if partners else main
    objective.selector = selector
    return objective
