"""Parts of a recipe: optimisers, learning-rate schedules, augmentations. Importing this imports none of them.

`optimizer: {name: adamw, ...}`, `schedule: {name: cosine, ...}` and the list `augmentation: {then: [{name: mixup}]}` in
params.yaml name them; the block's other keys are those of the component's `Config`. A class of one's own is named by
its place, `path/to/file.py:Class`.
"""

from __future__ import annotations

from typing import Any

from distillery.registry import Component, Registry

OPTIMIZERS = Registry(
    "optimizer",
    "distillery.recipe.base:Optimizer",
    {
        "sgd": "distillery.recipe.sgd:SGD",
        "adam": "distillery.recipe.adam:Adam",
        "adamw": "distillery.recipe.adamw:AdamW",
    },
)

SCHEDULES = Registry(
    "schedule",
    "distillery.recipe.base:Schedule",
    {
        "steps": "distillery.recipe.steps:Steps",
        "cosine": "distillery.recipe.cosine:Cosine",
        "polynomial": "distillery.recipe.polynomial:Polynomial",
    },
)

AUGMENTATIONS = Registry(
    "augmentation",
    "distillery.recipe.base:Augment",
    {
        "randaugment": "distillery.recipe.randaugment:RandAugment",
        "randaugment_torchvision": "distillery.recipe.randaugment:TorchvisionRandAugment",
        "three_augment": "distillery.recipe.three_augment:ThreeAugment",
        "color_jitter": "distillery.recipe.color_jitter:ColorJitter",
        "random_erasing": "distillery.recipe.random_erasing:RandomErasing",
        "mixup": "distillery.recipe.mixing:Mixup",
        "cutmix": "distillery.recipe.mixing:CutMix",
        "mixup_cutmix": "distillery.recipe.mixing:MixupCutMix",
    },
    elsewhere={"size_gated": "distillery.tasks.detection.augment:SizeGated"},
)

# By key of a recipe: the registry, the component that is meant where the recipe names none, and that one's own keys,
# which a recipe may hold without a block.
PARTS: dict[str, tuple[Registry, str, tuple[str, ...]]] = {
    "optimizer": (OPTIMIZERS, "sgd", ("momentum", "nesterov")),
    "schedule": (SCHEDULES, "steps", ("milestones", "lr_decay")),
}


def recipe_components(recipe: dict[str, Any]) -> list[Component]:
    """The optimiser, the schedule and the augmentations that a recipe, as a mapping, names."""
    found = [registry[(recipe.get(key) or {"name": usual})["name"]] for key, (registry, usual, _) in PARTS.items()]
    return found + [AUGMENTATIONS[part["name"]] for part in (recipe.get("augmentation") or {}).get("then", ())]
