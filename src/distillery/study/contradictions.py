"""Settings of a recipe that have no effect, are unknown or cannot work together."""

from __future__ import annotations

from typing import Any

from distillery.config import Problems
from distillery.errors import DistilleryError
from distillery.recipe import PARTS
from distillery.study.blocks import Ema, Named, Recipe


def contradictions(recipe: Recipe) -> list[str]:
    """Say what a recipe's settings contradict, one clause each, which begins with the key."""
    found = []
    for key in PARTS:
        found += _of_part(recipe, key)
    found += _of_augmentations(recipe)
    if recipe.decay != "all" and recipe.weight_decay == 0:
        found.append("decay: has no effect with weight_decay 0")
    if recipe.ema and not recipe.ema.warmup:
        unused = [k for k in ("warmup_gamma", "warmup_power") if getattr(recipe.ema, k) != getattr(Ema(), k)]
        found += [f"ema.{k}: has no effect without warmup" for k in unused]
    if recipe.ema and recipe.ema.decay == 0:
        found.append("ema.decay: 0 averages nothing: say `ema: null`")
    return found


def _of_part(recipe: Recipe, key: str) -> list[str]:
    """Of the optimiser or the schedule, whose usual one has keys in the recipe itself."""
    _, usual, short = PARTS[key]
    named: Named = getattr(recipe, key) or Named(name=usual)
    try:
        clauses = list(recipe.part(key).contradictions())
    except DistilleryError as error:
        return _refused(key, error)
    said = [k for k in short if k in recipe.model_fields_set]
    found = [f"{k}: given twice, here and in {key}" for k in said if k in named.keys]
    found += [f"{k}: has no effect with {key} {named.name!r}" for k in said if named.name != usual]
    in_block = {k for k, _ in clauses if k not in short or k in named.keys}
    return found + [f"{key}.{k}: {clause}" if k in in_block else f"{k}: {clause}" for k, clause in clauses]


def _of_augmentations(recipe: Recipe) -> list[str]:
    found: list[str] = []
    made: list[tuple[str, Any]] = []
    for place, named in enumerate(recipe.augmentation.then):
        where = f"augmentation.then.{place}"
        try:
            part = recipe.augment(named)
        except DistilleryError as error:
            found += _refused(where, error)
            continue
        found += [f"{where}.{key}: {clause}" for key, clause in part.contradictions()]
        if named.name in (name for name, _ in made):
            found.append(f"{where}: {named.name} is there already")
        if late := [name for name, other in made if part.stage == "image" and other.stage == "batch"]:
            found.append(f"{where}: {named.name} comes before images are normalised: move it before {late[0]}")
        if other := [name for name, before in made if part.mixes and before.mixes and name != named.name]:
            found.append(f"{where}: {other[0]} mixes images too: mixup_cutmix chooses one of both for every batch")
        made.append((named.name, part))
    return found


def _refused(where: str, error: DistilleryError) -> list[str]:
    """Why a component cannot be made: of its keys one clause each."""
    if isinstance(error, Problems):
        return [f"{where}: {s}" if s.startswith("unknown") else f"{where}.{s}" for s in error.sentences]
    return [f"{where}: {error}"]
