"""What a repository of timm's says beside its weights, in config.json: what these saw, and which classes they tell.

Torch is imported only to read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.errors import DistilleryError
from distillery.records.given import given_json
from distillery.records.preprocessing import Preprocessing

NAME = "config.json"


@dataclass(frozen=True, slots=True)
class Said:
    """What a configuration says.

    Attributes:
        classes: width of the logits.
        labels: names of the classes in the order of the logits; () where it names none.
    """

    preprocessing: Preprocessing
    classes: int
    labels: tuple[str, ...]


def beside(checkpoint: Path) -> Path | None:
    """The configuration in the folder of a checkpoint, or in the folder that is named instead of one, if there is."""
    path = (checkpoint if checkpoint.is_dir() else checkpoint.parent) / NAME
    return path if path.is_file() else None


def read(path: Path) -> Said | None:
    """Read a configuration; None if it is another program's. Raises DistilleryError if it cannot be read."""
    document = given_json(path)
    if not isinstance(document, dict) or not ("pretrained_cfg" in document or "input_size" in document):
        return None
    try:
        return _of(document)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DistilleryError(
            f"{path} is not as timm writes it ({type(error).__name__}): say by `preprocessing` what the weights saw"
        ) from None


def _of(document: dict[str, Any]) -> Said:
    """As timm reads it: older files are flat, newer ones say classes beside `pretrained_cfg`."""
    from distillery.models.foreign import import_timm
    from distillery.teachers.named import of_cfg

    said = {**document.get("pretrained_cfg", {}), **document}
    kind = import_timm().models.PretrainedCfg
    known = {field.name for field in dataclasses.fields(kind)}
    cfg = kind(**{key: value for key, value in said.items() if key in known})
    labels = said.get("label_names", said.get("labels")) or ()
    return Said(of_cfg(cfg), int(cfg.num_classes), tuple(map(str, labels)) if isinstance(labels, list) else ())


def refuse_another_order(teacher: str, labels: Sequence[str], class_names: Sequence[str]) -> None:
    """Raise DistilleryError if both name the same classes, but not in the same order."""
    if {*labels} == {*class_names} and tuple(labels) != tuple(class_names):
        first = next(i for i, (mine, theirs) in enumerate(zip(labels, class_names, strict=False)) if mine != theirs)
        raise DistilleryError(
            f"teacher {teacher}: its {NAME} calls the class {first} {labels[first]!r}, which is {class_names[first]!r} "
            "in the data: bring the classes of the data into its order"
        )
