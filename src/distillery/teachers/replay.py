"""The replay table: a teacher's outputs for the very views that training sees, one file for each epoch.

Where views cannot be enumerated but are a function of (seed, epoch, image), a teacher's outputs can still be computed
once and used by every method. The files of different epochs are made independently of one another, by the batches and
the precision of training: on one machine, with one thread and in float32, training from them is training with the live
teacher, to the bit. On a GPU, or with another number of threads, a teacher's outputs depend on the shape of the batch
in their last bits.

`float64` is for training in float64, whose teachers' outputs float32 would round.

`int16` keeps each row as its least value, a step (float32 both) and whole numbers of 16 bits: half the size, and an
error of at most (largest - least) / 131,070. A fraction of that of float16, whose error grows with the value itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillery.data.loader import Loader
from distillery.models.base import Network, Outputs
from distillery.records.files import reserve
from distillery.records.io import DistilleryError, StaleInput, atomic_path, read_json, sha256_file, write_json
from distillery.study.blocks import Recipe
from distillery.teachers.source import LiveTeachers
from distillery.teachers.view_table import joined

Kind = Literal["float32", "float64", "int16"]
LEVELS = 65_535  # steps of the 16-bit code
FLUSH_ROWS = 100_000  # rows between two notes of how far a build has come


@dataclass(frozen=True, slots=True)
class Plan:
    """What a table is built by.

    Attributes:
        key: hash of all that decides the content: teacher, data, seed of the views, batch size, precision.
        images: rows of a file: the whole canonical training set, whatever is held out.
        classes: of the teacher's logits.
        kind: how rows are kept.
        pooled: whether pooled features are kept beside the logits.
    """

    key: str
    images: int
    classes: int
    kind: Kind = "float32"
    pooled: bool = False


def row_type(kind: Kind, columns: int) -> np.dtype[Any]:
    """What a row is on the disk: numbers as they are, or (low, step, codes)."""
    if kind != "int16":
        return np.dtype((np.dtype(kind), (columns,)))
    return np.dtype([("low", np.float32), ("step", np.float32), ("codes", np.int16, (columns,))])


def size_in_bytes(images: int, columns: int, kind: Kind, epochs: int) -> int:
    """Of the files of so many epochs."""
    return epochs * images * row_type(kind, columns).itemsize


def encode(rows: Tensor, kind: Kind) -> NDArray[Any]:
    """(B, columns) outputs as rows of the table. Raises DistilleryError if a value is not finite."""
    if not rows.isfinite().all():
        raise DistilleryError("a teacher's output is not a finite number: look at its weights and its precision")
    values = rows.to(torch.float64 if kind == "float64" else torch.float32).cpu().numpy()
    if kind != "int16":
        return values
    made = np.empty(len(values), dtype=row_type(kind, values.shape[1]))
    exact = values.astype(np.float64)
    made["low"] = exact.min(1)
    made["step"] = (exact.max(1) - exact.min(1)) / LEVELS
    step = np.where(made["step"] > 0, made["step"], 1).astype(np.float64)
    codes = np.rint((exact - made["low"][:, None].astype(np.float64)) / step[:, None])
    made["codes"] = codes.clip(0, LEVELS) - (LEVELS + 1) // 2
    return made


def decode(rows: NDArray[Any]) -> Tensor:
    """Rows of the table as (B, columns): float32, or float64 where they are kept so."""
    if rows.dtype.names is None:
        return torch.from_numpy(rows)
    codes = rows["codes"].astype(np.float32) + np.float32((LEVELS + 1) // 2)
    return torch.from_numpy(rows["low"][:, None] + codes * rows["step"][:, None])


def file_of(folder: Path, epoch: int) -> Path:
    """The rows of an epoch; its facts are beside it, in a JSON file of the same name."""
    return folder / f"epoch-{epoch:04d}.bin"


def build(
    network: Network,
    loader: Loader,
    seed: int,
    epoch: int,
    recipe: Recipe,
    plan: Plan,
    folder: Path,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the file of one epoch; return the facts about it. One that is there already is left as it is.

    Resumable: a build that was interrupted goes on in its middle. `loader` and `recipe` are those of training.
    """
    path = file_of(folder, epoch)
    facts, partial, note = path.with_suffix(".json"), path.with_suffix(".partial"), path.with_suffix(".partial.json")
    if path.exists() and facts.exists() and (found := read_json(facts)).get("key") == plan.key:
        return found
    teachers, sums = LiveTeachers([network], recipe), dict[str, int]()
    # In place of cached outputs every batch brings along which images it holds, in which views.
    laid_out = loader.epoch(seed, epoch, cached=lambda index, view, _: [torch.stack([index, view], dim=1)])
    folder.mkdir(parents=True, exist_ok=True)
    done, size = 0, recipe.batch_size
    if partial.exists() and note.exists() and (noted := read_json(note)).get("key") == plan.key:
        done, sums = noted["done"], noted["sums"]
    else:  # the note first: one without its file would vouch for rows of the next
        note.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)
    table, kept = None, ""
    try:
        for start in range(done, loader.count, size):
            end = min(start + size, loader.count)
            samples = laid_out.batch(slice(start, end))
            (outputs,) = teachers.teach(samples.inputs, [])
            values, kept = joined(outputs, plan.pooled), str(outputs.logits.dtype).removeprefix("torch.")
            if table is None:
                if not done:
                    reserve(partial, size_in_bytes(plan.images, values.shape[1], plan.kind, 1))
                table = _mapped(partial, plan, values.shape[1], "r+")
            places, views = samples.cached[0].cpu().unbind(1)
            table[places.numpy()] = encode(values, plan.kind)
            sums |= {str(p): v for p, v in zip(places.tolist(), views.tolist(), strict=True) if v >= 0}
            if end == loader.count or end // FLUSH_ROWS > start // FLUSH_ROWS:
                table.flush()
                write_json(note, {"key": plan.key, "done": end, "sums": sums, "columns": values.shape[1], "type": kept})
            if report:
                report(end, loader.count)
        del table
        noted = read_json(note)
        made = {"key": plan.key, "epoch": epoch, "seed": seed, "images": plan.images, "classes": plan.classes}
        made |= {"kind": plan.kind, "columns": noted["columns"], "type": noted["type"], "sums": noted["sums"]}
        made |= {"sha256": sha256_file(partial), "teacher_forwards": loader.count}
        note.unlink()
        with atomic_path(path) as temporary:
            partial.replace(temporary)
        write_json(facts, made)
    except OSError as error:
        raise DistilleryError(f"cannot write {path}: {error.strerror}; free space or lower the budget") from None
    return made


