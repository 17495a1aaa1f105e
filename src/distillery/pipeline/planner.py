"""From a study to its plan: what every job is made from, resolved. A function of params.yaml, code and named files.

Effective values only: a default written out, `2e-2` for `0.02`, a label or a budget change no spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillery.data import open_source
from distillery.data.arrays import Source
from distillery.objectives.basis import basis_of
from distillery.pipeline.check import check, rehearse
from distillery.pipeline.fingerprint import (
    fingerprint,
    installed,
    loss_components,
    own_files,
    tree_state,
    version,
)
from distillery.pipeline.job import STAGES, Job, Plan
from distillery.pipeline.layout import Layout
from distillery.pipeline.users_files import content, local_files, named_files, student_file
from distillery.records import named
from distillery.records.io import DistilleryError, read_json, sha256_json, write_json
from distillery.study.model import Study, expand_seeds
from distillery.study.reader import read_params
from distillery.task import task_of
from distillery.teachers.released import source_of

PARAMS = Path("params.yaml")


def current(params: Path = PARAMS, write: bool = False) -> tuple[Study, Plan]:
    """Return the study as params.yaml has it now and its plan; `write` puts the specs in place for engines and stages.

    Who only looks is not refused because own images are gone or were rearranged: what was made from them is there.

    The plan is read back if just this one was written for these parameters, in this order, by this code and for these
    files: resolving it imports torch. DVC restores specs too, of whatever commit.
    """
    content = read_params(params)
    study = check(content, str(params))
    files = named_files(study)
    note, tree = Layout(study.study).plan, tree_state()
    key = sha256_json([json.dumps(content), tree, named.listing(files)])
    with suppress(DistilleryError):  # not there, damaged, of another version: made anew
        noted = read_json(note)
        own = noted.get("own") or {}
        if noted.get("key") == key and own == _own_state(own.get("files", ()), own.get("packages", ())):
            found = Plan.read(study.study)
            if found.specs() == noted.get("specs"):
                return study, found

    rehearse(study, str(params), images=write)
    plan = resolve(study)
    if write:
        plan.write()
        files_of_code = {str(file) for job in plan for file in own_files(job.stage, job.values)}
        packages = {name for job in plan for name in installed(job.stage, job.values)}
        own = _own_state(files_of_code, packages)
        write_json(note, {"key": key, "specs": plan.specs(), "tree": tree, "own": own})
    return study, plan


def _own_state(files: Iterable[str], packages: Iterable[str]) -> dict[str, Any]:
    """How what fingerprints are made of besides this package is now: the user's files, and installed packages."""
    return {
        "files": {file: named.listing([Path(file)]) for file in sorted(files)},
        "packages": {package: version(package) for package in sorted(packages)},
    }


def resolve(study: Study) -> Plan:
    """Make the plan of a checked study."""
    at, source = Layout(study.study), open_source(study.data.source, study.data.options)
    jobs = [_data(study, source, at)]
    for name in dict.fromkeys(t for pair in study.pairs.values() for t in pair.teachers):
        jobs += [_teacher(study, name, at), _cache(study, source, name, at)]
    jobs += [_pair(study, name, at) for name in study.pairs]
    for name in study.pairs:
        jobs += _students(study, source, name, at)
    jobs.append(_tables(study, [job for job in jobs if job.stage == "evaluate"], at))
    jobs.sort(key=lambda job: list(STAGES).index(job.stage))
    return Plan(jobs, _settings(study))


def _job(study: Study, stage: str, keys: tuple[str, ...], values: dict[str, Any], **more: Any) -> Job:
    return Job(study.study, stage, keys, values, fingerprint(stage, values), **more)


def _data(study: Study, source: Source, at: Layout) -> Job:
    files = named.absent(source.files()) or content(source.files(), at)
    values = {"source": study.data.source, "selection": source.selection(), "files": files}
    return _job(study, "data", (), values, reads={}, outputs={"record": at.data, "arrays": at.arrays, "blob": at.blob})


def _teacher(study: Study, name: str, at: Layout) -> Job:
    values = _task(study) | _taught(study, name, at)
    outputs = {"weights": at.teacher(name), "history": at.teacher_history(name), "record": at.teacher_record(name)}
    return _job(study, "teacher", (name,), values, reads={"arrays": at.arrays}, outputs=outputs)


def _cache(study: Study, source: Source, name: str, at: Layout) -> Job:
    values = _task(study) | {"architecture": study.teachers[name].architecture, "augmentation": _augmentation(study)}
    values |= study.cache.model_dump(include={"enabled", "dtype", "pooled", "precision"})
    doubles = [study.recipe_for(p, m).precision == "float64" for p in study.pairs for m in study.methods]
    if source.streamed:
        values["epochs"] = study.recipe.epochs  # of which a replay table holds the views
    if any(doubles) if source.streamed else all(doubles):  # a replay table is of their type, a view table of no use
        values["students_in"] = "float64"
    outputs = {"table": at.view_table(name), "record": at.view_table_record(name)}
    reads = {"arrays": at.arrays, "weights": at.teacher(name)}
    return _job(study, "cache", (name,), values, reads=reads, outputs=outputs)


def _pair(study: Study, name: str, at: Layout) -> Job:
    teachers = study.pairs[name].teachers
    reads = {f"weights of {t}": at.teacher(t) for t in teachers}
    reads |= {f"record of {t}": at.teacher_record(t) for t in teachers}
    reads |= {f"history of {t}": at.teacher_history(t) for t in teachers}
    reads |= {f"view table of {t}": at.view_table_record(t) for t in teachers}
    outputs = {"pair": at.pair(name), "teachers": at.pair_teachers(name), "record": at.pair_record(name)}
    return _job(study, "pair", (name,), {"teachers": list(teachers)}, reads=reads, outputs=outputs)


