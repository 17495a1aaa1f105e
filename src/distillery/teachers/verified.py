"""The teachers of a pair: verified when the pair is made, and again when they are opened for training or evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.records import io as artifacts
from distillery.records.io import StaleInput
from distillery.records.schema import TableRecord, TeacherRecord, read
from distillery.study.blocks import Recipe
from distillery.training.history import load_history

if TYPE_CHECKING:
    import torch

    from distillery.models.base import Network
    from distillery.training.task import Training


def describe(name: str, weights: Path, table_record: Path) -> dict[str, Any]:
    """Return the hash of a teacher's weights and the facts of its view table.

    Raises StaleInput if the table was built from other weights.
    """
    record, found = read(table_record, TableRecord), artifacts.sha256_file(weights)
    if record.teacher_sha256 != found:
        raise StaleInput(
            f"the view table of {name} was built from another teacher: run `distillery cache --teacher {name}`"
        )
    if record.live is not None:
        return {"weights": found, "live": record.live}
    [table] = record.outputs.values()
    facts = {"shape": record.shape, "dtype": record.dtype, "views": record.views, "num_classes": record.num_classes}
    return {"weights": found, "table": facts | {"sha256": table.sha256}}


def known_of(record: Path, history: Path, weights: str) -> dict[str, Any]:
    """What the tables say about a teacher: its size, how it was trained, and its history."""
    trained = read(record, TeacherRecord)
    origin = trained.model_dump(include={"seed", "recipe", "fetched", "fallback"}, exclude_none=True)
    return {
        "architecture": trained.architecture,
        "parameters": trained.parameters,
        "trained": origin | {"sha256": weights},
        "history": load_history(history).get("teacher", []),
    }


def open_teachers(
    training: Training,
    teachers: dict[str, dict[str, Any]],
    pair: dict[str, Any],
    data: Any,
    device: torch.device,
    recipe: Recipe,
) -> list[Network]:
    """Load teachers, frozen, in the recipe's precision.

    Args:
        training: of the task that they were trained for.
        teachers: architecture and path of the weights, by name.
        pair: what `describe` said when the pair was made, by name.

    Raises StaleInput if one of them is not the teacher that the pair was made with.
    """
    from distillery.data.precision import dtype_of  # the `pair` stage only verifies, and needs no torch

    networks = []
    for name, teacher in teachers.items():
        path = Path(teacher["weights"])
        if artifacts.sha256_file(path) != pair[name]["weights"]:
            raise StaleInput(f"{path} is not the teacher that the pair was made with: run the engine again")
        network = training.trained(teacher["architecture"], data, path)
        networks.append(network.to(device, dtype_of(recipe)).eval().requires_grad_(False))
    return networks
