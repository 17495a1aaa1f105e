"""The view table: a teacher's outputs for every view of every training image, exact under augmentation.

A teacher in evaluation mode is a function of (image, view). The CIFAR augmentation has 162 views of an image, so one
pass over all of them replaces the live teacher for every method and seed, at the price of 162 epochs of forwards.
Caches keyed by the image alone are wrong under augmentation.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distillery.data.dataset import Dataset
from distillery.data.pictured import Pictured
from distillery.data.views import Views, copied, draw
from distillery.models.base import Network, Outputs, anchor
from distillery.records.files import reserve
from distillery.records.io import DistilleryError, StaleInput, atomic_path, read_json, sha256_file, write_json
from distillery.records.node_cache import nearby, sha256_once
from distillery.study.blocks import Cache, Recipe
from distillery.training.device import autocast, set_up

FLUSH_ROWS = 1_000_000  # rows between two notes of how far a build has come
CPU_BATCH = 256  # more views at once leave a CPU's cache: 486 cost 1.2 times as much per view as 162 (wrn_40_2)


@dataclass
class ViewTable:
    """A table on disk, memory-mapped: (images x views) rows of logits, then pooled features if it holds them."""

    values: Tensor
    views: int
    num_classes: int

    @classmethod
    def open(cls, path: Path, record: dict[str, Any], note: Path | None = None) -> ViewTable:
        """Map a finished table, or this node's copy of it.

        `note` is where the hash of a verified table is kept, so that later openings need not read all of it again.
        Raises StaleInput if the file is not the one that its record describes.
        """
        shape, dtype = tuple(record["shape"]), np.dtype(record["dtype"])
        expected = int(np.prod(shape)) * dtype.itemsize
        if not path.exists() or path.stat().st_size != expected:
            found = f"has {path.stat().st_size:,}" if path.exists() else "is missing, not"
            raise StaleInput(
                f"the view table {path} {found} of {expected:,} bytes: delete it and run the cache stage again"
            )
        copy = nearby(path, record["sha256"])
        if copy is None and (sha256_once(path, note) if note else sha256_file(path)) != record["sha256"]:
            raise StaleInput(
                f"the view table {path} is not the one its record describes: delete it and run cache again"
            )
        values = torch.from_numpy(
            np.memmap(copy or path, dtype, "c", shape=shape)
        )  # "c": torch wants writable, the file is not
        return cls(values, record["views"], record["num_classes"])

    def rows(self, index: Tensor, view: Tensor) -> Tensor:
        """Return the (N, columns) outputs of image `index[i]` in view `view[i]`."""
        rows = copied(index * self.views + view, self.values.device)
        return self.values.index_select(0, rows)  # 5x as fast as [rows]

    def place(self, device: torch.device) -> ViewTable:
        """Copy the table to the device if half of its free memory is enough; else rows are streamed from the map."""
        if device.type == "cuda" and 2 * self.values.nbytes <= torch.cuda.mem_get_info(device)[0]:
            self.values = self.values.to(device)
        return self

    def outputs(self, rows: Tensor) -> Outputs:
        """Name the columns of some rows."""
        logits, pooled = rows[:, : self.num_classes], rows[:, self.num_classes :]
        return Outputs(logits, pooled if pooled.shape[1] else None)


def size_in_bytes(images: int, views: int, columns: int, cache: Cache) -> int:
    return images * views * columns * np.dtype(cache.dtype).itemsize


@torch.no_grad()
def columns(network: Network, data: Pictured, cache: Cache) -> int:
    """How many numbers a row holds."""
    # On the teacher's device: the size of its table is known before it is moved.
    given = network.eval()(data.normalise(data.example().to(anchor(network).device)))
    return joined(given, cache.pooled).shape[1]


@torch.no_grad()
def build(
    network: Network,
    data: Dataset,
    views: Views,
    cache: Cache,
    path: Path,
    key: str,
    report: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the whole table to `path` and return the facts of its record.

    The teacher computes in `cache.precision`, for which `set_up` was called. Resumable: rows go to a `.partial` file
    beside `path`, with the number of finished images next to it under `key` (the hash of teacher, data, augmentation,
    precision, dtype); an interrupted build continues there, another key starts over.
    """
    network.eval()
    images = data.train_images
    count = len(images)
    padded = views.pad(images)
    partial, note = path.with_suffix(".partial"), path.with_suffix(".partial.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _resume(partial, note, key)
    shape = (count * views.count, columns(network, data, cache))
    every = torch.arange(views.count, device=images.device)
    block, layout = block_and_layout(cache, views.count, images.device)
    try:
        if not done:
            reserve(partial, math.prod(shape) * np.dtype(cache.dtype).itemsize)
        table = np.memmap(partial, cache.dtype, "r+", shape=shape)
        since = 0
        for start in range(done, count, block):
            index = torch.arange(start, min(start + block, count), device=images.device)
            batch = views.take(padded, index.repeat_interleave(views.count), every.repeat(len(index)))
            values = _values(network, data.normalise(batch).contiguous(memory_format=layout), cache)
            table[start * views.count : start * views.count + len(values)] = stored(values, cache)
            since += len(values)
            if since >= FLUSH_ROWS:
                table.flush()
                write_json(note, {"key": key, "images": int(index[-1]) + 1})
                since = 0
            if report:
                report(int(index[-1]) + 1, count)
        table.flush()
        del table
        digest = sha256_file(partial)
        with atomic_path(path) as temporary:
            partial.replace(temporary)
    except OSError as error:
        raise DistilleryError(
            f"cannot write the view table {path}: {error.strerror}; free space or lower cache.dtype"
        ) from None
    note.unlink(missing_ok=True)
    return {
        "sha256": digest,
        "shape": list(shape),
        "dtype": cache.dtype,
        "views": views.count,
        "images": count,
        "num_classes": data.num_classes,
        "teacher_forwards": count * views.count,
    }


def stored(values: Tensor, cache: Cache) -> NDArray[Any]:
    """Float32 rows in the table's type. Raises DistilleryError if a number is not finite, or not in that type."""
    if not values.isfinite().all():
        raise DistilleryError("a teacher's output is not a finite number: look at its weights and its precision")
    with np.errstate(over="ignore"):
        rows = values.cpu().numpy().astype(cache.dtype)
    if not np.isfinite(rows).all():
        raise DistilleryError(f"a teacher's output is too large for {cache.dtype}: say `cache.dtype: float32`")
    return rows


def _values(network: Network, images: Tensor, cache: Cache) -> Tensor:
    """Rows of the table, in the table's precision but float32: (B, columns)."""
    with autocast(Recipe(precision=cache.precision), images.device):
        out = network(images)
    return joined(out, cache.pooled).float()


@torch.no_grad()
def expected_seconds(network: Network, data: Dataset, views: Views, cache: Cache) -> float:
    """How long a build will take, about: one block of views is tried."""
    block, layout = block_and_layout(cache, views.count, data.train_images.device)
    count = len(data.train_images)
    block = min(block, count)
    images = data.train_images[:block].repeat_interleave(views.count, 0)
    times = []
    for _ in range(2):  # the first one also sets things up
        start = time.perf_counter()
        _values(network.eval(), data.normalise(images).contiguous(memory_format=layout), cache).cpu()
        times.append(time.perf_counter() - start)
    return min(times) * count / block


@torch.no_grad()
def effect(network: Network, data: Dataset, views: Views, cache: Cache, count: int = 256) -> dict[str, float]:
    """What the table's precision changes in logits, against float32, on so many views drawn at random.

    Largest and mean absolute difference, and the share in percent of the views whose top class is another one. The
    process is left in the table's precision.
    """
    index = draw(0, 0, count, len(data.train_images)).to(data.train_images.device)
    view = draw(0, 1, count, views.count).to(data.train_images.device)
    images = data.normalise(views.take(views.pad(data.train_images), index, view))
    found = []
    for precision in ("float32", cache.precision):
        of = cache.model_copy(update={"precision": precision, "pooled": False})
        set_up(Recipe(precision=precision))
        found.append(_values(network.eval(), images, of))
    gap = (found[1] - found[0]).abs()
    changed = (found[1].argmax(1) != found[0].argmax(1)).double().mean()
    return {"largest": gap.max().item(), "mean": gap.mean().item(), "top1_changed": 100 * changed.item()}


def block_and_layout(cache: Cache, views: int, device: torch.device) -> tuple[int, torch.memory_format]:
    """How many images, with all their views, go through the teacher at once, and in which memory format."""
    if device.type != "cpu":
        return max(1, cache.batch_size // views), torch.contiguous_format
    return max(1, min(cache.batch_size, CPU_BATCH) // views), torch.channels_last  # oneDNN: 1.1 times as fast


def joined(outputs: Outputs, pooled: bool) -> Tensor:
    """What a row holds, (B, columns): the logits, then the pooled features if they are kept."""
    if not pooled:
        return outputs.logits
    if outputs.pooled is None:
        raise DistilleryError("cache.pooled: the teacher has no pooled features: switch it off")
    return torch.cat([outputs.logits, outputs.pooled], 1)


def _resume(partial: Path, note: Path, key: str) -> int:
    if partial.exists() and note.exists():
        found = read_json(note)
        if found.get("key") == key:
            return int(found["images"])
    partial.unlink(missing_ok=True)
    note.unlink(missing_ok=True)
    return 0