def _mapped(path: Path, plan: Plan, columns: int, mode: Literal["r", "r+"]) -> np.memmap[Any, np.dtype[Any]]:
    """The file as `images` rows, memory-mapped."""
    kind = row_type(plan.kind, columns)
    base, inner = (kind.base, kind.shape) if kind.subdtype else (kind, ())
    return np.memmap(path, base, mode, shape=(plan.images, *inner))


class ReplayTable:
    """The files of one teacher, opened one after the other as training asks for their epochs.

    An opened file is hashed, which also reads it once from end to end: the rows that follow come from memory.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan, self.epoch = folder, plan, 0
        self.facts: dict[str, Any] = {}
        self._rows: NDArray[Any] | None = None

    def rows(self, index: Tensor, view: Tensor, epoch: int) -> Tensor:
        """The (B, columns) outputs, as `decode` gives them, for canonical images `index` in their views of an epoch.

        Args:
            view: what was seen: for some images of a stream the CRC-32 of their pixels, for others a negative number.

        Raises:
            StaleInput: if the file is not there or not the one wanted, or was built from other views than these.
        """
        if epoch != self.epoch or self._rows is None:
            self._open(epoch)
        assert self._rows is not None
        sums = self.facts["sums"]
        for i, seen in zip(index.tolist(), view.tolist(), strict=True):
            if seen >= 0 and sums.get(str(i)) != seen:
                raise StaleInput(
                    f"{file_of(self.folder, epoch)} was built from other pixels than training sees (image {i}): "
                    "another seed, image size, decoder or version; delete it and build it again"
                )
        return decode(self._rows[index.cpu().numpy()])

    def outputs(self, rows: Tensor) -> Outputs:
        """Name the columns of some rows, in the type that the teacher gave."""
        rows = rows.to(getattr(torch, self.facts["type"]))
        logits, pooled = rows[:, : self.plan.classes], rows[:, self.plan.classes :]
        return Outputs(logits, pooled if pooled.shape[1] else None)

    def _open(self, epoch: int) -> None:
        path = file_of(self.folder, epoch)
        facts = read_json(path.with_suffix(".json"))
        if facts["key"] != self.plan.key or facts["epoch"] != epoch:
            raise StaleInput(f"{path} was built for another teacher, recipe or epoch: delete it and build it again")
        expected = size_in_bytes(self.plan.images, facts["columns"], self.plan.kind, 1)
        if not path.exists() or path.stat().st_size != expected or sha256_file(path) != facts["sha256"]:
            raise StaleInput(f"{path} is not the file that was built: delete it and build it again")
        self.facts, self.epoch = facts, epoch
        self._rows = _mapped(path, self.plan, facts["columns"], "r")


class ReplayTeachers:
    """Teachers read from their replay tables."""

    def __init__(self, tables: Sequence[ReplayTable]) -> None:
        self.tables = tables

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        return [table.rows(index, view, epoch) for table in self.tables]

    def teach(self, images: Tensor, rows: list[Tensor]) -> tuple[Outputs, ...]:
        return tuple(table.outputs(row) for table, row in zip(self.tables, rows, strict=True))
