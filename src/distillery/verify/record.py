"""What somebody else's copy of a study says: a git or DVC revision, or a colleague's folder.

Two things are read of it, where they are there: the record of its tables (`results/STUDY/table.json`), and the hashes
of the artefacts (the records in `artifacts/STUDY`, or else `dvc.lock`). Of runs that git keeps, the arrays are read.
"""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from distillery.errors import DistilleryError
from distillery.pipeline.job import Plan
from distillery.pipeline.layout import Layout
from distillery.records.io import md5_file, sha256_file
from distillery.records.schema import KINDS, Record, ResultRecord, edited
from distillery.report.measures import COST

DECIDES_RESULTS = False
PATIENCE = 600.0  # seconds for one git command: a lost file server keeps it waiting for ever
HASHES: dict[str, Callable[[Path], str]] = {"sha256": sha256_file, "md5": md5_file}
Reader = Callable[[Path], bytes | None]  # the content of a file by its path within the study's folder; None: not there


@dataclass(frozen=True)
class Content:
    """What a file holds: its size in bytes and its hash, sha256 or md5."""

    size: int
    algorithm: str
    digest: str

    def is_in(self, path: Path) -> bool:
        """Whether a file here has this content."""
        here = path.exists() and path.stat().st_size == self.size
        return here and HASHES[self.algorithm](path) == self.digest


