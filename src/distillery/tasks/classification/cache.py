"""What is kept of a teacher of images: its view table; or a record of why there is none, or that it is replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillery.data.dataset import Dataset
from distillery.data.pictured import Pictured, open_pictured
from distillery.data.views import Views
from distillery.models.base import Network
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.study.blocks import Augmentation, Cache, Recipe
from distillery.teachers import replay
from distillery.teachers.replay import Kind
from distillery.teachers.view_table import build, columns, effect, expected_seconds, size_in_bytes
from distillery.teachers.weights import load_network
from distillery.training.device import set_up
from distillery.training.progress import Progress


def run(work: Work) -> None:
    values = work.job.values
    keys = ("enabled", "dtype", "pooled", "precision")
    cache = Cache(**{k: values[k] for k in keys if k in values}, **work.settings["cache"])
    device = set_up(Recipe(precision=cache.precision))  # float32: exact, whatever students are trained in
    work.on(device)
    with work.making() as volatile:
        data = open_pictured(work.job.reads["arrays"], work.sha256("arrays"))
        network = load_network(values["architecture"], data.num_classes, data.channels, work.job.reads["weights"])
        facts: dict[str, Any] = {"teacher_sha256": work.sha256("weights")}
        output, known = work.job.outputs["table"], dict[Path, str]()
        size, why = _planned(network, data, cache, values)
        facts |= {"bytes": size} | ({"live": why} if why else {})
        if not why and isinstance(data, Dataset):
            views, title = _views(data, Augmentation.model_validate(values["augmentation"])), work.job.keys[0]
            network, data = network.to(device), data.to(device)
            count, minutes = len(data.train_images) * views.count, expected_seconds(network, data, views, cache) / 60
            print(
                f"view table of {title}: {count:,} forward passes in {cache.precision}, {size / 1e9:.2f} GB, about "
                f"{minutes:.1f} minutes from the start on this {device.type}",
                flush=True,
            )
            if cache.precision != "float32":
                facts |= {"precision": cache.precision, "effect": effect(network, data, views, cache)}
            with Progress(f"view table of {title}", volatile) as progress:
                facts |= build(network, data, views, cache, output, work.identity, progress.rows)
            known[output] = facts.pop("sha256")
        else:  # a replay table is filled by the first student that comes to an epoch
            with artifacts.atomic_path(output) as temporary:
                temporary.write_bytes(b"")
        work.write(known, **facts)


def _views(data: Dataset, augmentation: Augmentation) -> Views:
    return Views(augmentation.pad, augmentation.flip, data.train_images.shape[-2:])


def _planned(network: Network, data: Pictured, cache: Cache, values: dict[str, Any]) -> tuple[int, str]:
    """Give the bytes of the table (a replay table: of one run), and why there will be none ("" if there will)."""
    augmentation, width = Augmentation.model_validate(values["augmentation"]), columns(network, data, cache)
    if isinstance(data, Dataset):
        size = size_in_bytes(len(data.train_images), _views(data, augmentation).count, width, cache)
    else:
        kind: Kind = "int16" if cache.dtype == "int16" else values.get("students_in", "float32")
        size = replay.size_in_bytes(len(data.train), width, kind, values["epochs"])
    why = ""
    if isinstance(data, Dataset) and "students_in" in values:
        why = "a view table would round what float64 computes"
    elif isinstance(data, Dataset) and not augmentation.enumerable:
        why = f"what {augmentation.then[0].name} makes of an image cannot be enumerated"
    elif size > cache.budget_gb * 1e9:
        why = f"{size / 1e9:.1f} GB is over cache.budget_gb"
    return size, why if cache.enabled else "switched off"