def _students(study: Study, source: Source, name: str, at: Layout) -> Iterator[Job]:
    """The jobs that train and evaluate the students of a pair, two for each method and block of seeds."""
    from distillery.objectives.build import Loss  # torch

    pair = study.pairs[name]
    teachers = {
        t: {
            "architecture": study.teachers[t].architecture,
            "weights": str(at.teacher(t)),
            "table": str(at.view_table(t)),
        }
        for t in pair.teachers
    }
    cached = {"augmentation": _augmentation(study)} | study.cache.model_dump(include={"pooled", "precision"})
    if source.streamed:
        cached["dtype"] = study.cache.dtype
    beside = {"cached": cached} | study.data.hidden | _start(study, pair.student, at)
    for m in study.methods:
        method = study.methods[m].for_pair(name)
        trained = {
            **_task(study),
            "student": pair.student,
            "teachers": teachers,
            "objective": {"objective": method.objective} | Loss(method).effective(),
            "recipe": study.recipe_for(name, m).effective(),
        }
        for cell in ((name, m, str(block)) for block in study.seeds):
            seeds, reads = expand_seeds(cell[2]), {"arrays": at.arrays, "pair": at.pair(name)}
            made = {"weights": at.students(*cell), "history": at.history(*cell), "record": at.run_record(*cell)}
            yield _job(study, "distill", cell, trained | beside, reads=reads, outputs=made, seeds=seeds)
            reads = reads | {"teachers": at.pair_teachers(name)} | made
            made = {"record": at.metrics(*cell), "predictions": at.predictions(*cell)}
            yield _job(study, "evaluate", cell, trained, reads=reads, outputs=made, seeds=seeds)


def _tables(study: Study, evaluated: list[Job], at: Layout) -> Job:
    results = at.result_files()
    outputs = {"record": results.pop("table"), **results, "figures": at.figures}
    reads = {f"{job.name} {key}": path for job in evaluated for key, path in job.outputs.items()}
    kept = {"kept": content([at.kept], at)} if at.kept.exists() else {}
    return _job(study, "tables", (), _shown(study) | kept, reads=reads, outputs=outputs)


def _task(study: Study) -> dict[str, Any]:
    """What all jobs that compute are told."""
    return {"task": task_of(study.task).values()} | study.portable


def _augmentation(study: Study) -> Any:
    """The study's own augmentation, of which view tables are: pairs and methods may have others."""
    return study.recipe.effective()["augmentation"]


def _taught(study: Study, name: str, at: Layout) -> dict[str, Any]:
    """What a teacher's weights are made from."""
    teacher = study.teachers[name]
    values: dict[str, Any] = {"architecture": teacher.architecture, "source": teacher.source, "seed": teacher.seed}
    if teacher.source == "student":
        return values | {"file": content(local_files(teacher), at)}
    # How often it is tested while it trains changes no weight.
    values["recipe"] = study.recipe_for_teacher(name).effective()
    del values["recipe"]["test_every"]
    values |= study.data.hidden | _start(study, teacher.architecture, at)
    if teacher.source == "fetch":
        origin = source_of(teacher, study.data)
        values |= {"member": origin.member, "sha256": origin.sha256, "accuracy": origin.accuracy}
        values |= {"urls": list(origin.urls), "fallback": teacher.fallback, "files": content(local_files(teacher), at)}
        if origin.preprocessing:
            values["preprocessing"] = origin.preprocessing.model_dump(mode="json", exclude_none=True)
        if origin.config:
            values["config"] = origin.config
        if teacher.classes != "data":
            values["classes"] = teacher.classes
        if origin.whole:
            values["whole"] = origin.whole
        if origin.licence:
            values["licence"] = origin.licence
    return values


def _start(study: Study, architecture: str, at: Layout) -> dict[str, Any]:
    """What the spec of a job that trains says of the user's own files that its task has it begin from."""
    files = task_of(study.task).files(architecture)
    return {"start": content(files, at)} if files else {}


def _shown(study: Study) -> dict[str, Any]:
    """The study as the tables show it: with labels, but without what changes nothing in them."""
    from distillery.objectives.build import Loss

    shown = study.model_dump(
        mode="json", exclude={"cache": {"budget_gb", "batch_size"}, "at_once": True, "instructions": True}
    )
    shown |= study.portable
    shown["recipe"] = study.recipe.effective()
    for teacher in shown["teachers"].values():
        teacher["recipe"].pop("test_every", None)
    for name, method in study.methods.items():
        said = {key: shown["methods"][name][key] for key in ("objective", "label", "recipe", "pairs")}
        shown["methods"][name] = said | Loss(method).effective()
    own = {c.name: c for method in shown["methods"].values() for c in loss_components(method) if c.placed}
    if own:
        shown["basis"] = {name: basis_of(component, component.load()) for name, component in sorted(own.items())}
    return shown


def _settings(study: Study) -> dict[str, Any]:
    return {
        "data": study.data.options,
        "cache": study.cache.model_dump(include={"budget_gb", "batch_size"}),
        "at_once": study.at_once,
        "test_every": {name: study.recipe_for_teacher(name).test_every for name in study.teachers},
        "students": {name: str(student_file(t)) for name, t in study.teachers.items() if t.source == "student"},
    }
