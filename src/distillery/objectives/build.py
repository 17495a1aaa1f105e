"""From a method block of params.yaml to the module that computes its loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn

from distillery.config import Problems, Weight
from distillery.errors import DistilleryError
from distillery.errors.words import nearest
from distillery.models.base import Outputs
from distillery.objectives import OBJECTIVES
from distillery.objectives.base import NEEDS, Batch, Context, Incompatible, Objective, Plugin, Selector, Transform
from distillery.objectives.basis import basis_of
from distillery.objectives.plugins import PLUGINS
from distillery.records.io import below
from distillery.study.blocks import Method


def main_alone(objective: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of an objective, without its partners and plug-ins: its main part alone predicts."""
    return {key: value for key, value in objective.items() if key not in ("plugins", "plus")}


def of_main(weights: Mapping[str, Tensor], objective: Mapping[str, Any]) -> dict[str, Tensor]:
    """Of an objective's stored weights those of its main part. A partner's or selection's are of the data's size."""
    prefix = "main." if objective.get("plus") else ""
    return {k: v for k, v in below(weights, prefix).items() if not k.startswith(("plugins.", "selector."))}


class Partner(Objective.Config):
    """What a partner's block (`plus:`) says beside the partner's own keys."""

    weight: Weight = 1.0
    """Factor of all distillation terms of the partner."""


