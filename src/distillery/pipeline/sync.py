"""`distillery record` and `distillery adopt`: the hand-over between Snakemake, which makes, and DVC, which keeps.

`dvc commit --force` signs whatever lies there as made by the present parameters and code, and `snakemake --touch`
believes it. So neither runs before everything was found current, by the other engine and by our own records.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from distillery.pipeline.engines import Busy, dvc, safe_links, snakemake
from distillery.pipeline.jobs import list_tasks
from distillery.records import gate
from distillery.records.io import DistilleryError, StaleInput, atomic_path, revision
from distillery.study.model import Study
from distillery.study.reader import read_params

PARAMS, LOCK = Path("params.yaml"), Path("dvc.lock")


def record() -> None:
    """Record every output of the study in dvc.lock and the DVC cache, if all are current.

    Raises:
        StaleInput: one sentence about what is not current. dvc.lock is then what it was before.
        DistilleryError: if the two engines cannot work here (no repository, a lock, links into the cache, ...).
    """
    began, study = time.monotonic(), _prepared()
    used = {teacher for pair in study.pairs.values() for teacher in pair.teachers}
    if unused := [t for t in study.teachers if t not in used]:
        raise DistilleryError(
            f"teachers.{unused[0]} is used by no pair, so Snakemake does not make it, but dvc.yaml lists it: "
            f"take it out of {PARAMS}, then record"
        )
    before = _declared(study)
    _nothing_due(study)
    found = gate.current(study, PARAMS)
    with _undone_on_failure(LOCK):
        dvc("commit", "--force", "--no-relink")  # relinking makes files anew, and Snakemake takes them for changed
        _idle()
        _same(before, study)
        _signed(found)
    heavy = sum(content.size for path, content in found.items() if path.startswith("artifacts/"))
    print(
        f"recorded {len(list_tasks(study))} stages with {len(found)} files in {LOCK}, {heavy / 1e6:,.1f} MB of them in "
        f"the DVC cache ({time.monotonic() - began:.0f} s)"
    )
    if revision(Path()).endswith("-dirty"):
        print("note: the code differs from the last commit; commit it together with what it made")
    print(f'next: git add {PARAMS} {LOCK} results && git commit -m "{study.study}: results"; dvc push')


def adopt() -> None:
    """Make Snakemake accept what DVC brought or made, if DVC and the records find it current.

    Raises:
        StaleInput: one sentence about what is not current.
        DistilleryError: if the two engines cannot work here.
    """
    began, study = time.monotonic(), _prepared()
    before = _declared(study)
    _as_recorded()
    found = gate.current(study, PARAMS)
    snakemake("--touch", "--forceall", "--cores", "1")
    _same(before, study)
    _nothing_due(study)
    print(
        f"Snakemake accepts {len(list_tasks(study))} jobs with {len(found)} files and finds nothing to do "
        f"({time.monotonic() - began:.0f} s)"
    )
    print("next: distillery show")


def _prepared() -> Study:
    """Read the study and make sure that both engines can work here, and that none does so now."""
    study = Study.load(PARAMS)
    _expressible(read_params(PARAMS))
    for pair, spec in study.pairs.items():
        if not isinstance(spec.teacher, str):
            raise DistilleryError(
                f"pairs.{pair} has a list of teachers, which dvc.yaml cannot express: such a study runs with Snakemake "
                "only and cannot be recorded; keep a copy of its artifacts and results"
            )
    if not any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        raise DistilleryError(
            f"this folder is in no git repository, and {LOCK} belongs to a commit: clone the repository instead of "
            "copying it, or run `git init` and commit"
        )
    if not Path(".dvc").is_dir():
        raise DistilleryError("there is no .dvc folder here: go to the repository root, or run `dvc init`")
    if Path("artifacts").is_symlink():
        raise DistilleryError(
            "artifacts is a link, which DVC does not follow out of the repository: move the files back here, and the "
            "whole clone to a larger file system if need be"
        )
    safe_links()
    _idle()
    return study


def _idle() -> None:
    if any(Path(".snakemake/locks").glob("*")):
        raise DistilleryError(
            "Snakemake is running here, or was killed here: wait until it has finished the study; if no Snakemake "
            "runs, remove its lock with `snakemake --unlock --cores 1`"
        )


def _declared(study: Study) -> tuple[bytes, str]:
    """What the outputs should be made from, as it is now."""
    return PARAMS.read_bytes(), gate.code_state(study)


def _same(before: tuple[bytes, str], study: Study) -> None:
    """Refuse if parameters or code changed meanwhile: then an engine may have written down the wrong ones."""
    if before != _declared(study):
        raise StaleInput(
            f"{PARAMS} or the source code changed meanwhile: undo that, or run Snakemake, then repeat this"
        )


def _nothing_due(study: Study) -> None:
    """Refuse if Snakemake would make anything again."""
    rows = list(csv.DictReader(snakemake("--detailed-summary").splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    wanted = {str(path) for task in list_tasks(study) for path in task.outputs}
    if unknown := sorted(wanted - {row["output_file"] for row in rows}):
        raise DistilleryError(f"Snakemake does not plan {unknown[0]}: Snakefile and layout.py do not fit together")
    due = [row for row in rows if row["status"] != "ok" or row["plan"] != "no update"]
    if not due:
        return
    if LOCK.exists() and not _differences():
        raise StaleInput(f"{LOCK} describes what lies here, only Snakemake does not know: run `distillery adopt`")
    first = next((row for row in reversed(due) if row["status"] != "ok"), due[-1])
    why = "due" if first["status"] == "ok" else first["status"]
    more = ", ..." if len(due) > 1 else ""
    raise StaleInput(
        f"not current: {len(due)} of {len(rows)} outputs ({first['output_file']}: {why}{more}); run Snakemake again "
        "(`snakemake -n` lists what is due and why)"
    )


def _differences() -> dict[str, Any]:
    """What `dvc status` reports: stage -> list of changes; {} if everything is what dvc.lock says."""
    return json.loads(dvc("status", "--json"))


def _as_recorded() -> None:
    """Refuse if what lies here is not what dvc.lock describes."""
    if not LOCK.exists():
        raise DistilleryError(
            f"there is no {LOCK} here, so nothing was recorded yet: run the study, then `distillery record`"
        )
    if stages := _differences():
        stage, changes = next(iter(stages.items()))
        more = ", ..." if len(stages) > 1 else ""
        raise StaleInput(
            f"not what {LOCK} says: {len(stages)} stages ({stage}: {_explain(changes[0])}{more}); get the recorded "
            "files with `dvc pull`, or make new ones with `dvc repro`, or undo the edit"
        )


def _expressible(params: dict[str, Any]) -> None:
    """Refuse short forms that the study may have, but that dvc.yaml cannot read."""
    if not isinstance(seeds := params["seeds"], list):
        raise DistilleryError(f'seeds is not a list, which dvc.yaml needs: write `seeds: ["{seeds}"]` in {PARAMS}')
    for section in ("recipe", "cache", "tables"):
        if section not in params:
            raise DistilleryError(f"{section} is left out, which dvc.yaml needs: write `{section}: {{}}` in {PARAMS}")


def _explain(change: Any) -> str:
    """Put a change as DVC reports it into words: {"changed outs": {path: "modified"}}, or a plain string."""
    if not isinstance(change, dict):
        return str(change)
    _, items = next(iter(change.items()))
    path, state = next(iter(items.items()))
    return f"{path} {state if isinstance(state, str) else ', '.join(f'{k} {v}' for k, v in state.items())}"


def _signed(found: dict[str, gate.Content]) -> None:
    """Refuse if dvc.lock now holds other contents than those that were found current."""
    # The C loader takes a tenth of the time of DVC's own; this one leaves all scalars text, as hashes and paths are.
    stages = yaml.load(LOCK.read_bytes(), getattr(yaml, "CBaseLoader", yaml.BaseLoader))["stages"]
    signed = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    for path, content in found.items():
        if signed.get(path, content.md5) != content.md5:
            raise StaleInput(f"{path} changed while it was being recorded: run `distillery record` again")
        if path not in signed and not any(str(folder) in signed for folder in Path(path).parents):
            raise DistilleryError(f"dvc.yaml does not list {path}: it and layout.py do not fit together")


@contextmanager
def _undone_on_failure(path: Path) -> Iterator[None]:
    """After a failure the file is what it was before, unless another process may have written it."""
    before = path.read_bytes() if path.exists() else None
    try:
        yield
    except Busy:
        raise
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            with atomic_path(path) as temporary:
                temporary.write_bytes(before)
        raise
