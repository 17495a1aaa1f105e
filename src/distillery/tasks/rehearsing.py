"""What the rehearsals of tasks without classes have in common: the way through a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from distillery.config import Config, Problems, weights_of
from distillery.objectives.base import Objective
from distillery.objectives.build import Loss
from distillery.study.blocks import Recipe
from distillery.study.model import Study


def through(
    study: Study,
    network: Callable[[str, str], Iterator[str]],
    recipe: Callable[[str, Recipe], Iterator[str]],
    cell: Callable[[str, str, str, Loss], Iterator[str]],
) -> Iterator[str]:
    """Ask about every teacher, student and cell of a study; yield what is wrong, one clause each.

    Args:
        network: of a place in the study ("teachers.big") and an architecture.
        recipe: of a place and the recipe there.
        cell: of a place, names of method and pair, and the method's loss, whose keys are right.
    """
    for name, teacher in study.teachers.items():
        yield from network(f"teachers.{name}", teacher.architecture)
        yield from recipe(f"teachers.{name}", study.recipe_for_teacher(name))
    for p, pair in study.pairs.items():
        yield from network(f"pairs.{p}", pair.student)
    for m in study.methods:
        for p in study.pairs:
            yield from recipe(f"methods.{m} for {p}", study.recipe_for(p, m))
            try:
                loss = Loss(study.methods[m].for_pair(p))
            except Problems as found:
                yield from (f"methods.{m}: {sentence}" for sentence in found.sentences)
            else:
                yield from cell(f"methods.{m}", m, p, loss)
                faults = loss.faults(study.recipe_for(p, m).epochs, len(study.pairs[p].teachers), hidden=False)
                yield from (f"methods.{m}: {fault}" for fault in faults)


def distilling(config: Config, plain: type[Objective]) -> list[float]:
    """The weights of an objective's distillation terms: those that `plain`, from which it derives, has not."""
    return [weight for key, weight in weights_of(config).items() if key not in plain.Config.model_fields]


def misfits(
    where: str, name: str, loss: Loss, pair: str, teachers: Sequence[str], acts: str, plain: type[Objective]
) -> Iterator[str]:
    """What is wrong with a method whose objective is of the task: plug-ins, several teachers, weights of 0.

    Args:
        acts: on what plug-ins and partners act, and not.
        plain: of the task's objectives the one that all others derive from.
    """
    kind, config = loss.main
    distils = distilling(config, plain)
    idle = not any(distils) and (bool(distils) or not kind.needs)  # one's own objective may call its weights otherwise
    if loss.plugins or loss.plus:
        yield f"{where}: plug-ins and partners act on {acts}: leave them out"
    elif kind.needs and len(teachers) > 1:
        yield f"{where}: {name} learns from one teacher, and pair {pair} has {len(teachers)}"
    elif idle and not config.ce_weight:
        yield f"{where}: every term of {name} has weight 0"
    elif idle and kind.needs:
        yield f"{where}: the distillation term of {name} has weight 0"


def only_trained(study: Study, why: str) -> Iterator[str]:
    """Refuse fetched teachers where none is released."""
    for name, teacher in study.teachers.items():
        if teacher.source == "fetch":
            yield f"teachers.{name}.source: {why}: train it"
