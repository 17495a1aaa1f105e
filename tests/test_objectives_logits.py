"""Logit objectives against the golden vectors of the released implementations, values and gradients.

Each adapter below says which of our calls gives which output of the reference; a test walks all cases of its method,
compares every output and prints how many ran. No case and no output is skipped; `golden.tolerance` states in
writing for which outputs only finiteness can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import golden
import pytest
import torch
import torch.nn.functional as F
from logit_batches import batch, context, total
from torch import Tensor

from distillery.objectives.base import Batch, Objective
from distillery.objectives.ctkd import CTKD, curriculum, learned_temperature
from distillery.objectives.dist import DIST, dist_terms
from distillery.objectives.dkd import DKD, dkd_terms
from distillery.objectives.kd import KD, kd_loss
from distillery.objectives.label_revision import LabelRevision, mean_over, revision_terms
from distillery.objectives.mlkd import (
    MLKD,
    correlation_rows,
    instance_rows,
    median,
    uncertain_classes,
    uncertain_rows,
)
from distillery.objectives.mlkd_levels import MLKDLevels
from distillery.objectives.plugins.revise import revised_log_probs, trust
from distillery.objectives.plugins.standardise import Standardise, standardise
from distillery.objectives.plugins.swap import Swap, swap_top_and_label
from distillery.objectives.rc import RC, corrected, rc_loss
from distillery.objectives.rld import RLD, correlation_mask, masked_correlation, sample_confidence
from distillery.objectives.ttm import TTM, power_sum, transformed_rows, ttm_loss
from distillery.objectives.wttm import WTTM, wttm_loss

Outputs = dict[str, Tensor]
Hyper = dict[str, Any]
Adapter = Callable[[Hyper, Tensor, Tensor, Tensor], Outputs]


def make(cls: type, student: Tensor, labels: Tensor, plugin: bool = False, **hyper: Any) -> Objective:
    objective = cls(context(labels, student), cls.Config(**hyper))
    if plugin:
        objective.plugins.append(Standardise())
    return objective.to(student.dtype)


def terms_of(objective: Objective, rows: Batch, **groups: str) -> Outputs:
    """The distiller's outputs: its total and the sums of the named groups of terms."""
    terms = objective(rows)
    outputs = {"distiller_total": sum(terms.values(), start=torch.zeros(()))}
    for group, names in groups.items():
        outputs[f"distiller_loss_{group}"] = sum((terms[n] for n in names.split()), start=torch.zeros(()))
    return outputs


def kd(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor, plugin: bool = False) -> Outputs:
    weights = {k: hyper[k] for k in ("ce_weight", "kd_weight")}
    objective = make(KD, s, y, plugin, temperature=hyper["T"], **weights)
    pair = objective.logits(s, t, y)
    return {
        "loss": kd_loss(*pair, hyper["T"]),
        "standardized_student": standardise(s),
        "standardized_teacher": standardise(t),
        **terms_of(objective, batch(s, t, y), ce="ce", kd="kd"),
    }


def dkd(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor, plugin: bool = False) -> Outputs:
    weights = {k: hyper[k] for k in ("alpha", "beta", "ce_weight")}
    objective = make(DKD, s, y, plugin, temperature=hyper["T"], warmup_epochs=hyper["warmup"], **weights)
    tckd, nckd = dkd_terms(*objective.logits(s, t, y), y, hyper["T"])
    return {
        "loss": hyper["alpha"] * tckd + hyper["beta"] * nckd,
        "term_tckd": tckd,
        "term_nckd": nckd,
        **terms_of(objective, batch(s, t, y, hyper["epoch"]), ce="ce", kd="tckd nckd"),
    }


def rld(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor) -> Outputs:
    weights = {k: hyper[k] for k in ("alpha", "beta", "ce_weight")}
    names = {"temperature": hyper["T"], "alpha_temperature": hyper["alpha_T"], "same_temperature": hyper["same_t"]}
    objective = make(RLD, s, y, hyper["logit_stand"], warmup_epochs=hyper["warmup"], **names, **weights)
    pair = objective.logits(s, t, y)
    scd = sample_confidence(*pair, y, hyper["alpha_T"])
    mcd = masked_correlation(*pair, y, hyper["T"])
    return {
        "loss": hyper["alpha"] * scd + hyper["beta"] * mcd,
        "term_scd": scd,
        "term_mcd": mcd,
        "mcd_mask": correlation_mask(pair[1], y),
        **terms_of(objective, batch(s, t, y, hyper["epoch"]), ce="ce", kd="scd mcd"),
    }


