"""The teachers of a pair: checked against their records, and opened for training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.io import StaleInput
from distillery.study.model import Recipe, Study

if TYPE_CHECKING:
    import torch

    from distillery.data.dataset import Dataset
    from distillery.models.base import Network


def check_teacher(layout: Layout, teacher: str) -> dict[str, str | None]:
    """Return the hashes of a teacher's weights and table. Raises StaleInput if they do not belong together."""
    weights, table = (
        artifacts.read_json(layout.teacher_record(teacher)),
        artifacts.read_json(layout.table_record(teacher)),
    )
    path = layout.teacher(teacher)
    found = artifacts.sha256_file(path)
    if found != weights["sha256"]:
        raise StaleInput(f"{path} is not the file its record describes: restore it, or delete it and train it again")
    if table["teacher_sha256"] != found:
        raise StaleInput(
            f"{layout.table(teacher)} was built from another teacher: run `distillery cache --teacher {teacher}`"
        )
    return {"weights": found, "table": table.get("sha256")}


def open_teachers(
    study: Study, layout: Layout, pair: str, data: Dataset, device: torch.device, recipe: Recipe
) -> list[Network]:
    """Load the teachers that `pair` names, frozen, in the recipe's precision.

    Raises StaleInput if one of them is not the teacher that the pair was made with.
    """
    from distillery.teachers.weights import load_network  # the `pair` stage only checks, and needs no torch
    from distillery.training.device import dtype_of

    networks = []
    recorded = artifacts.read_json(layout.pair(pair))["teachers"]
    for name in study.pairs[pair].teachers:
        if check_teacher(layout, name) != recorded.get(name):
            raise StaleInput(f"teacher {name} changed after pair {pair} was made: run `distillery pair --pair {pair}`")
        architecture = study.teachers[name].architecture
        network = load_network(architecture, data.num_classes, data.channels, layout.teacher(name))
        networks.append(network.to(device, dtype_of(recipe)).eval().requires_grad_(False))
    return networks
