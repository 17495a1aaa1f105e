"""What is kept of a teacher of images: the view table of one teacher, or a record that says why there is none."""

from __future__ import annotations

from typing import Any

from distillery.data.dataset import Dataset
from distillery.data.views import Views
from distillery.pipeline.work import Work
from distillery.records import io as artifacts
from distillery.study.blocks import Augmentation, Cache, Recipe
from distillery.teachers.view_table import build, columns, size_in_bytes
from distillery.teachers.weights import load_network
from distillery.training.device import set_up
from distillery.training.progress import Progress


def run(work: Work) -> None:
    values = work.job.values
    cache = Cache(**{k: values[k] for k in ("enabled", "dtype", "pooled")}, **work.settings["cache"])
    augmentation = Augmentation.model_validate(values["augmentation"])
    device = set_up(Recipe())  # float32: the table is exact, whatever students are trained in
    with work.making() as volatile:
        data = Dataset.load(work.job.reads["arrays"], sha256=work.sha256("arrays"))
        network = load_network(values["architecture"], data.num_classes, data.channels, work.job.reads["weights"])
        views = Views(augmentation.pad, augmentation.flip, data.train_images.shape[-2:])
        size = size_in_bytes(len(data.train_images), views.count, columns(network, data, cache), cache)
        facts: dict[str, Any] = {"teacher_sha256": work.sha256("weights"), "bytes": size}
        output, known = work.job.outputs["table"], {}
        if cache.enabled and augmentation.enumerable and size <= cache.budget_gb * 1e9:
            with Progress(f"view table of {work.job.keys[0]}", volatile) as progress:
                facts |= build(network.to(device), data.to(device), views, cache, output, work.identity, progress.rows)
            known[output] = facts.pop("sha256")
        else:
            why = f"{size / 1e9:.1f} GB is over cache.budget_gb"
            if not augmentation.enumerable:
                why = f"what {augmentation.then[0].name} makes of an image cannot be enumerated"
            if not cache.enabled:
                why = "switched off"
            facts |= {"live": why}
            with artifacts.atomic_path(output) as temporary:
                temporary.write_bytes(b"")
        work.write(known, **facts)
