"""What is kept of a recommender: nothing. A student needs a few ranked lists, which are made from it in seconds."""

from __future__ import annotations

from distillery.pipeline.work import Work
from distillery.records import io as artifacts


def run(work: Work) -> None:
    output = work.job.outputs["table"]
    with work.making():
        with artifacts.atomic_path(output) as temporary:
            temporary.write_bytes(b"")
        work.write(teacher_sha256=work.sha256("weights"), bytes=0, live="a recommender is ranked where it is used")
