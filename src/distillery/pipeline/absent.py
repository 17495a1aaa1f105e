"""Files that a study names and that are not here, so that a job would fail in its first minute: for `distillery check`.

Engines do not ask: what was made of a file stays current when the file is gone. No web address is contacted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distillery.data import open_source
from distillery.errors import DistilleryError
from distillery.pipeline.layout import Layout
from distillery.study.model import Study, Teacher
from distillery.teachers.released import is_remote, places, released


def refuse_absent(study: Study, where: str = "params.yaml") -> None:
    """Raise DistilleryError, one line for each key that leads nowhere, if some job would fail for it."""
    if problems := [*_data(study), *(said for said, fatal in _teachers(study) if fatal)]:
        raise DistilleryError("\n".join(f"{where}: {problem}" for problem in problems))


def notes(study: Study) -> Iterator[str]:
    """What is passed over, because another mirror or a training takes its place."""
    return (said for said, fatal in _teachers(study) if not fatal)


def _data(study: Study) -> Iterator[str]:
    if Layout(study.study).arrays.exists():
        return
    options = study.data.options
    for path in open_source(study.data.source, options).files():
        if not path.exists():
            keys = [
                key for key, value in options.items() if isinstance(value, str) and Path(value).expanduser() == path
            ]
            key = f"data.{keys[0]}" if keys else "data"
            yield f"{key}: there is no {path} here: correct the path, or put the data there"


def _teachers(study: Study) -> Iterator[tuple[str, bool]]:
    """What is wrong with the files of fetched teachers, and whether the teacher cannot be had without."""
    for name in dict.fromkeys(name for pair in study.pairs.values() for name in pair.teachers):
        teacher = study.teachers[name]
        lost = {url: why for url in places(teacher) if (why := _fault(url, teacher, study))}
        fatal = lost.keys() == {*places(teacher)} and teacher.fallback == "none"
        key = f"teachers.{name}.{'urls' if teacher.urls else 'weights'}"
        yield from ((f"{key}: {why}" + ("" if fatal else "; it is passed over"), fatal) for why in lost.values())


def _fault(url: str, teacher: Teacher, study: Study) -> str:
    """Why a place on this machine gives no checkpoint; "" if it may give one."""
    path = Path(url).expanduser()
    if is_remote(url) or path.is_file():
        return ""
    if not path.is_dir():
        return f"there is no {path} here: correct the path, or put the checkpoint there"
    member = teacher.member or released(teacher, study.data).member
    if member is None:
        return f"{path} is a folder: name the checkpoint in it as `member`"
    return "" if (path / member).is_file() else f"there is no {member} in {path}: correct `member`, or the path"
