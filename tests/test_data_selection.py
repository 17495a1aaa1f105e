"""Data selection (arXiv:2404.03693): which rows are kept, by which score, and what the others learn from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from logit_batches import batch, context, total
from logit_cases import OBJECTIVES, made, normal, teachers_of
from torch import Tensor

from distillery.config import Problems
from distillery.models.base import Outputs
from distillery.objectives.base import Context, Incompatible
from distillery.objectives.kd import KD, kd_loss
from distillery.objectives.plugins.select import Select, gradient_norm, influence, margin
from distillery.tasks.classification.building import _on_train


def scored(labels: Tensor, logits: Tensor, pooled: Tensor | None = None, **hyper: Any) -> Select:
    single = Outputs(logits[:1], None if pooled is None else pooled[:1])
    ctx = Context(logits.shape[1], labels, single, single, None, lambda: Outputs(logits, pooled))
    return Select(ctx, Select.Config(**hyper))


def test_unselected_rows_get_the_ground_truth_only() -> None:
    z, t, y = normal(6, 5).requires_grad_(), normal(6, 5, seed=1), torch.arange(6) % 5
    keep = torch.tensor([True, False, True, True, False, False])
    objective = KD(context(y, z))
    whole = total(objective, batch(z, t, y))
    objective.selector = scored(y, t)
    assert not objective.static

    def loss(kept: Tensor) -> Tensor:
        objective.selector.keep = kept
        return total(objective, batch(z, t, y))

    by_hand = 0.1 * F.cross_entropy(z[keep], y[keep]) + 0.9 * kd_loss(z[keep], t[keep])
    torch.testing.assert_close(loss(keep), 0.5 * by_hand + 0.5 * F.cross_entropy(z[~keep], y[~keep]))
    torch.testing.assert_close(loss(torch.ones(6, dtype=torch.bool)), whole)
    torch.testing.assert_close(loss(torch.zeros(6, dtype=torch.bool)), F.cross_entropy(z, y))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_selection_combines_with_every_objective(name: str) -> None:
    z, t, y = normal(6, 5).requires_grad_(), normal(6, 5, seed=1), torch.arange(6) % 5
    objective = made(name, context(y, z))
    objective.selector = scored(y, t, fraction=0.5)
    assert objective.selector.keep.sum() == 3
    loss = total(objective, batch(z, teachers_of(objective, t, -t), y, strong=(z, t)))
    loss.backward()
    assert loss.isfinite() and z.grad is not None and z.grad.isfinite().all()


def test_scores_are_what_they_say() -> None:
    logits, pooled, labels = normal(30, 4), normal(30, 3, seed=1).abs(), torch.arange(30) % 4
    keep = scored(labels, logits, score="loss", fraction=0.3, keep="lowest").keep
    losses = F.cross_entropy(logits, labels, reduction="none")
    assert keep.sum() == 9 and losses[keep].max() < losses[~keep].min()
    assert ((margin(logits, labels) > 0) == (logits.argmax(dim=1) == labels)).all()
    keep = scored(labels, logits, score="confidence", fraction=0.3).keep
    top = logits.softmax(dim=1).amax(dim=1)
    assert top[keep].min() > top[~keep].max()
    keep = scored(labels, logits, pooled, score="gradient", fraction=0.3).keep
    norms = gradient_norm(logits, pooled, labels)
    assert norms[keep].min() > norms[~keep].max()


def test_a_teacher_that_is_sure_of_all_still_orders_them() -> None:
    labels, gaps = torch.zeros(1000, dtype=torch.long), torch.linspace(14, 30, 1000)
    logits = torch.stack([gaps, torch.zeros(1000)], dim=1)[torch.randperm(1000)]
    for score, keep in (("confidence", "highest"), ("loss", "lowest"), ("gradient", "lowest")):
        kept = scored(labels, logits, torch.zeros(1000, 1), score=score, fraction=0.3, keep=keep).keep
        assert logits[kept, 0].min() > logits[~kept, 0].max(), score
    assert scored(labels, logits, fraction=1e-9).keep.sum() == 1, "a fraction above 0 is somebody"


def test_last_layer_scores_agree_with_autograd() -> None:
    pooled, labels = normal(20, 3, seed=1), torch.arange(20) % 4
    head = torch.nn.Linear(3, 4).double()
    logits = head(pooled).detach()

    def gradient(rows: Tensor) -> Tensor:
        loss = F.cross_entropy(head(pooled[rows]), labels[rows])
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(head.parameters()))])

    singles = torch.stack([gradient(torch.tensor([i])) for i in range(20)])
    torch.testing.assert_close(gradient_norm(logits, pooled, labels), singles.norm(dim=1))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7))
    first, second = order[:10], order[10:]
    expected = torch.empty(20).double()
    expected[first], expected[second] = singles[first] @ gradient(second), singles[second] @ gradient(first)
    torch.testing.assert_close(influence(logits, pooled, labels, seed=7), expected)


def test_a_teacher_without_pooled_features_scores_too() -> None:
    data = SimpleNamespace(plain=lambda _: [(torch.eye(4), None)] * 2, normalise=lambda images, _: images)
    outputs = _on_train(lambda images: Outputs(images), data, torch.float32)
    assert outputs.pooled is None and outputs.logits.shape == (8, 4)


def test_selection_says_what_it_lacks() -> None:
    labels, logits = torch.arange(4), normal(4, 4)
    with pytest.raises(Incompatible, match="needs the teacher's pooled features"):
        scored(labels, logits, score="gradient")
    with pytest.raises(Problems, match="fraction: greater than 0"):
        Select.Config.read({"fraction": 0.0})
    with pytest.raises(Incompatible, match="this method has none"):
        Select(context(labels, logits))
