"""CAT-KD: the maps, the term, and training by it."""

from __future__ import annotations

import pytest
import torch
from models_examples import FAMILIES, example
from torch import Tensor

from distillery import models
from distillery.models.base import Outputs, with_cams
from distillery.objectives.base import Batch, Context, Incompatible
from distillery.objectives.cat_kd import CATKD, attention

# What the functions of GzyAftermath/CAT-KD (commit 2657a68) give for `maps`: the term, its gradient's norm, one entry.
RELEASED = {
    (2, True): (0.45992439851178246, 0.36259312585062364, -0.0063643440526623225),
    (2, False): (0.42818083815267505, 0.06678485654765129, -0.00311254922032769),
    (4, True): (0.12071700164901521, 0.09945393496351074, 0.001800368678965659),
    (1, False): (0.10712791258877395, 0.03340532526608687, -0.0013424687000489106),
    (3, True): (0.2644945757766723, 0.047482911785011434, 0.003756786839933779),
}


def maps() -> tuple[Tensor, Tensor]:
    student = (torch.arange(2 * 3 * 8 * 8, dtype=torch.float64) * 0.37).sin().view(2, 3, 8, 8)
    return student.requires_grad_(), ((torch.arange(2 * 3 * 4 * 4, dtype=torch.float64) * 0.53).cos() * 2).view(
        2, 3, 4, 4
    )


def batch(student: Tensor, teacher: Tensor) -> Batch:
    ours, theirs = (Outputs(m.mean((2, 3)), cams=m) for m in (student, teacher))
    return Batch(torch.tensor([0, 2])[: len(student)], ours, (theirs,), torch.ones(()), torch.arange(len(student)))


def objective(**keys: object) -> CATKD:
    shown = batch(*maps())
    return CATKD(Context(3, torch.arange(3), shown.student, shown.teacher), CATKD.Config.read(keys))


@pytest.mark.parametrize(("resolution", "normalise"), RELEASED)
def test_value_and_gradient_are_those_of_the_released_code(resolution: int, normalise: bool) -> None:
    student, teacher = maps()
    term = objective(cat_weight=10.0, resolution=resolution, normalise=normalise).distill(batch(student, teacher))[
        "cat"
    ]
    term.backward()
    assert student.grad is not None
    found = (term.item(), student.grad.norm().item(), student.grad[1, 2, 3, 5].item())
    assert found == pytest.approx(tuple(10 * x for x in RELEASED[resolution, normalise]), rel=1e-12)


def test_maps_of_zeros_have_no_infinite_gradient() -> None:
    student = torch.zeros(1, 3, 4, 4, requires_grad=True)
    objective().distill(batch(student, maps()[1][:1].float()))["cat"].backward()
    assert student.grad is not None and student.grad.isfinite().all() and student.grad.abs().max() < 1e3
    assert attention(student, 2, True).abs().max() == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_the_mean_of_the_maps_is_the_logits_without_the_bias(name: str) -> None:
    """And their gradient reaches the classifier."""
    network, images = example(name)
    torch.nn.init.normal_(network.head.bias)
    outputs = network(images)
    found = with_cams(network, outputs)
    assert found.cams is not None and found.cams.shape[:2] == (2, 7)
    torch.testing.assert_close(found.cams.mean((2, 3)) + network.head.bias, outputs.logits)
    found.cams.square().mean().backward()
    assert network.head.weight.grad is not None and network.head.weight.grad.abs().sum() > 0


def test_networks_without_such_maps_are_refused() -> None:
    network = models.build("deit_w48_p2", 10, 1).eval()
    outputs = with_cams(network, network(torch.randn(1, 1, 8, 8)))
    with pytest.raises(Incompatible, match="class activation maps, but the student gives none"):
        CATKD(Context(10, torch.arange(10), outputs, outputs))


def test_a_wide_resnet_is_classified_after_its_closing_activation() -> None:
    """Its last tap is before it: the maps are not of that."""
    network = models.build("wrn_16_1", 10).eval()
    outputs = network(torch.randn(1, 3, 32, 32))
    assert outputs.last is not None and (outputs.last >= 0).all() and (outputs.maps[-1] < 0).any()