@dataclass(frozen=True)
class Recorded:
    """One copy of a study's results.

    Attributes:
        name: what to call it in a sentence.
        tables: the record of its tables.
        contents: of its artefacts, by path; empty if it has kept no hash of them.
        specs: what its jobs were told, where records say so.
        answers: hash of the predictions of each evaluation, of kept runs too, by path.
        runs: the lines of runs.csv.
    """

    name: str
    tables: ResultRecord
    contents: dict[str, Content] = field(default_factory=dict)
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    runs: tuple[dict[str, str], ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of device that its students were trained on."""
        return tuple(sorted({row["device"] for row in self.runs if row.get("device")}))

    def measured(self, pair: str, method: str, seeds: Iterable[int]) -> list[dict[str, str]]:
        """What runs.csv says was measured of some runs, without what they cost; {} where it has no such run."""
        rows = {int(row["seed"]): row for row in self.runs if (row["pair"], row["method"]) == (pair, method)}
        return [{key: value for key, value in rows.get(seed, {}).items() if key not in COST} for seed in seeds]


def recorded(where: str, plan: Plan) -> Recorded:
    """Read the copy of a study that lies in a folder, or in a git commit (also one that DVC made for an experiment).

    Raises DistilleryError if there is no such place, or no finished study of this name in it.
    """
    if Path(where).is_dir():
        return _read(where, _in_folder(Path(where)), plan)
    commit = _commit(where)
    return _read(f"{where} ({commit[:7]})", _in_commit(commit), plan)


def refuse_itself(where: str, plan: Plan) -> None:
    """Raise DistilleryError if nothing was measured here, and what git holds would be compared with itself."""
    layout = plan.layout
    if Path(where).is_dir() and Path(where).resolve() == Path.cwd():
        raise DistilleryError(f"{where} is this copy itself: name a git revision, or the folder of another copy")
    if layout.all_metrics.exists():
        return
    kept = sorted(path for path in layout.kept.rglob("*") if path.is_file())
    itself = f"nothing of {layout.study} was measured here, and git's tables would be compared with themselves"
    if not kept:
        raise DistilleryError(f"{itself}: run the study (`snakemake --cores all`), then verify")
    if not Path(where).is_dir():
        read = _in_commit(_commit(where))
        if all(read(path) == path.read_bytes() for path in kept):
            raise DistilleryError(
                f"{itself}, for {where} keeps the same runs: name a folder with another copy of the study, as in "
                "`distillery verify ../colleague`, or run the study"
            )


def here(plan: Plan) -> Recorded:
    """The copy in the current folder; of its artefacts the files themselves are looked at."""
    return _read("here", _in_folder(Path()), plan, hashes=False)


def _read(name: str, read: Reader, plan: Plan, hashes: bool = True) -> Recorded:
    layout = plan.layout
    files = layout.result_files()
    if (content := read(files["table"])) is None:
        told = "run it to the end (`snakemake --cores all`)" if name == "here" else "name another revision or a folder"
        raise DistilleryError(f"{name}: no finished study {layout.study!r} ({files['table']} is missing): {told}")
    tables = _record(content, ResultRecord, f"{name}: {files['table']}")
    assert isinstance(tables, ResultRecord)
    contents, specs = _of_records(name, read, plan) if hashes else ({}, {})
    if hashes and not contents:
        contents = _of_lock(name, read, layout)
    try:
        runs = (read(files["runs"]) or b"").decode().splitlines()
    except UnicodeDecodeError:
        raise DistilleryError(f"{name}: {files['runs']} is damaged: it is no text") from None
    return Recorded(name, tables, contents, specs, _answers(read, plan, tables), tuple(csv.DictReader(runs)))


def _record(content: bytes, kind: type[Record], where: str) -> Record:
    try:
        found = kind.model_validate(document := json.loads(content))
    except (ValidationError, ValueError, RecursionError):
        raise DistilleryError(f"{where} was written by another version of Distillery, or is damaged") from None
    if edited(document):
        raise DistilleryError(f"{where} was changed after it was made: have that copy's owner make it again")
    return found


def _of_records(name: str, read: Reader, plan: Plan) -> tuple[dict[str, Content], dict[str, dict[str, Any]]]:
    contents, specs = dict[str, Content](), dict[str, dict[str, Any]]()
    for job in plan:
        if job.stage != "tables" and (content := read(job.record)) is not None:
            record = _record(content, KINDS[job.stage], f"{name}: {job.record}")
            specs[job.name] = record.spec
            contents |= {path: Content(c.bytes, "sha256", c.sha256) for path, c in record.outputs.items()}
    return contents, specs


def _of_lock(name: str, read: Reader, layout: Layout) -> dict[str, Content]:
    """Hashes in dvc.lock, of what was made and of what each job was told; one commit holds one study."""
    content = read(Path("dvc.lock"))
    # The C loader takes a tenth of the time; this one leaves all scalars text, as hashes and paths are.
    try:
        loaded = yaml.load(content, getattr(yaml, "CBaseLoader", yaml.BaseLoader)) if content else None
    except yaml.YAMLError:
        raise DistilleryError(f"{name}: dvc.lock is damaged, or in the middle of a merge") from None
    stages = loaded["stages"].values() if isinstance(loaded, dict) and isinstance(loaded.get("stages"), dict) else ()
    try:
        entries = [entry for stage in stages for key in ("deps", "outs") for entry in stage.get(key, ())]
        return {
            entry["path"]: Content(int(entry["size"]), "md5", entry["md5"])
            for entry in entries
            if entry["path"].startswith(f"{layout.artifacts}/") and not entry["md5"].endswith(".dir")
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DistilleryError(f"{name}: dvc.lock is damaged, or not what DVC 3 writes") from None


def _answers(read: Reader, plan: Plan, tables: ResultRecord) -> dict[str, str]:
    """Hashes of predictions: the tables' record holds them; where it was made of kept runs, these are read."""
    found = dict[str, str]()
    for job in plan:
        if job.stage == "evaluate":
            path = str(job.outputs["predictions"])
            if path in tables.inputs:
                found[path] = tables.inputs[path]
            elif arrays := read(job.layout.kept_metrics(*job.keys).with_suffix(".safetensors")):
                found[path] = hashlib.sha256(arrays).hexdigest()
    return found


def _in_folder(folder: Path) -> Reader:
    return lambda path: (folder / path).read_bytes() if (folder / path).is_file() else None


def _in_commit(commit: str) -> Reader:
    """Files of a commit: beside this folder as git knows it or, if this folder is not in git, at its root."""

    def read(path: Path) -> bytes | None:
        for name in (f"./{path}", str(path)):
            done = _run("show", f"{commit}:{name}")
            if not done.returncode:
                return done.stdout
        return None

    return read


def _commit(name: str) -> str:
    """The hash of a commit: a git revision, or an experiment of DVC by its name."""
    try:
        found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        experiments = found or _git("for-each-ref", "refs/exps", "--format=%(refname:lstrip=-1) %(objectname)")
    except FileNotFoundError:
        raise DistilleryError("git is not installed, and a revision was asked for: name a folder instead") from None
    if found:
        return found
    named = dict(line.split(" ") for line in experiments.splitlines())
    if name not in named:
        if not _git("rev-parse", "--git-dir"):
            raise DistilleryError(
                f"{name!r} is no folder, and there is no git repository here of which it could be a revision: name a "
                "folder with results of this study, as in `distillery verify ../colleague`"
            )
        raise DistilleryError(
            f"{name!r} is neither a folder, nor a git revision, nor a DVC experiment here: name one of these"
        )
    return named[name]


def _git(*arguments: str) -> str:
    return _run(*arguments).stdout.decode(errors="replace").strip()


def _run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, stdin=subprocess.DEVNULL, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        said = f"`git {arguments[0]}` did not end in {PATIENCE:.0f} s: see what holds it up, then run the command again"
        raise DistilleryError(said) from None