def ctkd(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor, plugin: bool = False) -> Outputs:
    pair = (standardise(s), standardise(t)) if plugin else (s, t)
    if hyper["mode"] == "fixed":
        temperature = torch.tensor(hyper["kd_T"], dtype=s.dtype, requires_grad=True)
        loss = kd_loss(*pair, temperature)
        return {"loss": loss, "grad_temp": torch.autograd.grad(loss, temperature, retain_graph=True)[0]}
    span = {k: hyper[k] for k in ("t_start", "t_end")}
    decay = {"decay_epochs": hyper["decay_loops"], "decay_max": hyper["decay_max"], "decay_min": hyper["decay_min"]}
    weights = {"ce_weight": hyper["gamma"], "kd_weight": hyper["alpha"], "initial": hyper["global_T"]}
    objective = make(CTKD, s, y, plugin, **span, **decay, **weights)
    rows = batch(s, t, y, hyper["epoch"])
    all_terms = total(objective, rows)
    temperature = learned_temperature(objective.raw_temperature.detach(), **span).requires_grad_()
    loss = kd_loss(*pair, temperature)
    return {
        "loss": loss,
        "lambda": curriculum(rows.epoch, **decay),
        "temp": temperature,
        "loss_cls": F.cross_entropy(s, y),
        "total": all_terms,
        "grad_global_T": torch.autograd.grad(all_terms, objective.raw_temperature, retain_graph=True)[0],
        "grad_temp": torch.autograd.grad(loss, temperature, retain_graph=True)[0],
    }


def ttm(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor, weighted: bool = False) -> Outputs:
    cls, function, gamma = (WTTM, wttm_loss, hyper["l"]) if weighted else (TTM, ttm_loss, hyper["l"])
    objective = make(cls, s, y, gamma=gamma, beta=3.0, ce_weight=0.0)
    loss = function(s, t, gamma)
    torch.testing.assert_close(total(objective, batch(s, t, y)), 3.0 * loss)
    return {
        "loss": loss,
        "per_sample_kl": transformed_rows(s, t, gamma),
        "per_sample_norm": power_sum(t, gamma),
        "transformed_teacher": (gamma * t).softmax(dim=1),
    }


def dist(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor) -> Outputs:
    objective = make(DIST, s, y, temperature=hyper["tau"], beta=hyper["beta"], gamma=hyper["gamma"], ce_weight=0.0)
    inter, intra = dist_terms(s, t, hyper["tau"])
    return {"loss": total(objective, batch(s, t, y)) / 2, "term_inter": inter, "term_intra": intra}


def label_revision(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor) -> Outputs:
    objective = make(LabelRevision, s, y, **hyper)
    right = t.argmax(dim=1) == y
    mse_logits, mse_probs = revision_terms(s, t, y, hyper["eta"])
    loss = total(objective, batch(s, t, y))
    return {
        "loss": loss,
        "distiller_loss": loss,
        "distiller_total": loss,
        "term_ce_right": mean_over(F.cross_entropy(s, y, reduction="none"), right),
        "term_mse_logits_right": mse_logits,
        "term_mse_probs_wrong": mse_probs,
        "num_right": right.sum(),
        "num_wrong": (~right).sum(),
        "revised_wrong_teacher_probs": revised_log_probs(t, y, hyper["eta"]).exp()[~right],
        "beta": trust(t, y, hyper["eta"])[~right].unsqueeze(1),
    }


def swap(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor) -> Outputs:
    objective = make(KD, s, y, hyper["logit_stand"], temperature=hyper["T"], ce_weight=0.0, kd_weight=1.0)
    objective.plugins.insert(0, Swap())
    loss = total(objective, batch(s, t, y))
    return {
        "loss": loss,
        "distiller_loss_kd": loss,
        "distiller_total": loss,
        "swapped_teacher": swap_top_and_label(t, y),
    }


def rc(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor) -> Outputs:
    weights = {k: hyper[k] for k in ("ce_weight", "kd_weight", "rc_weight")}
    objective = make(RC, s, y, hyper["logit_stand"], temperature=hyper["T"], **weights)
    pair = objective.logits(s, t, y)
    return {
        "loss": rc_loss(pair[0], y, hyper["T"]),
        "term_kd": kd_loss(*pair, hyper["T"]),
        "rc_target_logits": corrected(pair[0], y),
        **terms_of(objective, batch(s, t, y), ce="ce", kd="kd", rc="rc"),
    }


