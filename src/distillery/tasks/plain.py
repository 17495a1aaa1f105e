"""Parts for tasks that have none of their own: nothing is kept of a teacher, and nothing is rehearsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.pipeline.work import Work
from distillery.records import io as artifacts

if TYPE_CHECKING:
    from distillery.study.model import Study


def keep_nothing(work: Work) -> None:
    """Part "cache": an empty table, and a record that says why."""
    with work.making():
        with artifacts.atomic_path(work.job.outputs["table"]) as temporary:
            temporary.write_bytes(b"")
        live = f"the task {work.job.values['task']['name']} keeps nothing of a teacher"
        work.write(teacher_sha256=work.sha256("weights"), bytes=0, live=live)


def rehearse_nothing(study: Study, images: bool) -> list[str]:
    """Part "rehearsal": what does not fit is found where it is trained."""
    return []
