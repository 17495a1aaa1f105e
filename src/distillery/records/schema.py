"""The records: for every job a small JSON file that says what its outputs were made from, and the facts about them.

A record holds what is the same in two identical runs. Facts that are not reproducible (wall time, host, revision) go to
an undeclared file under `provenance/`, so that reproducing a study reproduces every recorded hash. Bulk (histories,
predictions) lies beside the record as safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from distillery.records.faults import again
from distillery.records.io import DistilleryError, read_json, sha256_json

VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Edited(DistilleryError):
    """Somebody changed a record after it was made."""


class Content(_Frozen):
    """What a file holds."""

    sha256: str
    bytes: int


class Record(_Frozen):
    """What every job says.

    Attributes:
        spec: what the job was told: parameters, code, names of inputs and outputs (see `pipeline.job`).
        spec_sha256: its hash.
        inputs: hash of every file that was read, by path.
        outputs: content of every other file that was written, by path. The record itself is held by whoever reads it.
        environment: software and hardware.
        seal: hash of the record without it, against edits by hand; earlier versions of Distillery wrote none for some.
    """

    version: Literal[1] = VERSION
    spec: dict[str, Any]
    spec_sha256: str
    inputs: dict[str, str]
    outputs: dict[str, Content]
    environment: dict[str, Any]
    seal: str | None = None

    def sha256(self, path: Path) -> str:
        """Hash of an output. Raises KeyError if the job makes no such file."""
        return self.outputs[str(path)].sha256


class DataRecord(Record):
    """Of the canonical arrays. `sha256_of` are hashes of the raw arrays, `content` is the hash of these.

    What only images have is missing where the data are none.
    """

    source: str
    selection: dict[str, Any]
    counts: dict[str, int]
    shape: list[int] | None = None
    num_classes: int | None = None
    class_names: list[str] | None = None
    scale: float | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    short_side: int | None = None
    interpolation: str | None = None
    blob: dict[str, Any] | None = None
    groups: dict[str, Any] | None = None
    sha256_of: dict[str, str]
    content: str


class TeacherRecord(Record):
    """Of a teacher's weights.

    Attributes:
        ranks: processes that trained it; None if it was not trained here.
        fetched: where released weights came from and how good they were found.
        fallback, mirrors: why it was trained here although released weights were wanted, and which mirrors failed.
    """

    architecture: str
    parameters: int
    seed: int
    recipe: dict[str, Any] | None = None
    ranks: int | None = None
    fetched: dict[str, Any] | None = None
    fallback: str | None = None
    mirrors: list[str] | None = None


class TableRecord(Record):
    """Of a view table, or of why there is none (`live`)."""

    teacher_sha256: str
    bytes: int
    live: str | None = None
    shape: list[int] | None = None
    dtype: str | None = None
    views: int | None = None
    images: int | None = None
    num_classes: int | None = None
    teacher_forwards: int | None = None
    precision: str | None = None  # that the teacher computed in, if not float32
    effect: dict[str, float] | None = None  # of that on logits: largest and mean difference, top classes changed, %


class PairRecord(Record):
    """Of the file that names the weights and tables of a pair."""


class RunRecord(Record):
    """Of the students of one job. `seeds` are its runs; their histories lie beside it."""

    architecture: str
    teachers: list[str]
    teacher_outputs: str
    objective: dict[str, Any]
    recipe: dict[str, Any]
    parameters: int
    extra_parameters: int
    images_seen: int
    device: str
    threads: int
    ranks: int
    seeds: list[int]


class Metrics(Record):
    """What was measured about the students of one job, and about their teachers. `runs` has an entry for every seed."""

    architecture: str
    objective: dict[str, Any]
    recipe: dict[str, Any]
    test_images: int
    data: dict[str, Any]
    macs: int
    cost: dict[str, Any]
    teachers: dict[str, dict[str, Any]]
    runs: list[dict[str, Any]]


class ResultRecord(Record):
    """Of the final tables. `table` is the main one."""

    table: dict[str, Any]


R = TypeVar("R", bound=Record)
KINDS: dict[str, type[Record]] = {
    "data": DataRecord,
    "teacher": TeacherRecord,
    "cache": TableRecord,
    "pair": PairRecord,
    "distill": RunRecord,
    "evaluate": Metrics,
    "tables": ResultRecord,
}


def sealed(document: dict[str, Any]) -> dict[str, Any]:
    """A record as it is written: with the hash of everything else in it, which `read` compares."""
    content = {key: value for key, value in document.items() if key != "seal"}
    return content | {"seal": sha256_json(content)}


def read(path: Path, kind: type[R]) -> R:
    """Read a record. Raises DistilleryError if it is missing, damaged, of another version, or edited (Edited)."""
    document = read_json(path)
    try:
        record = kind.model_validate(document)
    except ValidationError:
        raise DistilleryError(f"{path} was written by another version of Distillery: {again(path)}") from None
    if edited(document):
        raise Edited(f"{path} was changed after it was made: {again(path)}")
    return record


def edited(document: dict[str, Any]) -> bool:
    """Whether a record was changed after it was made; of one without a seal nobody can tell."""
    return document.get("seal") is not None and sealed(document)["seal"] != document["seal"]