def mlkd_levels(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor) -> Outputs:
    objective = make(MLKDLevels, s, y, hyper["logit_stand"], temperature=hyper["T"], ce_weight=0.0)
    terms = {name: term / 0.9 for name, term in objective(batch(s, t, y)).items()}
    return terms | {"instance_per_sample": instance_rows(*objective.logits(s, t, y), hyper["T"])}


def mlkd(hyper: Hyper, s: Tensor, t: Tensor, y: Tensor, s2: Tensor, t2: Tensor, plugin: bool = False) -> Outputs:
    weights = {k: hyper[k] for k in ("ce_weight", "kd_weight")}
    objective = make(MLKD, s, y, plugin, temperature=hyper["T"], **weights)
    rows = batch(s, t, y, strong=(s2, t2))
    terms = objective(rows)

    def dropped(level: int, *views: tuple[Tensor, Tensor, float]) -> Tensor:
        rows = torch.stack([correlation_rows(*view)[level] for view in views])
        return hyper["kd_weight"] * rows.sum(dim=0).mean()

    first, last = (hyper["T"], 3.0, 5.0), (2.0, 6.0)
    by_class = dropped(1, *[(s2, t2, each) for each in first], *[(s, t, each) for each in last])
    by_batch = dropped(0, *[(s2, t2, each) for each in first + last])
    p = t.softmax(dim=1)
    return {
        "term_kd_weak": terms["kd"],
        "term_kd_strong": terms["kd_strong"],
        "term_cc_weak": terms["class"],
        "term_bc_weak": terms["batch"],
        # Computed and dropped by the reference; ours never computes them in training.
        "term_cc_strong": by_class,
        "term_bc_strong": by_batch * uncertain_rows(t).double().mean(),
        "conf_thresh": median(p.amax(dim=1)),
        "class_conf_thresh": median(p.sum(dim=0)),
        "instance_mask": uncertain_rows(t),
        "class_mask": uncertain_classes(t),
        **terms_of(objective, rows, ce="ce ce_strong", kd="kd kd_strong", cc="class", bc="batch"),
    }


ADAPTERS: dict[str, Callable[..., Outputs]] = {
    "kd": kd,
    "kd_ls": lambda *a: kd(*a, plugin=True),
    "dkd": dkd,
    "dkd_ls": lambda *a: dkd(*a, plugin=True),
    "mlkd": mlkd,
    "mlkd_ls": lambda *a: mlkd(*a, plugin=True),
    "mlkd_levels": mlkd_levels,
    "ctkd": ctkd,
    "ctkd_ls": lambda *a: ctkd(*a, plugin=True),
    "ttm": ttm,
    "wttm": lambda *a: ttm(*a, weighted=True),
    "dist": dist,
    "label_revision": label_revision,
    "swap": swap,
    "rc": rc,
    "rld": rld,
}


def compare(case: golden.Case) -> tuple[int, list[str]]:
    """Compare every output of one case; return how many there were and the ones that differ."""
    inputs, expected = golden.load(case)
    student, strong = inputs["student_logits"].requires_grad_(), inputs.get("student_logits_strong")
    views = (strong.requires_grad_(), inputs["teacher_logits_strong"]) if strong is not None else ()
    ours = ADAPTERS[case["method"]](case["hyper"], student, inputs["teacher_logits"], inputs["labels"], *views)
    failures = []
    for name in expected:
        if name not in ours:
            # All gradients are by the weak view, also those of the "strong" terms; one is by the strong view.
            by_strong = name == "grad_distiller_total_strong"
            of = "distiller_total" if by_strong else name.removeprefix("grad_")
            ours[name] = gradient(ours[of], strong if by_strong and strong is not None else student)
        try:
            golden.check(case, name, ours[name])
        except AssertionError as error:
            failures.append(str(error).splitlines()[0])
    return len(expected), failures


def gradient(value: Tensor, wrt: Tensor) -> Tensor:
    """The gradient, zeros where the value does not depend on the input."""
    (found,) = torch.autograd.grad(value, wrt, retain_graph=True, allow_unused=True)
    return torch.zeros_like(wrt) if found is None else found


@pytest.mark.parametrize("method", ADAPTERS)
def test_reference(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = golden.cases(method)
    results = [compare(case) for case in cases]
    failures = [failure for _, found in results for failure in found]
    with capsys.disabled():
        print(f"\n  {method}: {len(results)} golden cases, {sum(n for n, _ in results)} outputs compared", end=" ")
    assert not failures, f"{len(failures)} outputs differ:\n" + "\n".join(failures[:20])
    assert len(results) == golden.count(method) > 0
