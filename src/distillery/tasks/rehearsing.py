"""What the rehearsals of tasks without classes have in common: the way through a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from distillery.config import Problems
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


def only_trained(study: Study, why: str) -> Iterator[str]:
    """Refuse fetched teachers where none is released."""
    for name, teacher in study.teachers.items():
        if teacher.source == "fetch":
            yield f"teachers.{name}.source: {why}: train it"
