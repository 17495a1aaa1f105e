"""CRD: images drawn to stand against each other, and a bank of embeddings that survives a restart."""

from __future__ import annotations

import feature_batches as fb
import torch
from feature_cases import make, run

from distillery.objectives.features import unit
from distillery.objectives.negatives import ClassSampler


def test_negatives_are_distinct_of_other_classes_and_uniform() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3])
    sampler = ClassSampler(labels, 4)
    anchors = torch.tensor([0, 1, 2, 3])
    counts = torch.zeros(4, len(labels))
    draws = 4000
    for _ in range(draws):
        drawn = sampler.negatives(anchors)
        assert drawn.shape == (4, 4)
        assert (labels[drawn] != anchors[:, None]).all()
        assert all(len(set(row.tolist())) == 4 for row in drawn)
        counts.scatter_add_(1, drawn, torch.ones(4, 4))
    other = labels[None] != anchors[:, None]
    expected = other / other.sum(1, keepdim=True) * 4 * draws
    deviation = (expected * (1 - expected / draws)).clamp(min=1).sqrt()
    assert ((counts - expected).abs() < 4.5 * deviation).all()
    assert (labels[sampler.positives(anchors)] == anchors).all()
    assert {sampler.positives(anchors[:1]).item() for _ in range(200)} == {0, 1, 2}


def test_number_of_negatives_is_cut_to_what_there_is() -> None:
    sampler = ClassSampler(torch.tensor([0, 0, 0, 1, 1]), 16384)
    assert sampler.count == 2
    assert sampler.negatives(torch.tensor([0])).sort().values.tolist() == [[3, 4]]


def test_crd_resumes_exactly() -> None:
    own, other = run("resnet8", 8, 4), run("resnet8x4", 8, 4)
    one = make("crd", "resnet8x4", "resnet8")
    one.distill(fb.batch(own, other))
    two = make("crd", "resnet8x4", "resnet8")
    two.load_state_dict(one.state_dict())
    losses = []
    for objective in (one, two):
        torch.manual_seed(5)
        losses.append(fb.distilled(objective, fb.batch(own, other)))
    assert losses[0] == losses[1]
    normalisers = [b.log_normaliser.clone() for b in (one.student_bank, two.student_bank)]
    assert normalisers[0] == normalisers[1] != 0


def test_a_zero_embedding_keeps_its_row_of_the_bank() -> None:
    objective = make("crd", "resnet8x4", "resnet8")
    rows = objective.student_bank.rows.clone()
    objective.student_bank.remember(torch.tensor([3]), torch.zeros(1, rows.shape[1]), 0.5)
    torch.testing.assert_close(objective.student_bank.rows[3], unit(rows[3:4])[0])
