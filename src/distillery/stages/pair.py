"""Stage `pair`: the hashes of the teachers and view tables that a pair uses, and what is known about these teachers.

DVC cannot look a pair's teachers up while it lays out its stages. Runs depend on small files instead: on the
hashes, which change exactly when the pair's own teachers do; and their evaluation also on the teachers' histories.
"""

from __future__ import annotations

from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.teachers.verified import describe, known_of


def run(work: Work) -> None:
    with work.making():
        reads = work.job.reads
        facts = {
            name: describe(name, reads[f"weights of {name}"], reads[f"view table of {name}"])
            for name in work.job.values["teachers"]
        }
        artifacts.write_json(work.job.outputs["pair"], {"teachers": facts})
        known = {
            name: known_of(reads[f"record of {name}"], reads[f"history of {name}"], facts[name]["weights"])
            for name in facts
        }
        artifacts.write_json(work.job.outputs["teachers"], known)
        work.write()
