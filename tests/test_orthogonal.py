"""Orthogonal projectors keep their promise under any optimiser; whitening and standardising stand any batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distillery.objectives.features import standardise
from distillery.objectives.orthogonal import OrthogonalProjector, expm, householder, matrix_exp
from distillery.objectives.vkd import vkd_loss, whiten

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["householder", "matrix_exp", "cayley"])
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 10), (4, 20), (8, 8), (10, 6)])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_projector_stays_orthonormal_under_weight_decay(
    kind: str, inputs: int, outputs: int, optimizer: type[torch.optim.Optimizer]
) -> None:
    torch.manual_seed(0)
    made = OrthogonalProjector(inputs, outputs, kind)
    start = made.weight().detach()
    hyper = {"lr": 0.05, "momentum": 0.9} if optimizer is torch.optim.SGD else {"lr": 1e-2}
    trained = optimizer(made.parameters(), weight_decay=0.05, **hyper)
    x, target = torch.randn(32, inputs), torch.randn(32, outputs)
    first = vkd_loss(made(x), target)
    for _ in range(200):
        trained.zero_grad()
        vkd_loss(made(x), target).backward()
        trained.step()
    weight = made.weight()
    gram = weight.T @ weight if outputs >= inputs else weight @ weight.T
    torch.testing.assert_close(gram, torch.eye(len(gram)), atol=2e-6, rtol=0)
    assert (weight - start).abs().max() > 0.1  # it moved, and for the better
    assert vkd_loss(made(x), target) < first


@given(st.integers(1, 12), st.integers(0, 2**31), st.sampled_from([1e-3, 1.0, 30.0]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_maps_agree_with_torch(n: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(n, max(1, n // 2), generator=generator, dtype=torch.float64)
    lower = x.tril(-1)
    signs = torch.ones(x.shape[1], dtype=x.dtype)
    torch.testing.assert_close(
        householder(x, signs), torch.linalg.householder_product(lower, 2 / (1 + lower.square().sum(0)))
    )
    skew = torch.randn(n, n, generator=generator, dtype=torch.float64) * scale
    skew = skew - skew.T
    torch.testing.assert_close(expm(skew), torch.matrix_exp(skew), atol=1e-9, rtol=0)


@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 2**31), st.integers(0, 3))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_whitening(count: int, width: int, seed: int, dead: int) -> None:
    """The covariance is the identity on the span of the batch: all of it if that is larger than the width."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(width, width, generator=generator, dtype=torch.float64) + 5
    x[:, :dead] = 0.1
    white = whiten(x)
    assert white.isfinite().all()
    torch.testing.assert_close(white.mean(0), torch.zeros(width, dtype=x.dtype), atol=1e-6, rtol=0)
    assert (white[:, :dead].abs() < 1e-6).all()
    covariance = white.T @ white / max(count - 1, 1)
    rank = min(count - 1, max(width - dead, 0))
    torch.testing.assert_close(covariance @ covariance, covariance, atol=1e-5, rtol=0)  # a projection ...
    assert covariance.trace().item() == pytest.approx(rank, abs=1e-4)  # ... of this rank: the identity if it is full


def test_whitening_keeps_each_channel_closest_to_itself() -> None:
    x = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
    correlation = (standardise(x) * standardise(whiten(x))).mean(0)
    assert (correlation > 0.95).all()


def test_standardise_is_the_plain_one_where_that_is_finite() -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(standardise(x), (x - x.mean(0)) / x.std(0))
    x[:, 1] = 0.1
    assert (standardise(x)[:, 1] == 0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 0.3, 5.0])
def test_the_exponential_of_a_tall_matrix_is_that_of_the_whole(scale: float) -> None:
    """It is taken in a space of twice its columns; torch's of the n x n skew matrix is the same, so is the gradient."""
    torch.manual_seed(0)
    x = (scale * torch.randn(40, 7, dtype=torch.float64)).requires_grad_()
    lower = torch.cat([x.tril(-1), x.new_zeros(40, 33)], 1)
    whole = torch.matrix_exp(lower - lower.T)[:, :7]
    ours, weight = matrix_exp(x), torch.randn(40, 7, dtype=torch.float64)
    torch.testing.assert_close(ours, whole, rtol=0, atol=1e-12)
    gradients = [torch.autograd.grad((w * weight).sum(), x, retain_graph=True)[0] for w in (ours, whole)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-10)
