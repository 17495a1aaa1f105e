"""Recommenders whose score is the inner product of a user's and an item's embedding: BPR-MF and LightGCN."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distillery.models.base import Network, Outputs
from distillery.tasks.ranking.interactions import Interactions


@dataclass(frozen=True, slots=True)
class Scores(Outputs):
    """What a recommender gives for a batch of users with M items each; `logits` are their (B, M) scores.

    Attributes:
        ego: (B, d) trained embeddings of the user and of the first two items, which the penalty is on; empty where no
            training is meant.
        floor: added to the probability of a pair before its logarithm in the plain loss, as released for this network.
    """

    ego: tuple[Tensor, ...] = ()
    floor: float = 0.0


class Recommender(Network):
    """Base of the recommenders: one trained embedding for each user and item.

    Attributes:
        user, item: (U, d) and (I, d) parameters.
        floor: see `Scores`.
        no_classifier: what `load_student` says of it.
    """

    floor: ClassVar[float] = 0.0
    no_classifier: ClassVar[str] = (
        "a recommender, which scores the items of its study for the study's users: its tensors `user` and `item` are "
        "read by distillery.records.io.load_tensors"
    )

    def __init__(self, data: Interactions, dim: int) -> None:
        super().__init__()
        self.user = nn.Parameter(torch.empty(data.users, dim))
        self.item = nn.Parameter(torch.empty(data.items, dim))

    def factors(self) -> tuple[Tensor, Tensor]:
        """The embeddings whose inner products are the scores: (U, d) and (I, d)."""
        return self.user, self.item

    def forward(self, inputs: tuple[Tensor, Tensor], preacts: bool = False) -> Scores:  # type: ignore[override]
        """Score item[b, m] for user[b]: a pair of (B,) and (B, M) int64, M >= 2, in."""
        (user, item), (users, items) = inputs, self.factors()
        # `index_select` and not F.embedding: the same numbers, and on a CPU its gradient takes half the time.
        of_items = items.index_select(0, item.flatten()).view(*item.shape, -1)
        scores = (users.index_select(0, user)[:, None] * of_items).sum(2)
        ego = (self.user[user], self.item[item[:, 0]], self.item[item[:, 1]])
        return Scores(scores, ego=ego, floor=self.floor)


class BPRMF(Recommender):
    """Matrix factorisation: Rendle et al., "BPR: Bayesian personalized ranking" (arXiv:1205.2618, UAI 2009)."""

    floor = 1e-10

    def __init__(self, data: Interactions, dim: int) -> None:
        super().__init__(data, dim)
        for table in (self.user, self.item):
            nn.init.xavier_uniform_(table)


class LightGCN(Recommender):
    """He et al., "LightGCN" (arXiv:2002.02126, SIGIR 2020): embeddings averaged over `layers` + 1 steps on the graph.

    The released code of UnKD ranks by sigmoid(score), which in float32 makes ties of all scores above about 17; here it
    is the score itself that ranks. The order is the same wherever the sigmoid keeps it.
    """

    weight: Tensor
    column: Tensor
    starts: Tensor

    def __init__(self, data: Interactions, dim: int, layers: int = 2) -> None:
        """The graph is made of the training pairs; it is no part of the state dict."""
        super().__init__(data, dim)
        self.layers = layers
        for table in (self.user, self.item):
            nn.init.normal_(table, std=0.1)
        # Kept as its three dense parts: those move, convert and copy like every buffer.
        for name, part in zip(("starts", "column", "weight"), normalised_graph(data), strict=True):
            self.register_buffer(name, part, persistent=False)

    def factors(self) -> tuple[Tensor, Tensor]:
        layer = total = torch.cat([self.user, self.item])
        graph = _sparse(self.starts, self.column, self.weight.to(layer.dtype))
        for _ in range(self.layers):
            layer = _Spread.apply(graph, layer)
            total = total + layer
        mean = total / (self.layers + 1)
        return mean[: len(self.user)], mean[len(self.user) :]


def normalised_graph(data: Interactions) -> tuple[Tensor, Tensor, Tensor]:
    """D^-1/2 A D^-1/2 of the graph that has an edge for every training pair, users first, in compressed rows.

    Returns where each of the U + I rows starts (U + I + 1,), the column (2N,) and the weight (2N,) float64 of every
    edge. A user or item without a pair has an empty row.
    """
    train, nodes = data.train, data.users + data.items
    row = torch.cat([train.user, train.item + data.users])
    column = torch.cat([train.item + data.users, train.user])
    degree = torch.bincount(row, minlength=nodes)
    scale = degree.clamp(min=1).double().rsqrt()
    order = (row * nodes + column).argsort()
    starts = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
    return starts, column[order], (scale[row] * scale[column])[order]


def _sparse(starts: Tensor, column: Tensor, weight: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")  # it is "in beta", and three times as fast
        size = len(starts) - 1
        return torch.sparse_csr_tensor(starts, column, weight, (size, size), check_invariants=False)


class _Spread(torch.autograd.Function):
    """graph @ layer; its derivative is the same product again, since the graph is symmetric."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, graph: Tensor, layer: Tensor) -> Tensor:
        ctx.graph = graph  # type: ignore[attr-defined]
        return graph @ layer

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[None, Tensor]:
        return None, ctx.graph @ grad  # type: ignore[attr-defined]
