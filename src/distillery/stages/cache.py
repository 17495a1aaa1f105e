"""Stage `cache`: what a task keeps of one teacher, so that students need not ask it again."""

from __future__ import annotations

from distillery.pipeline.work import Work
from distillery.task import task_of


def run(work: Work) -> None:
    task_of(work.job.values["task"]).part("cache")(work)
