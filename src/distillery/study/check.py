"""Checks on params.yaml that name the mistake, the place and the nearest known name."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from distillery.data import check_options
from distillery.models.names import NAMES as ARCHITECTURES
from distillery.records.io import DistilleryError
from distillery.study.model import Recipe, Study, expand_seeds
from distillery.teachers.released import DATA as RELEASED_FOR
from distillery.teachers.released import RELEASED, is_remote, source_of


def nearest(name: str, known: list[str]) -> str:
    """Return a hint to append to "unknown name" sentences: the nearest known name, or all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def check(params: dict[str, Any], where: str = "params.yaml") -> Study:
    """Validate the content of params.yaml. Raises DistilleryError that lists every mistake, one line each."""
    try:
        study = Study.model_validate(params)
    except ValidationError as error:
        raise DistilleryError("\n".join(f"{where}: {_explain(e)}" for e in error.errors())) from None
    checks = (_check_names, _check_fetched, _check_methods, _check_recipes, _check_seeds)
    problems = [problem for check_part in checks for problem in check_part(study)]
    if problems:
        raise DistilleryError("\n".join(f"{where}: {p}" for p in problems))
    return study


def _explain(error: Any) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        block: Any = Study
        for part in error["loc"][:-1]:
            annotation = block.model_fields[part].annotation if part in getattr(block, "model_fields", {}) else block
            block = next((a for a in getattr(annotation, "__args__", ()) if hasattr(a, "model_fields")), annotation)
        return f"unknown key {path!r}: {nearest(str(error['loc'][-1]), list(getattr(block, 'model_fields', {})))}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{path}: {message[:1].lower()}{message[1:]}, not {error['input']!r}" if path else message


def _check_names(study: Study) -> list[str]:
    known, problems = list(ARCHITECTURES), []
    try:
        check_options(study.data.source, study.data.options)
    except DistilleryError as error:
        problems.append(str(error))
    for name, teacher in study.teachers.items():
        if teacher.architecture not in known:
            problems.append(
                f"teachers.{name}: unknown architecture {teacher.architecture!r}: "
                f"{nearest(teacher.architecture, known)}"
            )
    for name, pair in study.pairs.items():
        if pair.student not in known:
            problems.append(f"pairs.{name}: unknown architecture {pair.student!r}: {nearest(pair.student, known)}")
        for teacher_name in pair.teachers:
            if teacher_name not in study.teachers:
                hint = nearest(teacher_name, list(study.teachers))
                problems.append(f"pairs.{name}: unknown teacher {teacher_name!r}: {hint}")
    baseline = study.tables.baseline
    if baseline is not None and baseline not in study.methods:
        problems.append(f"tables.baseline: unknown method {baseline!r}: {nearest(baseline, list(study.methods))}")
    return problems


def _check_fetched(study: Study) -> list[str]:
    problems = []
    for name, teacher in study.teachers.items():
        source = source_of(teacher, study.data)
        if teacher.source == "fetch" and not source.urls:
            problems.append(
                f"teachers.{name}: source is 'fetch' but no urls are given, and the released teachers known here are "
                f"{', '.join(RELEASED)} for {RELEASED_FOR}, not {teacher.architecture} for {study.data.source}"
            )
        for url in teacher.urls:
            if not url or ("://" in url and not is_remote(url)):
                problems.append(f"teachers.{name}.urls: {url!r} is neither an http(s) address nor a path")
        if teacher.member and (teacher.member.startswith("/") or ".." in teacher.member.split("/")):
            problems.append(f"teachers.{name}.member: {teacher.member!r} leads out of the archive")
    return problems


def _check_methods(study: Study) -> list[str]:
    from distillery.objectives.build import Loss, Problems  # imports torch

    problems = []
    for name, method in study.methods.items():
        for pair in method.pairs:
            if pair not in study.pairs:
                problems.append(f"methods.{name}.pairs: unknown pair {pair!r}: {nearest(pair, list(study.pairs))}")
        for pair in [p for p in method.pairs if p in study.pairs] or [""]:
            try:
                Loss(method.for_pair(pair))
            except Problems as found:
                problems += [f"methods.{name}: {p}" for p in found.sentences]
    return problems


def _check_recipes(study: Study) -> list[str]:
    problems = []
    overrides = {f"teachers.{n}.recipe": t.recipe for n, t in study.teachers.items()}
    overrides |= {f"pairs.{n}.recipe": p.recipe for n, p in study.pairs.items()}
    overrides |= {f"methods.{n}.recipe": m.recipe for n, m in study.methods.items()}
    overrides |= {
        f"methods.{n}.pairs.{p}.recipe": m.for_pair(p).recipe for n, m in study.methods.items() for p in m.pairs
    }
    for where, override in overrides.items():
        unknown = [key for key in override if key not in Recipe.model_fields]
        problems += [f"{where}: unknown key {k!r}: {nearest(k, list(Recipe.model_fields))}" for k in unknown]
        try:
            study.recipe.updated({k: v for k, v in override.items() if k not in unknown})
        except ValidationError as error:
            problems += [f"{where}.{_explain(e)}" for e in error.errors()]
    return problems


def _check_seeds(study: Study) -> list[str]:
    try:
        seeds = [seed for block in study.seeds for seed in expand_seeds(block)]
    except DistilleryError as error:
        return [str(error)]
    twice = sorted({s for s in seeds if seeds.count(s) > 1})
    return [f"seeds: {', '.join(map(str, twice))} given twice"] if twice else []
