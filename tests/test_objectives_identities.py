"""The identities that the logit methods' papers state, one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from logit_batches import batch, context, total
from logit_cases import made, normal
from torch import Tensor

from distillery.config import Problems
from distillery.objectives.base import Incompatible, warmup
from distillery.objectives.build import Combined, build
from distillery.objectives.clkd import correlation_gap
from distillery.objectives.ctkd import CTKD, curriculum
from distillery.objectives.dkd import DKD, dkd_terms
from distillery.objectives.ensemble import combined_log_probs, disagreement, ensemble_loss, label_log_probs
from distillery.objectives.kd import KD, kd_loss
from distillery.objectives.label_revision import LabelRevision
from distillery.objectives.mlkd import instance_levels, masked_mean, median, uncertain_rows, weak_terms
from distillery.objectives.plugins.revise import Revise, revised_log_probs
from distillery.objectives.plugins.standardise import standardise
from distillery.objectives.plugins.swap import swap_top_and_label
from distillery.objectives.rc import corrected
from distillery.objectives.rld import RLD
from distillery.objectives.soft import kl_rows, one_against_rest
from distillery.objectives.ttm import TTM, power_sum, transformed_rows
from distillery.objectives.wttm import wttm_loss
from distillery.study.blocks import Method

# Cross-entropy


def test_soft_targets_are_not_rounded_to_the_precision_of_the_network() -> None:
    logits, targets = normal(8, 1000).bfloat16(), normal(8, 1000, seed=1).softmax(dim=1).float()
    [loss] = made("ce", context(targets.argmax(dim=1), logits)).supervised(batch(logits, logits, targets)).values()
    assert torch.equal(loss, F.cross_entropy(logits.float(), targets))


# Logit standardisation (arXiv:2403.01427)


def test_standardised_rows_have_mean_0_and_deviation_1_and_forget_scale_and_shift() -> None:
    z = normal(6, 20)
    for unbiased in (True, False):
        once = standardise(z, unbiased)
        torch.testing.assert_close(once.mean(dim=1), torch.zeros(6).double())
        torch.testing.assert_close(once.std(dim=1, unbiased=unbiased), torch.ones(6).double(), rtol=1e-6, atol=0)
        torch.testing.assert_close(standardise(3.7 * z - 11, unbiased), once, rtol=1e-6, atol=1e-6)
        assert (once.argsort(dim=1) == z.argsort(dim=1)).all()
    assert standardise(1e4 * torch.eye(20), unbiased=False).abs().max() <= math.sqrt(19) + 1e-4
    assert (standardise(torch.full((2, 10), 0.5)) == 0).all()


def test_standardised_kd_vanishes_for_a_student_that_is_the_teacher_up_to_scale_and_shift() -> None:
    z, y = normal(6, 20), torch.zeros(6, dtype=torch.long)
    objective = made("kd", context(y, z), {"standardise": {}}, ce_weight=0.0)
    assert total(objective, batch(0.2 * z + 5, z, y)) < 1e-10
    assert total(made("kd", context(y, z), ce_weight=0.0), batch(0.2 * z + 5, z, y)) > 0.1


def test_plugins_correct_the_teacher_before_they_standardise_it() -> None:
    z, t, y = normal(6, 5), normal(6, 5, seed=1), torch.arange(6) % 5
    for order in (["standardise", "swap"], ["swap", "standardise"]):
        objective = made("kd", context(y, z), {name: {} for name in order})
        assert torch.equal(objective.logits(z, t, y)[1], standardise(swap_top_and_label(t, y)))


def test_standardisation_touches_only_the_instance_level_of_mlkd() -> None:
    z, t, y = normal(8, 5), normal(8, 5, seed=1), torch.arange(8) % 5
    for name, touched in (("mlkd", {"kd", "kd_strong"}), ("mlkd_single", {"kd"}), ("mlkd_levels", {"instance"})):
        rows = batch(z, t, y, strong=(z.flip(0), t.flip(0)))
        plain = made(name, context(y, z)).distill(rows)
        changed = made(name, context(y, z), {"standardise": {}}).distill(rows)
        assert {n for n in plain if not torch.equal(plain[n], changed[n])} == touched


# Decoupled and refined distillation (arXiv:2203.08679, arXiv:2408.07703)


def test_kd_is_tckd_plus_nckd_weighted_by_the_teachers_doubt() -> None:
    z, t, y = normal(1, 10), normal(1, 10, seed=1), torch.tensor([3])
    tckd, nckd = dkd_terms(z, t, y, 4.0)
    doubt = 1 - (t / 4).softmax(dim=1)[0, 3]
    torch.testing.assert_close(tckd + doubt * nckd, kd_loss(z, t, 4.0))


def test_rld_is_dkd_where_the_teacher_is_right() -> None:
    z, t = normal(16, 10), normal(16, 10, seed=1)
    y = t.argmax(dim=1)
    rld = RLD(context(y, z), RLD.Config(same_temperature=True))
    dkd = DKD(context(y, z))
    torch.testing.assert_close(total(rld, batch(z, t, y, 5)), total(dkd, batch(z, t, y, 5)))
    wrong = (y + 1) % 10
    assert not torch.isclose(total(rld, batch(z, t, wrong, 5)), total(dkd, batch(z, t, wrong, 5)))


def test_warm_up_counts_from_one() -> None:
    z, t, y = normal(4, 5), normal(4, 5, seed=1), torch.arange(4)
    for name in ("dkd", "rld"):
        objective = made(name, context(y, z), warmup_epochs=20.0)
        full = sum(objective.distill(batch(z, t, y, 20)).values())
        for epoch, factor in ((1, 0.05), (7, 0.35), (21, 1.0), (240, 1.0)):
            torch.testing.assert_close(sum(objective.distill(batch(z, t, y, epoch)).values()), factor * full)
        assert torch.equal(made(name, context(y, z), warmup_epochs=0.0)(batch(z, t, y))["ce"], F.cross_entropy(z, y))


@pytest.mark.parametrize("name", ["dkd", "rld"])
def test_the_warm_up_is_as_exact_as_the_loss(name: str) -> None:
    """The epoch comes in float32 from the loop, but one third of a float64 loss is not that of a float32 quotient."""
    z, t, y = normal(4, 5), normal(4, 5, seed=1), torch.arange(4)
    objective = made(name, context(y, z), warmup_epochs=21.0)
    rows = replace(batch(z, t, y), epoch=torch.tensor(7.0))
    full = objective.distill(replace(rows, epoch=torch.tensor(21.0)))
    for key, term in objective.distill(rows).items():
        assert term.dtype == torch.float64
        assert abs(term.item() - 7 / 21 * full[key].item()) <= 1e-15 * full[key].item()
    single = batch(z.float(), t.float(), y, 7)
    assert single.epoch.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in objective.distill(single).values())
    assert warmup(single.epoch, 21.0, torch.float32) == torch.tensor(7.0) / 21.0


def test_log_odds_are_exact_where_the_probability_has_underflowed() -> None:
    odds, rest = one_against_rest(torch.tensor([[1e4, -1e4, -1e4]]), torch.tensor([0]))
    torch.testing.assert_close(odds, torch.tensor([2e4 - math.log(2)]))
    torch.testing.assert_close(rest.softmax(dim=1), torch.tensor([[0.0, 0.5, 0.5]]))


# Transformed teacher matching (arXiv:2402.11148)


def renyi_entropy(p: Tensor, order: float) -> Tensor:
    return p.pow(order).sum(dim=1).log() / (1 - order)


def test_ttm_is_kd_with_a_renyi_entropy_regulariser() -> None:
    z, t, temperature = normal(8, 10), normal(8, 10, seed=1), 4.0
    p, q = (t / temperature).softmax(dim=1), z.softmax(dim=1)
    entropy = -(p * p.log()).sum(dim=1)
    identity = temperature * kl_rows(z, t, temperature) + (temperature - 1) * (
        entropy - renyi_entropy(q, 1 / temperature)
    )
    torch.testing.assert_close(transformed_rows(z, t, 1 / temperature), identity)


def test_ttm_with_beta_36_has_the_share_of_cross_entropy_of_kd_at_09_and_4() -> None:
    z, t, y = normal(8, 10).requires_grad_(), normal(8, 10, seed=1), torch.arange(8)
    kd, ttm = KD(context(y, z)), TTM(context(y, z), TTM.Config(gamma=0.25, beta=36.0))
    regulariser = 36 * 3 * renyi_entropy(z.softmax(dim=1), 0.25).mean()
    both = total(ttm, batch(z, t, y)) + regulariser, 10 * total(kd, batch(z, t, y))
    torch.testing.assert_close(*(torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in both))


def test_wttm_weighs_by_the_power_sum() -> None:
    z, t = normal(8, 10), normal(8, 10, seed=1)
    torch.testing.assert_close(power_sum(t, 0.1), t.softmax(dim=1).pow(0.1).sum(dim=1))
    torch.testing.assert_close(power_sum(torch.zeros(1, 100), 0.1), torch.tensor([100**0.9]))
    assert power_sum(1e4 * torch.eye(5), 0.1).sub(1).abs().max() < 1e-6
    torch.testing.assert_close(wttm_loss(z, t, 1.0), kl_rows(z, t).mean())


# Curriculum temperature (arXiv:2211.16231)


def test_the_temperature_ascends_the_distillation_loss_after_a_cosine_curriculum() -> None:
    z, t, y = normal(8, 10), normal(8, 10, seed=1), torch.arange(8)
    factors = [curriculum(torch.tensor(float(epoch))).item() for epoch in (0, 5, 10, 240)]
    assert factors == pytest.approx([0, -0.5, -1, -1], abs=1e-6)
    objective = CTKD(context(y, z)).double()
    before = total(objective, batch(z, t, y, 10))
    before.backward()
    step = 0.01 * objective.raw_temperature.grad
    with torch.no_grad():
        objective.raw_temperature -= step
        assert total(objective, batch(z, t, y, 10)) > before


def test_the_gradient_of_the_temperature_is_that_of_finite_differences() -> None:
    z, t = normal(8, 10), normal(8, 10, seed=1)
    temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: kd_loss(z, t, value), temperature)


# Label correction: swap, revision, RC


@pytest.mark.parametrize("names", [("First", "Second"), ("Second", "First")])
def test_the_order_in_params_yaml_changes_nothing(names: tuple[str, ...], tmp_path: Path) -> None:
    """Of transforms of one order neither: what a spec does not say must not decide a loss."""
    file = tmp_path / "plugs.py"
    kinds = "".join(f"\n\nclass {name}(Transform):\n    pass\n" for name in ("First", "Second"))
    file.write_text(f"from distillery.objectives.base import Transform\n{kinds}")
    t = normal(8, 10)
    objective = made("kd", context(t.argmax(dim=1), t), {f"{file}:{name}": {} for name in names})
    assert [type(plugin).__name__ for plugin in objective.plugins] == ["First", "Second"]


def test_two_selections_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "plugs.py"
    file.write_text("from distillery.objectives.base import Selector\n\n\nclass All(Selector):\n    pass\n")
    t = normal(8, 10)
    with pytest.raises(Problems, match="both choose the images that the teacher supervises: keep one"):
        made("kd", context(t.argmax(dim=1), t), {"select": {}, f"{file}:All": {}})


def test_two_classes_are_not_standardised() -> None:
    t = normal(8, 2)
    with pytest.raises(Incompatible, match="plug-in standardise leaves nothing of 2 classes"):
        made("kd", context(t.argmax(dim=1), t), {"standardise": {}})


def test_a_right_teacher_is_neither_swapped_nor_revised() -> None:
    t = normal(8, 10)
    y = t.argmax(dim=1)
    assert torch.equal(swap_top_and_label(t, y), t)
    assert torch.equal(Revise()(t, t, y)[1], t)
    unlabelled = torch.full((8,), -1)
    assert torch.equal(swap_top_and_label(t, unlabelled), t)
    assert torch.equal(Revise()(t, t, unlabelled)[1], t)


def test_a_wrong_teacher_is_put_right() -> None:
    t = normal(8, 10)
    y = t.argmin(dim=1)
    swapped = swap_top_and_label(t, y)
    assert (swapped.argmax(dim=1) == y).all() and torch.equal(swapped.sort().values, t.sort().values)
    revised = Revise(Revise.Config(eta=0.99))(t, t, y)[1]
    assert (revised.argmax(dim=1) == y).all()
    torch.testing.assert_close(revised.logsumexp(dim=1), t.logsumexp(dim=1))  # the level of the logits stays
    others = torch.ones_like(t, dtype=torch.bool).scatter(1, y[:, None], False)
    ratio = (revised.softmax(dim=1) / t.softmax(dim=1))[others].reshape(
        8, 9
    )  # the other classes keep their proportions
    torch.testing.assert_close(ratio, ratio[:, :1].expand(8, 9))
    tie = revised_log_probs(t, y, eta=1.0)
    torch.testing.assert_close(tie.amax(dim=1), tie.gather(1, t.argmax(dim=1, keepdim=True)).squeeze(1))


@pytest.mark.parametrize("eta", [0.0, -1.0, 1.5])
def test_eta_out_of_range_is_refused(eta: float) -> None:
    said = "eta: greater than 0" if eta <= 0 else "eta: less than or equal to 1"
    for kind in (Revise, LabelRevision):
        with pytest.raises(Problems, match=said):
            kind.Config.read({"eta": eta})


def test_label_revision_leaves_no_cross_entropy_on_the_rows_the_teacher_gets_wrong() -> None:
    z, t = normal(8, 10).requires_grad_(), normal(8, 10, seed=1)
    y = t.argmax(dim=1)
    y[4:] = (y[4:] + 1) % 10
    objective = made("label_revision", context(y, z))
    (gradient,) = torch.autograd.grad(objective.supervised(batch(z, t, y))["ce"], z)
    torch.testing.assert_close(gradient[:4], torch.autograd.grad(F.cross_entropy(z[:4], y[:4]), z)[0][:4])
    assert (gradient[4:] == 0).all()


def test_rc_sends_no_gradient_through_its_target() -> None:
    z = normal(4, 5).requires_grad_()
    target = corrected(z, torch.arange(4))
    assert not target.requires_grad
    torch.testing.assert_close(target.diagonal(), (z.diagonal() + z.amax(dim=1)).detach())


# Multi-level distillation (CVPR 2023)


def test_mlkd_masks_rows_or_scales_the_mean() -> None:
    rows, mask = torch.tensor([1.0, 2.0, 3.0, 10.0]), torch.tensor([True, True, False, False])
    assert masked_mean(rows, mask, "released") == 2.0  # mean 4, half of the rows
    assert masked_mean(rows, mask, "rows") == 0.75
    z, t, y = normal(8, 10), normal(8, 10, seed=1), torch.arange(8)
    kept = uncertain_rows(t)
    assert kept.sum() == 4
    temperatures = (4.0, 3.0, 5.0, 2.0, 6.0)
    kl = torch.stack([temperature**2 * kl_rows(z, t, temperature) for temperature in temperatures])
    torch.testing.assert_close(instance_levels(z, t, torch.tensor(temperatures, dtype=z.dtype)), kl)
    terms = weak_terms(z, t, kl, torch.tensor(temperatures, dtype=z.dtype), "rows")
    torch.testing.assert_close(terms["kd"], kl.sum(0)[kept].sum() / 8)
    released = made("mlkd", context(y, z))(batch(z, t, y, strong=(z, t)))
    by_rows = made("mlkd", context(y, z), masks="rows")(batch(z, t, y, strong=(z, t)))
    assert {n for n in released if not torch.equal(released[n], by_rows[n])} == {"kd", "class", "batch"}


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_median_interpolates(n: int) -> None:
    values = normal(n)
    torch.testing.assert_close(median(values), torch.quantile(values, 0.5))


# Class-aware and ensemble distillation


def test_clkd_vanishes_with_its_gradient_at_the_teacher() -> None:
    z, y = normal(8, 10).requires_grad_(), torch.arange(8)
    loss = total(made("clkd", context(y, z), ce_weight=0.0), batch(z, z.detach().clone(), y))
    (gradient,) = torch.autograd.grad(loss, z)
    assert loss == 0 and (gradient == 0).all()


def test_clkd_forms_are_the_public_readings() -> None:
    z, t = normal(6, 4), normal(6, 4, seed=1)
    classes = 4

    def unit_rows(x: Tensor) -> Tensor:
        return torch.stack([row / row.square().sum().sqrt() for row in x])

    def centred_columns(x: Tensor) -> list[Tensor]:
        return [x[:, j] - x[:, j].sum() / len(x) for j in range(classes)]

    # HyunJunSik/Malware-KD: a sum over classes of outer products of the images' centred logits; squared.
    a, b = (sum(torch.outer(c, c) for c in centred_columns(x)) / (classes - 1) for x in (z, t))
    assert a.shape == (6, 6)
    torch.testing.assert_close(correlation_gap(z, t, "sample_gram"), torch.norm(a - b, "fro") ** 2 / classes**2)
    # The later version: covariances of the classes; not squared.
    a, b = ((len(x) - 1) * torch.cov(x.T) / (classes - 1) for x in (z, t))
    torch.testing.assert_close(correlation_gap(z, t, "covariance"), torch.norm(a - b, "fro") / classes**2)
    # A fork of mdistiller: products of the classes as they are, their rows brought to length 1, mean squared gap.
    a, b = (unit_rows(torch.einsum("bi,bj->ij", x, x)) for x in (z, t))
    torch.testing.assert_close(correlation_gap(z, t, "normalised_gram"), (a - b).square().mean() / classes**2)
    y = torch.arange(6) % 4
    for form in ("covariance", "sample_gram", "normalised_gram"):
        terms = made("clkd", context(y, z), form=form)(batch(z, t, y))
        torch.testing.assert_close(terms["correlation"], 0.4 * correlation_gap(z, t, form))


def test_ensemble_trusts_the_teacher_that_knows_the_label() -> None:
    right, wrong = 20.0 * torch.eye(4), 20.0 * torch.eye(4).roll(1, dims=1)
    y, teachers = torch.arange(4), torch.stack([right, wrong])
    weights = F.log_softmax(label_log_probs(teachers, y), dim=0)
    torch.testing.assert_close(combined_log_probs(teachers, weights, 1.0).exp(), right.softmax(dim=1))
    z = normal(4, 4).float()
    # Half of the ensemble is right, so its voice counts half.
    torch.testing.assert_close(ensemble_loss(z, teachers, y, 2.0), 0.5 * kd_loss(z, right, 2.0))


def test_ensemble_of_one_is_kd_scaled_by_its_correctness() -> None:
    z, t, y = normal(6, 4), normal(6, 4, seed=1), torch.arange(6) % 4
    scale = t.softmax(dim=1).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(ensemble_loss(z, t[None], y, 4.0), (16 * scale * kl_rows(z, t, 4.0)).mean())


def test_unlabelled_rows_count_more_where_the_teachers_disagree() -> None:
    same, other = 20.0 * torch.eye(4), 20.0 * torch.eye(4).roll(1, dims=1)
    assert disagreement(torch.stack([same, same])).abs().max() < 1e-6
    torch.testing.assert_close(disagreement(torch.stack([same, other])), torch.ones(4), atol=1e-4, rtol=0)
    z, y = normal(4, 4).float(), torch.full((4,), -1)
    torch.testing.assert_close(ensemble_loss(z, torch.stack([same, same]), y, 2.0), kd_loss(z, same, 2.0))
    terms = made("ensemble", context(y, z))(batch(z, (same, same), y))
    assert terms["ce"] == 0 and sum(terms.values()).isfinite()


class _Second(KD):
    """Shows twice as much, and takes a second turn."""

    def shown(self, inputs: Any, targets: Any) -> Any:
        return 2 * inputs

    def then(self, batch: Any) -> Iterator[dict[str, Tensor]]:
        yield {"second": batch.student.logits.sum()}


def test_partners_leave_a_method_what_it_shows_and_its_second_turn() -> None:
    y, z, x = torch.arange(6) % 3, torch.randn(6, 3), torch.randn(6, 3)
    whole = Combined(context(y, z), _Second(context(y, z)), {"dkd": (1.0, DKD(context(y, z)))})
    assert whole.shown(1, None) == 2
    assert [[*terms] for terms in whole.then(batch(x, z, y))] == [["second"]]


def test_a_partners_weight_is_a_factor_of_its_terms() -> None:
    y, z, x = torch.arange(6) % 3, torch.randn(6, 3), torch.randn(6, 3)
    whole, part = (
        build(Method(objective="kd", plus={"dkd": said}), context(y, z))(batch(x, z, y))
        for said in ({}, {"weight": 0.25})
    )
    ours = [name for name in whole if name.startswith("dkd_")]
    assert ours and all(torch.equal(part[name], 0.25 * whole[name]) and whole[name] > 0 for name in ours)
    assert all(torch.equal(part[name], whole[name]) for name in whole.keys() - {*ours})
