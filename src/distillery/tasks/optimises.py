"""A question that every task's rehearsal asks of a recipe."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distillery.errors import DistilleryError
from distillery.study.blocks import Recipe
from distillery.training.optimizer import make_optimizer


def optimises(where: str, recipe: Recipe) -> Iterator[str]:
    """Whether the optimiser can be made: one of the user's own may fail in any way."""
    try:
        make_optimizer([("weight", torch.nn.Parameter(torch.ones(2, 2)))], recipe, torch.device("cpu"))
    except DistilleryError as error:
        yield f"{where}: {error}"
    except Exception as error:
        name = type(recipe.part("optimizer")).__name__
        yield f"{where}: optimizer {name} raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"
