"""Where a run's teacher comes in: what its method draws from the teacher's ranking, in every epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillery.tasks.ranking.lists import Lists, Ranker
from distillery.tasks.ranking.models import Recommender, Scores


class ListTeacher:
    """A `TeacherSource` that gives items to score, and its scores of them where the method compares with those.

    The first of the cached tensors of an epoch are items, which the loader takes; the second, if there is one, scores.
    """

    def __init__(self, lists: Lists) -> None:
        self.lists = lists

    def rows(self, index: Tensor, view: Tensor, epoch: int, seed: int = 0) -> list[Tensor]:
        """Items (and scores) of the (N,) users `index`, (N, M) each. Users have no views."""
        items, taught = self.lists.items(seed, epoch), self.lists.taught
        return [items[index], *([] if taught is None else [taught[index]])]

    def teach(self, inputs: Any, rows: list[Tensor]) -> tuple[Scores, ...]:
        return tuple(Scores(scores) for scores in rows)


@torch.no_grad()
def ranker(teacher: Recommender, pairs: Any) -> Ranker:
    """A frozen teacher as a ranker: its embeddings are spread over the graph once."""
    users, items = (f.detach().float() for f in teacher.eval().factors())
    return Ranker(pairs.train, pairs.items, lambda user: users[user] @ items.T)
