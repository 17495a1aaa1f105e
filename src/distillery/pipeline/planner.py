"""From a study to its plan: what every job is made from, resolved. A function of params.yaml, code and named files.

Effective values only: a default written out, `2e-2` for `0.02`, a label or a budget change no spec.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillery.data import SOURCES, open_source
from distillery.models import NETWORKS
from distillery.objectives.basis import basis_of
from distillery.pipeline.check import check, rehearse
from distillery.pipeline.fingerprint import (
    fingerprint,
    installed,
    loss_components,
    own_files,
    own_source,
    tree_state,
    version,
)
from distillery.pipeline.job import STAGES, Job, Plan
from distillery.pipeline.layout import Layout
from distillery.recipe import recipe_components
from distillery.records import named
from distillery.records.io import DistilleryError, read_json, sha256_json, write_json
from distillery.study.model import Study, Teacher, expand_seeds
from distillery.study.reader import read_params
from distillery.task import TASKS, task_of
from distillery.teachers.released import is_remote, places, source_of

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


def named_files(study: Study) -> list[Path]:
    """Files and folders of the user's that some job reads: own data, own checkpoints, own code."""
    found = [*open_source(study.data.source, study.data.options).files()]
    for teacher in study.teachers.values():
        found += local_files(teacher)
    task = task_of(study.task)
    trained = {t.architecture for t in study.teachers.values()} | {pair.student for pair in study.pairs.values()}
    found += [file for architecture in sorted(trained) for file in task.files(architecture)]
    found += [kept] if (kept := Layout(study.study).kept).exists() else []
    return found + own_code(study)


def own_code(study: Study) -> list[Path]:
    """Files of code of the user's, and folders of packages, that params.yaml names."""
    task = task_of(study.task)
    components = [
        TASKS[task.name],
        *(task.component(part) for part in task.parts),
        SOURCES[study.data.source],
        *(NETWORKS[t.architecture] for t in study.teachers.values()),
    ]
    components += [NETWORKS[pair.student] for pair in study.pairs.values()]
    components += [c for method in study.methods.values() for c in loss_components(method.model_dump())]
    recipes = [study.recipe_for_teacher(t) for t in study.teachers]
    recipes += [study.recipe_for(p, m) for p in study.pairs for m in study.methods]
    components += [c for recipe in recipes for c in recipe_components(recipe.model_dump())]
    return [place for component in components if (place := own_source(component))]


def local_files(teacher: Teacher) -> list[Path]:
    """What a teacher is read from on this machine."""
    if teacher.source == "student":
        return [student_file(teacher)]
    return [Path(url).expanduser() for url in places(teacher) if not is_remote(url)]


def student_file(teacher: Teacher) -> Path:
    """The weights of a student of another study that serves as teacher: of the block that holds its seed.

    Blocks that its study had before may lie there still, of another recipe. The block that the study has now counts,
    even if it is yet to be trained; only where the study has none, or was not planned here, what is there must do.
    """
    assert teacher.study and teacher.pair and teacher.method  # check.py has seen to that
    at, cell = Layout(teacher.study), (teacher.pair, teacher.method)
    planned = [path.stem for path in at.spec("distill", *cell, "any").parent.glob("*.json")]
    there = [path.parent.name for path in at.runs(*cell).glob("*/students.safetensors")]
    held = (block for block in sorted(planned) + sorted(there) if teacher.seed in expand_seeds(block))
    return at.students(*cell, next(held, str(teacher.seed)))


