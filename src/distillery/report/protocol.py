"""Whether a cell was trained as a published number was; if not, in what it differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distillery.objectives import OBJECTIVES
from distillery.objectives.plugins import PLUGINS
from distillery.report.budget import said
from distillery.report.published import Published, dataset_of, settings, teacher_score
from distillery.report.recipes import described, differing
from distillery.report.results import Cell, score
from distillery.study.blocks import Method

# The CIFAR-100 protocol that its code bases share (240 epochs of SGD, batch 64, crop and flip).
RECIPE: dict[str, Any] = {
    "epochs": 240,
    "batch_size": 64,
    "lr": 0.05,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 5e-4,
    "milestones": [150, 180, 210],
    "lr_decay": 0.1,
    "augmentation": {"pad": 4, "flip": True},
    "validation": 0.0,
}
SLOW_STUDENTS = ("mobilenet_v2", "shufflenet_v1", "shufflenet_v2")  # trained with lr 0.01
# That of ImageNet: 100 epochs, drops after 30, 60 and 90. How images are cropped belongs to the data there.
IMAGENET: dict[str, Any] = RECIPE | {
    "epochs": 100,
    "batch_size": 512,
    "lr": 0.2,
    "weight_decay": 1e-4,
    "milestones": [30, 60, 90],
    "augmentation": None,
}


@dataclass(frozen=True)
class Protocol:
    """How the code bases of a data set train.

    Attributes:
        recipe: their recipe; `lineages`: what a lineage has otherwise.
        counts: of the samples, but for those that a `drawn` split decides.
        tolerance: a teacher trained anew is taken for the published one if its score is this close.
    """

    recipe: dict[str, Any]
    lineages: dict[str, dict[str, Any]]
    counts: dict[str, int]
    drawn: frozenset[str] = frozenset()
    tolerance: float = 0.3  # points of accuracy: the spread between trainings and between the last and the best epoch

    def of(self, entry: Published) -> dict[str, Any]:
        """The recipe of a published number, but for what its own settings say."""
        slow = {"lr": 0.01} if self.recipe is RECIPE and entry.student in SLOW_STUDENTS else {}
        return self.recipe | self.lineages[entry.lineage] | slow


# Transformers on enlarged images, in the code of the logit-standardisation paper. How images are cropped is the data's.
TINY_TRANSFORMERS: dict[str, Any] = {
    "epochs": 300,
    "batch_size": 128,
    "lr": 5e-4,
    "optimizer": {"name": "adamw", "betas": [0.9, 0.999], "eps": 1e-8},
    "weight_decay": 0.05,
    "decay": "matrices",
    "schedule": {
        "name": "cosine",
        "per": "epoch",
        "warmup_epochs": 20.0,
        "warmup_lr": 5e-7,
        "warmup_prefix": False,
        "min_lr": 5e-6,
    },
    "drop_path": 0.1,
    "augmentation": None,
}
# Recommenders, in the code of UnKD. How many epochs, early stopping decides.
RECOMMENDERS: dict[str, Any] = {
    "epochs": None,
    "batch_size": 2048,
    "lr": 0.01,
    "optimizer": {"name": "adam", "betas": [0.9, 0.999], "eps": 1e-8},
    "weight_decay": 0.0,  # the penalty belongs to the objective
    "milestones": [],
    "lr_decay": None,
    "augmentation": None,
    "validation": None,
}
CIFAR = ("mdistiller", "repdistiller", "repdistiller_ctkd", "simkd_toolbox", "image_classification_sota")
PROTOCOLS = {
    "cifar100": Protocol(
        RECIPE,
        {lineage: {} for lineage in CIFAR} | {"tiny_transformers": TINY_TRANSFORMERS},
        {"train": 50_000, "test": 10_000},
    ),
    "imagenet": Protocol(
        IMAGENET,
        {
            "mdistiller": {},
            "torchdistill": {"batch_size": 256, "lr": 0.1},
            "image_classification_sota": {"batch_size": 256, "lr": 0.1, "nesterov": True, "decay": "matrices"},
        },
        {"train": 1_281_167, "test": 50_000},
    ),
    # Recall of teachers differed by half the tolerance between three splits, in trials.
    "citeulike": Protocol(
        RECOMMENDERS,
        {"unkd": {}},
        {"users": 5_219, "items": 25_181, "train": 110_856},
        drawn=frozenset({"val", "test"}),
        tolerance=0.01,
    ),
}
ALONE = ("student_ce", "bpr")  # no teacher is in them


def obstacles(cell: Cell, entry: Published, labelled: float = 1.0) -> list[str]:
    """Say why a cell cannot be held against a published number; an empty list if it can.

    `labelled` is the share of the labels that training saw, `data.labelled` of the study.
    """
    if entry.kind == "quoted_baseline":
        return ["quoted from earlier work, whose own protocol and convention it keeps"]
    dataset = dataset_of(cell.facts["data"]["source"])
    protocol = PROTOCOLS.get(dataset)
    if protocol is None or entry.lineage not in protocol.lineages:
        return [f"another protocol ({entry.lineage})"]
    found = []
    counts = cell.facts["data"].get("counts", {})
    if {name: count for name, count in counts.items() if name not in protocol.drawn} != protocol.counts:
        found.append("not the full data set")
    if labelled < 1:
        found.append(f"labels of {100 * labelled:g} % only")
    values, recipe = settings(dataset, entry)
    expected = protocol.of(entry) | recipe
    known = {name: value for name, value in expected.items() if value is not None}
    ours, theirs = described(cell.facts["recipe"]), described(known)
    names = [name for name in differing(ours, theirs) if name in known or name not in expected]
    found += [_differs(name, ours, theirs) for name in names]
    objective = cell.facts["objective"]
    found += differences(hyper_parameters(objective), hyper_parameters(_as_published(objective) | values))
    if entry.method not in ALONE:
        found += _other_teacher(cell, entry, protocol.tolerance)
    return found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    names = [name for name, value in theirs.items() if value is not None and ours.get(name) != value]
    return [_differs(name, ours, theirs) for name in names]


def _differs(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> str:
    return f"{name} {said(ours.get(name))} instead of {said(theirs.get(name))}"


def _as_published(block: dict[str, Any]) -> dict[str, Any]:
    """The method of a block with the same plug-ins, all at its defaults: the name of a number says what it is made of.

    Partners are not among them: where a name has one, the published settings say with which weight.
    """
    return {"objective": block["objective"], "plugins": {name: {} for name in block.get("plugins", {})}}


def hyper_parameters(block: dict[str, Any]) -> dict[str, Any]:
    """All hyper-parameters of a method block, defaults filled in. The defaults are those of the paper.

    Those of plug-ins come beside, as `standardise.std`.
    """
    method = Method.model_validate(block)
    plugins = {
        f"{name}.{key}": value
        for name, values in method.plugins.items()
        for key, value in (_defaults(name, PLUGINS) | values).items()
    }
    plus = {name: {"weight": 1.0} | _defaults(name) | values for name, values in method.plus.items()}
    return _defaults(method.objective) | method.hyper | plugins | {"plus": plus}


def _defaults(name: str, registry: Any = OBJECTIVES) -> dict[str, Any]:
    fields = registry[name].load().Config.model_fields if name in registry else {}
    return {name: field.default for name, field in fields.items()}


def _other_teacher(cell: Cell, entry: Published, tolerance: float) -> list[str]:
    theirs = teacher_score(dataset_of(cell.facts["data"]["source"]), cell.measure.name, entry)
    ours = [v for t in cell.facts["teachers"].values() if (v := score(t, "last", cell.measure)) is not None]
    if theirs is None or not ours or abs(ours[0] - theirs) <= tolerance:
        return []
    unit, digits = (" %" if cell.measure.unit == "%" else ""), cell.measure.digits
    return [f"another teacher ({ours[0]:.{digits}f}{unit} instead of {theirs:.{digits}f}{unit})"]
