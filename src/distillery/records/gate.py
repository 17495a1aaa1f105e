"""Is every output of the study current? Asked before anything is signed, of our own records and by content.

Snakemake compares dates, parameters and recorded checksums of inputs. It cannot see a final table edited by hand, nor
what `snakemake --touch` made it believe. The records can: each holds the parameters, the source code and the content of
every input that its outputs were made from, and every output is held by the record of whoever read it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distillery.pipeline.jobs import WILDCARDS, Task, list_tasks
from distillery.pipeline.layout import Layout, code_files
from distillery.records.current import Current, read_record
from distillery.records.io import DistilleryError, StaleInput, read_json, sha256_tree
from distillery.records.seal import members, seal
from distillery.study.model import Study, read_params

_CHUNK = 1 << 20
_NAMED = 4  # stale outputs that a sentence names


@dataclass(frozen=True)
class Content:
    """A file's hashes (of our records, of DVC) and its size in bytes."""

    sha256: str
    md5: str
    size: int


def current(study: Study, params: Path) -> dict[str, Content]:
    """Return the content of every output of the study, if all of it was made from what lies here now.

    Raises:
        StaleInput: if an output is missing, was made by other parameters, source code or inputs, or was changed after
            it was made; the sentence names the first ones and says what to do.
        DistilleryError: if an output is a link (into the cache, most likely), or a record cannot be read.
    """
    tasks = list_tasks(study)
    figures = Layout(study.study).figures
    outputs = [*(path for task in tasks for path in task.outputs), figures]
    found = _contents(sorted({file for output in outputs for file in _files(output)}))
    stale: dict[str, str] = {}
    for path, why in _stale(Current(study, read_params(params)), tasks, found):
        stale.setdefault(str(figures) if figures in Path(path).parents else path, why)  # Snakemake makes all or none
    if stale:
        first, why = next(iter(stale.items()))
        more = f" and {len(stale) - _NAMED} more like them" if len(stale) > _NAMED else ""
        named = ", ".join(list(stale)[:_NAMED]) + more
        raise StaleInput(f"{first} is not current: {why}; delete what is not ({named}), then run Snakemake again")
    return found


def code_state(study: Study) -> str:
    """Hash of all source files that any stage depends on."""
    return sha256_tree({Path(file) for stage in WILDCARDS for file in code_files(stage)})


def _files(output: Path) -> list[Path]:
    """Return the file, or the files in the folder; refuse what is missing or a link."""
    if output.is_dir():
        return members(output)
    try:
        facts = output.lstat()
    except FileNotFoundError:
        raise StaleInput(
            f"{output} is missing: run Snakemake to finish the study (`snakemake -n` lists what is due)"
        ) from None
    if output.is_symlink() or facts.st_nlink > 1:
        raise DistilleryError(
            f"{output} is a link, so whatever rewrites it would rewrite the file behind it (in the DVC cache?): "
            f"make files of such links with `dvc unprotect {Path(*output.parts[:2])}`"
        )
    return [output]


def _contents(files: list[Path]) -> dict[str, Content]:
    """Hash all files, a few at a time; gigabytes are announced, because they take a while."""
    if (size := sum(p.stat().st_size for p in files)) > 1e9:
        print(f"reading {size / 1e9:.1f} GB in {len(files)} files ...", flush=True)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(map(str, files), pool.map(_content, files), strict=True))


def _content(path: Path) -> Content:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return Content(sha256.hexdigest(), md5.hexdigest(), size)


def _stale(now: Current, tasks: list[Task], found: dict[str, Content]) -> Iterator[tuple[str, str]]:
    """Yield (output, what is wrong with it), in the order of the pipeline."""
    sound = True
    held = {str(tasks[-1].record)}
    for task in tasks:
        if fault := now.fault(task):
            sound = False
            yield str(task.record), fault
            continue
        for path, sha256 in _held(task).items():
            held.add(path)
            if path not in found or found[path].sha256 != sha256:
                yield path, f"it is not the file that {task.record} describes"
    document = read_json(tasks[-1].record)
    if document.get("sha256") != seal(document):
        yield str(tasks[-1].record), "it was changed after it was made"
    for path in sorted(found.keys() - held) if sound else ():
        yield path, "no record describes it"


def _held(task: Task) -> dict[str, str]:
    """Path and hash of every output that this task's record vouches for: what it read, and what it wrote beside it."""
    held = dict(read_record(task.record)["inputs"])
    if task.stage in ("teacher", "cache"):
        document = read_json(task.record)
        empty = hashlib.sha256().hexdigest()  # a table over the budget is not built
        held[str(task.outputs[0])] = empty if "live" in document else document["sha256"]
    if task.stage == "tables":
        held |= read_json(task.record).get("files", {})
    return held