def resolve(study: Study) -> Plan:
    """Make the plan of a checked study."""
    from distillery.objectives.build import Loss  # torch

    at, jobs = Layout(study.study), []
    augmentation = study.recipe.effective()["augmentation"]

    def add(stage: str, keys: tuple[str, ...], values: dict[str, Any], **more: Any) -> None:
        jobs.append(Job(study.study, stage, keys, values, fingerprint(stage, values), **more))

    source = open_source(study.data.source, study.data.options)
    files = named.absent(source.files()) or content(source.files(), at)
    task = {"task": task_of(study.task).values()} | study.portable
    values: dict[str, Any] = {"source": study.data.source, "selection": source.selection(), "files": files}
    arrays = {"arrays": at.arrays}
    add("data", (), values, reads={}, outputs={"record": at.data, **arrays, "blob": at.blob})
    for name in dict.fromkeys(t for pair in study.pairs.values() for t in pair.teachers):
        outputs = {"weights": at.teacher(name), "history": at.teacher_history(name), "record": at.teacher_record(name)}
        add("teacher", (name,), task | _teacher(study, name, at), reads=arrays, outputs=outputs)
        values = task | {"architecture": study.teachers[name].architecture, "augmentation": augmentation}
        values |= study.cache.model_dump(include={"enabled", "dtype", "pooled", "precision"})
        doubles = [study.recipe_for(p, m).precision == "float64" for p in study.pairs for m in study.methods]
        if source.streamed:
            values["epochs"] = study.recipe.epochs  # of which a replay table holds the views
        if any(doubles) if source.streamed else all(doubles):  # a replay table is of their type, a view table of no use
            values["students_in"] = "float64"
        outputs = {"table": at.view_table(name), "record": at.view_table_record(name)}
        add("cache", (name,), values, reads=arrays | {"weights": at.teacher(name)}, outputs=outputs)
    for name, pair in study.pairs.items():
        read = {f"weights of {t}": at.teacher(t) for t in pair.teachers}
        read |= {f"record of {t}": at.teacher_record(t) for t in pair.teachers}
        read |= {f"history of {t}": at.teacher_history(t) for t in pair.teachers}
        read |= {f"view table of {t}": at.view_table_record(t) for t in pair.teachers}
        outputs = {"pair": at.pair(name), "teachers": at.pair_teachers(name), "record": at.pair_record(name)}
        add("pair", (name,), {"teachers": list(pair.teachers)}, reads=read, outputs=outputs)
    for p, pair in study.pairs.items():
        teachers = {
            t: {
                "architecture": study.teachers[t].architecture,
                "weights": str(at.teacher(t)),
                "table": str(at.view_table(t)),
            }
            for t in pair.teachers
        }
        for m in study.methods:
            method = study.methods[m].for_pair(p)
            trained = {
                **task,
                "student": pair.student,
                "teachers": teachers,
                "objective": {"objective": method.objective} | Loss(method).effective(),
                "recipe": study.recipe_for(p, m).effective(),
            }
            cached = {
                "cached": {"augmentation": augmentation} | study.cache.model_dump(include={"pooled", "precision"})
            }
            if source.streamed:
                cached["cached"]["dtype"] = study.cache.dtype
            for cell in ((p, m, str(block)) for block in study.seeds):
                seeds, read = expand_seeds(cell[2]), arrays | {"pair": at.pair(p)}
                made = {"weights": at.students(*cell), "history": at.history(*cell), "record": at.run_record(*cell)}
                told = trained | cached | study.data.hidden | _start(study, pair.student, at)
                add("distill", cell, told, reads=read, outputs=made, seeds=seeds)
                read = read | {"teachers": at.pair_teachers(p)} | made
                made = {"record": at.metrics(*cell), "predictions": at.predictions(*cell)}
                add("evaluate", cell, trained, reads=read, outputs=made, seeds=seeds)
    results = at.result_files()
    outputs = {"record": results.pop("table"), **results, "figures": at.figures}
    read = {f"{j.name} {key}": path for j in jobs if j.stage == "evaluate" for key, path in j.outputs.items()}
    kept = {"kept": content([at.kept], at)} if at.kept.exists() else {}
    add("tables", (), _shown(study) | kept, reads=read, outputs=outputs)
    jobs.sort(key=lambda job: list(STAGES).index(job.stage))
    return Plan(jobs, _settings(study))


def _teacher(study: Study, name: str, at: Layout) -> dict[str, Any]:
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


def content(paths: list[Path], at: Layout) -> str | None:
    """Hash what lies at some paths."""
    return named.content(paths, at.named_note)