class Combined(Objective):
    """An objective with partners: the distillation terms of the partners are added, the supervised term counts once."""

    def __init__(self, context: Context, main: Objective, partners: dict[str, tuple[float, Objective]]) -> None:
        super().__init__(context, main.config)
        self.main = main
        self.partners = nn.ModuleDict({name: partner for name, (_, partner) in partners.items()})
        self.weights = {name: weight for name, (weight, _) in partners.items()}
        self.needs = main.needs.union(*(p.needs for _, p in self.named_partners()))  # type: ignore[misc]

    @property
    def static(self) -> bool:
        return super().static and self.main.static and all(p.static for _, p in self.named_partners())

    def named_partners(self) -> list[tuple[str, Objective]]:
        return [(name, cast(Objective, partner)) for name, partner in self.partners.items()]

    def shown(self, inputs: Any, targets: Any) -> Any:
        return self.main.shown(inputs, targets)

    def then(self, batch: Batch) -> Iterator[dict[str, Tensor]]:
        return self.main.then(batch)

    def supervised(self, batch: Batch) -> dict[str, Tensor]:
        return self.main.supervised(batch)

    def by_part(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The weighted distillation terms of the main part, then of each partner, whose names precede theirs."""
        return [self.main.distill(batch)] + [
            {f"{name}_{k}": self.weights[name] * v for k, v in partner.distill(batch).items()}
            for name, partner in self.named_partners()
        ]

    def distill(self, batch: Batch) -> dict[str, Tensor]:
        return {name: term for terms in self.by_part(batch) for name, term in terms.items()}

    @property
    def predicts(self) -> bool:
        return self.main.predicts

    def predict(self, outputs: Outputs) -> Tensor:
        return self.main.predict(outputs)


class Loss:
    """A method's block, read: the classes it names and their settings.

    Raises Problems with one sentence for every unknown name, unknown key or value out of range.
    """

    def __init__(self, method: Method) -> None:
        self.problems: list[str] = []
        self.main = self._read(OBJECTIVES, method.objective, method.hyper)
        self.plugins = {
            name: self._read(PLUGINS, name, values, f"plugins.{name}.") for name, values in method.plugins.items()
        }
        self.plus: dict[str, tuple[float, Any]] = {}
        for name, values in method.plus.items():
            where = f"plus.{name}."
            weight = {k: v for k, v in values.items() if k == "weight"}
            rest = {k: v for k, v in values.items() if k != "weight"}
            if "ce_weight" in rest:
                self.problems.append(
                    f"{where}ce_weight: the cross-entropy counts once, with the ce_weight of the method"
                )
            read = self._read(OBJECTIVES, name, rest, where)
            if weight.get("weight") == 0:
                self.problems.append(f"{where}weight: 0 switches it off: drop the entry")
            try:
                self.plus[name] = Partner.read(weight, where).weight, read
            except Problems as found:
                self.problems += found.sentences
        if not self.problems:
            self.problems += self._contradictions()
        if self.problems:
            raise Problems(self.problems)

    def _contradictions(self) -> Iterator[str]:
        """Settings that are each right and have no sense, or none that anybody could mean, together."""
        kind, config = self.main
        for name in self.plugins:
            for each in (kind, *(read[0] for _, read in self.plus.values())):
                if why := each.refuses.get(name):
                    yield f"plugins.{name}: {why}"
        correcting = sorted(
            name for name, (each, _) in self.plugins.items() if issubclass(each, Transform) and each.corrects
        )
        if len(correcting) > 1:
            both = f"{' and '.join(correcting)} both put the teacher right"
            yield f"plugins: {both}, and the second finds nothing to do: keep one"
        selectors = [name for name, (each, _) in self.plugins.items() if issubclass(each, Selector)]
        if len(selectors) > 1:
            yield f"plugins: {' and '.join(selectors)} both choose the images that the teacher supervises: keep one"
        if kind.predict is not Objective.predict and kind.supervised is Objective.supervised:
            unused = "trains the student's own classifier, and this method predicts with another one"
            if config.ce_weight:
                yield f"ce_weight: the cross-entropy {unused}: set it to 0"
            for name in selectors:
                yield f"plugins.{name}: the cross-entropy of the images that are not chosen {unused}"

    def _read(self, registry: Any, name: str, values: dict[str, Any], where: str = "") -> Any:
        """Return (class, settings) of one component; what is wrong with it is added to `problems`."""
        try:
            kind = registry[name].load()
            if unknown := sorted(getattr(kind, "needs", frozenset()) - NEEDS):
                hint = nearest(unknown[0], sorted(NEEDS))
                raise DistilleryError(
                    f"{registry.kind} {name!r} has an unknown item in `needs`, {unknown[0]!r}: {hint}"
                )
            basis_of(registry[name], kind)
            return kind, kind.Config.read(values, where)
        except Problems as found:
            self.problems += found.sentences
        except DistilleryError as error:
            self.problems.append(f"{where.partition('.')[0]}: {error}" if where else str(error))
        return None

    @property
    def needs(self) -> frozenset[str]:
        """What the method asks of networks and views, partners included (see `Objective.needs`)."""
        kinds = [self.main[0], *(read[0] for _, read in self.plus.values())]
        return frozenset().union(*(kind.needs for kind in kinds))

    @property
    def unlabelled(self) -> bool:
        """Whether the method, partners included, learns from images without a label too."""
        return all(kind.unlabelled for kind in (self.main[0], *(read[0] for _, read in self.plus.values())))

    def faults(self, epochs: int, teachers: int, hidden: bool) -> Iterator[str]:
        """What the keys ask in vain, those of partners included (see `Objective.faults`)."""
        for where, (kind, config) in [("", self.main), *((f"plus.{p}.", read) for p, (_, read) in self.plus.items())]:
            yield from (where + fault for fault in kind.faults(config, epochs, teachers, hidden))

    def effective(self) -> dict[str, Any]:
        """The block with every default filled in."""
        block = self.main[1].effective()
        if self.plugins:
            block["plugins"] = {name: config.effective() for name, (_, config) in self.plugins.items()}
        if self.plus:
            block["plus"] = {
                name: {"weight": weight} | {k: v for k, v in config.effective().items() if k != "ce_weight"}
                for name, (weight, (_, config)) in self.plus.items()
            }
        return block

    def build(self, context: Context) -> Objective:
        """Make the modules of one run."""
        kind, config = self.main
        main: Objective = kind(context, config)
        partners = {
            name.replace(".", "_"): (weight, cast(Objective, kind(context, config)))  # a module's name has no dots
            for name, (weight, (kind, config)) in self.plus.items()
        }
        transforms: list[tuple[int, str, Transform]] = []
        selector: Selector | None = None
        for name, (kind, config) in self.plugins.items():
            if issubclass(kind, Selector):
                selector = kind(context, config)
                continue
            if context.num_classes < kind.least_classes:
                raise Incompatible(
                    f"plug-in {name} leaves nothing of {context.num_classes} classes to compare: drop it"
                )
            transforms.append((kind.order, name, kind(config)))
        plugins: list[Plugin] = [transform for _, _, transform in sorted(transforms, key=lambda found: found[:2])]
        for objective in (main, *(partner for _, partner in partners.values())):
            objective.plugins = nn.ModuleList(plugins)
        objective = Combined(context, main, partners) if partners else main
        objective.selector = selector
        return objective


def needs(method: Method) -> frozenset[str]:
    """What a method asks of networks and views, partners included."""
    return Loss(method).needs


def build(method: Method, context: Context) -> Objective:
    """Build the loss of a method (already specialised to its pair by `for_pair`) for one run."""
    return Loss(method).build(context)
