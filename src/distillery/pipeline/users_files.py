"""The user's own files and code that a study names: data, checkpoints, components."""

from __future__ import annotations

from pathlib import Path

from distillery.data import SOURCES, open_source
from distillery.models import NETWORKS
from distillery.pipeline.fingerprint import loss_components, own_source
from distillery.pipeline.layout import Layout
from distillery.recipe import recipe_components
from distillery.records import named
from distillery.study.model import Study, Teacher, expand_seeds
from distillery.task import TASKS, task_of
from distillery.teachers.released import configuration, is_remote, places


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
    config = configuration(teacher)
    return [Path(url).expanduser() for url in places(teacher) if not is_remote(url)] + ([config] if config else [])


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


def content(paths: list[Path], at: Layout) -> str | None:
    """Hash what lies at some paths."""
    return named.content(paths, at.named_note)
