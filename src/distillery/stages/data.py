"""Stage `data`: the source's canonical arrays and their record."""

from __future__ import annotations

from distillery.data import prepare
from distillery.pipeline.work import Work


def run(work: Work) -> None:
    with work.making():
        facts = prepare(work.job.values["source"], work.settings["data"], work.job.outputs["arrays"])
        work.write(**facts)
