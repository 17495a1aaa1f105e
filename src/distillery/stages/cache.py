"""Stage `cache`: the view table of one teacher, or a record that says why there is none."""

from __future__ import annotations

from pathlib import Path

from distillery.data.dataset import Dataset
from distillery.data.views import Views
from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.job import describe, making
from distillery.study.model import Study
from distillery.teachers.view_table import build, size_in_bytes
from distillery.teachers.weights import load_network
from distillery.training.device import set_up
from distillery.training.progress import Progress


def run(study: Study, params: Path, teacher: str) -> None:
    layout, cache = Layout(study.study), study.cache
    inputs = [layout.arrays, layout.data, layout.teacher(teacher), layout.teacher_record(teacher)]
    record = describe("cache", inputs, params, teacher=teacher)
    device = set_up(study.recipe.updated({"precision": "float32"}))  # the table is exact whatever students train in
    output = layout.table(teacher)
    with making(layout, output, layout.table_record(teacher), record) as volatile:
        data = Dataset.load(layout.arrays.parent, sha256=record["inputs"][str(layout.arrays)])
        network = load_network(
            study.teachers[teacher].architecture, data.num_classes, data.channels, layout.teacher(teacher)
        )
        augmentation = study.recipe.augmentation
        views = Views(augmentation.pad, augmentation.flip, data.train_images.shape[-1])
        columns = data.num_classes + (network.head.in_features if cache.pooled else 0)
        size = size_in_bytes(len(data.train_images), views.count, columns, cache)
        facts: dict = {"teacher_sha256": record["inputs"][str(layout.teacher(teacher))], "bytes": size}
        if cache.enabled and size <= cache.budget_gb * 1e9:
            key = artifacts.sha256_json(
                {"teacher": facts["teacher_sha256"], "params": record["params"]} | record["inputs"]
            )
            with Progress(f"view table of {teacher}", volatile) as progress:
                facts |= build(network.to(device), data.to(device), views, cache, output, key, progress.rows)
        else:
            why = "switched off" if not cache.enabled else f"{size / 1e9:.1f} GB is over cache.budget_gb"
            facts |= {"live": why}
            with artifacts.atomic_path(output) as temporary:
                temporary.write_bytes(b"")
        artifacts.write_json(layout.table_record(teacher), record | facts)
