"""`distillery record`: the hand-over from Snakemake, which makes, to DVC, which keeps.

`dvc commit --force` signs whatever lies there. So it does not run before the judge has found every output current, by
content; and what it signed is compared with what was found.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from distillery.errors.words import some
from distillery.pipeline.current import Judge, Verdict
from distillery.pipeline.engines import Busy, dvc, safe_links
from distillery.pipeline.fingerprint import own_files
from distillery.pipeline.internals import LOCKS, members
from distillery.pipeline.job import Job, Plan
from distillery.pipeline.planner import current
from distillery.pipeline.users_files import own_code
from distillery.records.io import DistilleryError, StaleInput, atomic_path, md5_file, revision
from distillery.study.model import Study
from distillery.study.reader import read_params

PARAMS, LOCK = Path("params.yaml"), Path("dvc.lock")


def record() -> None:
    """Record every output of the study in dvc.lock and the DVC cache, if all are current.

    Raises:
        StaleInput: one sentence about what is not current. dvc.lock is then what it was before.
        DistilleryError: if DVC cannot work here (no repository, a lock, links into the cache, ...).
    """
    began = time.monotonic()
    study, plan = _prepared()
    found = _current(plan)
    _set_aside(plan)
    with _undone_on_failure(LOCK):
        dvc("commit", "--force", "--no-relink")
        _idle()
        if current(PARAMS)[1].specs() != plan.specs():
            raise StaleInput(f"{PARAMS} or the source code changed meanwhile: undo that, or run Snakemake, then repeat")
        _signed(found)
    heavy = sum(path.stat().st_size for path in found if path.parts[0] == "artifacts")
    print(
        f"recorded {len(plan)} stages with {len(found)} files in {LOCK}, {heavy / 1e6:,.1f} MB of them in the DVC "
        f"cache ({time.monotonic() - began:.0f} s)"
    )
    if revision(Path()).endswith("-dirty"):
        print("note: the code differs from the last commit; commit it together with what it made")
    print(f'next: git add {to_commit(study, plan)} && git commit -m "{study.study}: results"; dvc push')


def to_commit(study: Study, plan: Plan) -> str:
    """What belongs to the commit of a study, for a shell: own code too, or DVC's experiments and clones lack it.

    With what own code imports and the files that it names; a package as a whole.
    """
    named = {path.resolve() for path in own_code(study)}
    read = {path.resolve() for job in plan for path in own_files(job.stage, job.values)}
    own = named | {path for path in read if named.isdisjoint(path.parents)}
    here = [str(path.relative_to(Path.cwd())) for path in own if path.is_relative_to(Path.cwd())]
    return shlex.join([str(PARAMS), str(LOCK), "results", *sorted(here)])


def _prepared() -> tuple[Study, Plan]:
    """Read the study and make sure that DVC can work here, and that no engine does so now."""
    said = read_params(PARAMS)  # first: where no study is, git is not what is missing
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
    study, plan = current(PARAMS, write=True)
    if not isinstance(seeds := said["seeds"], list):
        raise DistilleryError(f'seeds is not a list, which dvc.yaml needs: write `seeds: ["{seeds}"]` in {PARAMS}')
    used = {teacher for pair in study.pairs.values() for teacher in pair.teachers}
    if unused := [t for t in study.teachers if t not in used]:
        raise DistilleryError(
            f"teachers.{unused[0]} is used by no pair, so Snakemake does not make it, but dvc.yaml lists it: "
            f"take it out of {PARAMS}, then record"
        )
    safe_links()
    _idle()
    return study, plan


def _idle() -> None:
    if any(LOCKS.glob("*")):
        raise DistilleryError(
            "Snakemake is running here, or was killed here: wait until it has finished the study; if no Snakemake "
            "runs, remove its lock with `snakemake --unlock --cores 1`"
        )


def _current(plan: Plan) -> dict[Path, str]:
    """Return the MD5 sum of every output, if all are current. Raises StaleInput, DistilleryError for a link."""
    files = [file for job in plan for output in job.outputs.values() for file in _files(output)]
    if (size := sum(path.stat().st_size for path in files)) > 1e9:
        print(f"reading {size / 1e9:.1f} GB in {len(files)} files ...", flush=True)
    judge = Judge(plan, thorough=True)
    stale: list[tuple[Job, Verdict]] = [(job, found) for job in plan if not (found := judge.verdict(job)).current]
    if stale:
        job, verdict = stale[0]
        named = some([job.name for job, _ in stale], 4)
        raise StaleInput(
            f"{job.record} is not current: {verdict.why}; run Snakemake again (due: {named}; `snakemake -n` lists all)"
        )
    held = {path for job in plan for path in judge.held(job)}
    if strange := [path for path in files if path not in held]:
        raise StaleInput(f"{strange[0]} is described by no record: delete it, then record again")
    return {path: md5_file(path) for path in files}


def _set_aside(plan: Plan) -> None:
    """Move what is of no job any more (other seeds, a teacher taken out) from where DVC has a job read whole folders.

    DVC would sign it as read, and a clone, which lacks it, find that job due.
    """
    at, made = plan.layout, {path for job in plan for path in job.outputs.values()}
    left = [path for folder in at.wholes for path in members(folder) if path not in made and path.name[0] != "."]
    for path in left:
        at.earlier(path).parent.mkdir(parents=True, exist_ok=True)
        path.replace(at.earlier(path))
    if left:
        print(f"{len(left)} files of jobs that the study does not have any more are now in {at.earlier(at.artifacts)}")


def _files(output: Path) -> list[Path]:
    """Return the file, or the files in the folder, or nothing; refuse a link."""
    if output.is_dir():
        return members(output)
    if not output.exists():
        return []
    if output.is_symlink() or output.lstat().st_nlink > 1:
        raise DistilleryError(
            f"{output} is a link, so whatever rewrites it would rewrite the file behind it (in the DVC cache?): "
            f"make files of such links with `dvc unprotect {Path(*output.parts[:2])}`"
        )
    return [output]


def _signed(found: dict[Path, str]) -> None:
    """Refuse if dvc.lock now holds other contents than those that were found current."""
    # The C loader takes a tenth of the time of DVC's own; this one leaves all scalars text, as hashes and paths are.
    stages = yaml.load(LOCK.read_bytes(), getattr(yaml, "CBaseLoader", yaml.BaseLoader))["stages"]
    signed = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
    for path, md5 in found.items():
        if signed.get(str(path), md5) != md5:
            raise StaleInput(f"{path} changed while it was being recorded: run `distillery record` again")
        if str(path) not in signed and not any(str(folder) in signed for folder in path.parents):
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
