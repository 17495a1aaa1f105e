"""Stage `data`: the source's canonical arrays and their record."""

from __future__ import annotations

from distillery.data import open_source, prepare
from distillery.pipeline.work import Work
from distillery.records import named
from distillery.records.io import StaleInput


def run(work: Work) -> None:
    values, options = work.job.values, work.settings["data"]
    with work.making():
        facts = prepare(values["source"], options, work.job.outputs["arrays"], work.job.outputs["blob"])
        files = open_source(values["source"], options).files()
        if named.content(files, work.job.layout.named_note) != values["files"]:
            for name in ("arrays", "blob"):
                work.job.outputs[name].unlink()
            raise StaleInput(f"data: the files in {', '.join(map(str, files))} changed since: start the engine again")
        work.write(**facts)
