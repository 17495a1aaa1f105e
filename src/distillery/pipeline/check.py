"""Checks on params.yaml that name the mistake, the place and the nearest known name. Nothing here imports torch.

What only the components themselves know (keys of a method, whether it fits a network) the task's rehearsal checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distillery.data import SOURCES, open_source
from distillery.errors.words import explain, nearest
from distillery.models import NETWORKS
from distillery.objectives import OBJECTIVES
from distillery.objectives.plugins import PLUGINS
from distillery.records.io import DistilleryError
from distillery.registry import Registry
from distillery.study.blocks import Cache, Method, Recipe
from distillery.study.contradictions import contradictions
from distillery.study.model import Study, Teacher, expand_seeds
from distillery.study.reader import read_params
from distillery.task import task_of
from distillery.teachers.released import BY_DATA, FAMILIES, HUB, NAMED, by_name, is_remote, places, released, source_of


def load(path: Path | str = "params.yaml") -> Study:
    """Read and check a study. Raises DistilleryError with one sentence per mistake."""
    return check(read_params(path), str(path))


def check(params: dict[str, Any], where: str = "params.yaml") -> Study:
    """Check the content of params.yaml. Raises DistilleryError that lists every mistake, one line each."""
    try:
        study = Study.model_validate(params)
    except ValidationError as error:
        raise DistilleryError("\n".join(f"{where}: {said}" for said in explain(Study, error, params))) from None
    checks = (_names, _teachers, _methods, _recipes, _seeds)
    # The others merge a method's blocks for single pairs with its own one, which takes blocks of the same kinds.
    problems = [*_for_pairs(study)] or list(dict.fromkeys(problem for part in checks for problem in part(study)))
    if problems:
        raise DistilleryError("\n".join(f"{where}: {p}" for p in problems))
    return study


def notes(study: Study) -> Iterator[str]:
    """What is no mistake, and is better known."""
    seeds = {seed for block in study.seeds for seed in expand_seeds(block)}
    for p, pair in study.pairs.items():
        for t in pair.teachers:
            teacher = study.teachers[t]
            if teacher.source == "train" and teacher.architecture == pair.student and teacher.seed in seeds:
                yield (
                    f"pairs.{p}: teacher {t} and the students of seed {teacher.seed} begin with the same weights and "
                    f"see the same images in the same order: give teachers.{t}.seed a number that no student has"
                )
    yield from _guessed_sizes(study)
    yield from _endless_warmups(study)


def _guessed_sizes(study: Study) -> Iterator[str]:
    """Weights of the user's own say nothing about the images that they saw; their architecture's package does."""
    from distillery.teachers import named  # torch

    for t, teacher in study.teachers.items():
        silent = teacher.source == "fetch" and teacher.preprocessing == "own" and places(teacher)
        if not silent or not teacher.architecture.startswith(FAMILIES) or by_name(teacher):
            continue
        origin = source_of(teacher, study.data)
        if (own := origin.preprocessing) and not origin.config:
            yield (
                f"teachers.{t} is shown images of {own.size or 'their own'} pixels (of {own.short_side}, cut, in the "
                f"gate), normalised as those of {named.usually(teacher.architecture)} are: if its weights saw others, "
                "name them (`weights: NAME, urls: [FILE]`), or say `preprocessing: {mean: ..., std: ..., size: ...}`"
            )


def _endless_warmups(study: Study) -> Iterator[str]:
    """Methods whose distillation never reaches its weight: warm-ups are published for 240 epochs."""
    found: dict[str, list[str]] = {}
    for pair, m, _ in study.cells():
        method = study.methods[m].for_pair(pair)
        epochs = study.recipe_for(pair, m).epochs
        field = OBJECTIVES[method.objective].get().Config.model_fields.get("warmup_epochs")
        if field and (warmup := method.hyper.get("warmup_epochs", field.default)) > epochs:
            found.setdefault(f"warmup_epochs is {warmup:g} and its runs have {epochs}", []).append(m)
    for said, methods in found.items():
        yield f"methods.{', '.join(dict.fromkeys(methods))}: {said}: its distillation never reaches its full weight"


def rehearse(study: Study, where: str = "params.yaml", images: bool = True) -> None:
    """Build every cell of a study once. Raises DistilleryError that lists what would fail, one line each.

    With `images` the data must be there, where they are the user's own; otherwise nothing is said about them.
    """
    problems = list(dict.fromkeys(task_of(study.task).part("rehearsal")(study, images)))
    if problems:
        raise DistilleryError("\n".join(f"{where}: {problem}" for problem in problems))


def _unknown(registry: Registry, name: str, where: str) -> list[str]:
    try:
        registry[name]
    except DistilleryError as error:
        return [f"{where}: {error}"]
    return []


def _for_pairs(study: Study) -> Iterable[str]:
    for name, method in study.methods.items():
        for pair, block in method.pairs.items():
            try:
                Method.model_validate({"objective": method.objective} | block)
            except ValidationError as error:
                yield from (f"methods.{name}.pairs.{pair}.{said}" for said in explain(Method, error, block))
            for key in ("label", "pairs"):
                if key in block:
                    yield f"methods.{name}.pairs.{pair}.{key}: has no effect: it is the method's: leave it out here"


def _names(study: Study) -> Iterable[str]:
    try:
        task = task_of(study.task)
    except DistilleryError as error:
        yield from (line if line.startswith("task") else f"task: {line}" for line in str(error).splitlines())
    else:
        if study.data.hidden and not task.labelled:
            yield f"data.labelled: the task {task.name} has no labels to hide: leave it out"
    if unknown := _unknown(SOURCES, study.data.source, "data.source"):
        yield from unknown
    else:
        try:
            open_source(study.data.source, study.data.options)
        except DistilleryError as error:
            yield from str(error).splitlines()
    for name, pair in study.pairs.items():
        yield from _unknown(NETWORKS, pair.student, f"pairs.{name}.student")
        for teacher in pair.teachers:
            if teacher not in study.teachers:
                yield f"pairs.{name}.teacher: unknown teacher {teacher!r}: {nearest(teacher, study.teachers)}"
    unused = [k for k in ("precision", "dtype", "pooled") if getattr(study.cache, k) != getattr(Cache(), k)]
    if not study.cache.enabled:
        yield from (f"cache.{key}: has no effect with enabled: false: leave it out" for key in unused)
    baseline = study.tables.baseline
    if baseline is not None and baseline not in study.methods:
        yield f"tables.baseline: unknown method {baseline!r}: {nearest(baseline, study.methods)}"


# What each kind of teacher has no use for.
_IDLE = {
    "train": (
        "urls",
        "weights",
        "preprocessing",
        "classes",
        "member",
        "sha256",
        "accuracy",
        "fallback",
        "study",
        "pair",
        "method",
    ),
    "fetch": ("study", "pair", "method"),
    "student": ("urls", "weights", "preprocessing", "classes", "member", "sha256", "accuracy", "fallback", "recipe"),
}


def _teachers(study: Study) -> Iterable[str]:
    for name, teacher in study.teachers.items():
        yield from _unknown(NETWORKS, teacher.architecture, f"teachers.{name}.architecture")
        idle = [key for key in _IDLE[teacher.source] if key in teacher.model_fields_set]
        yield from (f"teachers.{name}.{key}: has no effect with source: {teacher.source}" for key in idle)
        if teacher.source == "fetch":
            yield from _fetched(name, teacher, study)
        if teacher.source == "student":
            if missing := [key for key in ("study", "pair", "method") if getattr(teacher, key) is None]:
                yield f"teachers.{name}: source is 'student', so name its {', '.join(missing)} too"
            elif teacher.study == study.study:
                yield f"teachers.{name}.study: a study cannot teach itself; make the students of {study.study!r} first"


def _fetched(name: str, teacher: Teacher, study: Study) -> Iterable[str]:
    copies = by_name(teacher) and not (teacher.weights or "").startswith(HUB)  # urls are, of weights that have a name
    if teacher.urls and teacher.weights and not copies:
        yield f"teachers.{name}.weights: urls are given too, and either says where the weights are: drop one"
    elif teacher.weights and not by_name(teacher) and not places(teacher):
        if not released(teacher, study.data).urls:
            some = nearest(teacher.weights, [n for n, of in NAMED.items() if teacher.architecture in of])
            yield (
                f"teachers.{name}.weights: {teacher.weights!r} is no file, and {teacher.architecture} has none by that "
                f"name: {some}"
            )
    elif not (by_name(teacher) or places(teacher) or released(teacher, study.data).urls):
        known = " and ".join(f"{', '.join(names)} for {source}" for source, names in BY_DATA.items())
        yield (
            f"teachers.{name}: source is 'fetch' but no urls are given, and the released teachers known here are "
            f"{known}, not {teacher.architecture} for {study.data.source}"
        )
    for url in places(teacher):
        if not url or ("://" in url and not is_remote(url)):
            key = "urls" if teacher.urls else "weights"
            yield f"teachers.{name}.{key}: {url!r} is neither an http(s) address nor a path such as /data/teacher.pth"
    if teacher.member and (teacher.member.startswith("/") or ".." in teacher.member.split("/")):
        yield f"teachers.{name}.member: {teacher.member!r} leads out of the archive"


def _methods(study: Study) -> Iterable[str]:
    called: dict[str, str] = {}
    for name, method in study.methods.items():
        if (other := called.setdefault(label := study.label(name), name)) != name:
            yield f"methods.{name}.label: {label!r} is what {other} is called, too; tell their rows apart"
        if name == "teacher":
            yield "methods.teacher: the teacher's row of every table has this name: take another one"
        for pair in method.pairs:
            if pair not in study.pairs:
                yield f"methods.{name}.pairs: unknown pair {pair!r}: {nearest(pair, study.pairs)}"
        yield from _unknown(OBJECTIVES, method.objective, f"methods.{name}.objective")
        for partner in method.plus:
            yield from _unknown(OBJECTIVES, partner, f"methods.{name}.plus")
        for plugin in method.plugins:
            yield from _unknown(PLUGINS, plugin, f"methods.{name}.plugins")


def _recipes(study: Study) -> Iterable[str]:
    overrides = [(f"teachers.{n}.recipe", [t.recipe]) for n, t in study.teachers.items() if t.source != "student"]
    for p, pair in study.pairs.items():
        overrides.append((f"pairs.{p}.recipe", [pair.recipe]))
        for m, method in study.methods.items():
            here = f"methods.{m}.pairs.{p}.recipe" if p in method.pairs else f"methods.{m}.recipe"
            overrides.append((here, [pair.recipe, *method.recipes(p)]))
    everywhere = contradictions(study.recipe)
    for where, blocks in overrides:
        own = blocks[1:] if where.startswith("methods.") else blocks
        unknown = [key for block in own for key in block if key not in Recipe.model_fields]
        yield from (f"{where}: unknown key {k!r}: {nearest(k, Recipe.model_fields)}" for k in unknown)
        known = [{k: v for k, v in block.items() if k in Recipe.model_fields} for block in blocks]
        try:
            recipe = study.recipe.updated(*known)
        except ValidationError as error:
            merged = {key: value for block in known for key, value in block.items()}
            yield from (f"{where}.{said}" for said in explain(Recipe, error, merged))
        else:
            yield from (f"{'recipe' if p in everywhere else where}.{p}" for p in contradictions(recipe))


def _seeds(study: Study) -> Iterable[str]:
    try:
        seeds = [seed for block in study.seeds for seed in expand_seeds(block)]
    except DistilleryError as error:
        return [str(error)]
    twice = sorted({s for s in seeds if seeds.count(s) > 1})
    return [f"seeds: {', '.join(map(str, twice))} given twice"] if twice else []
