"""Feature objectives against the golden vectors of the released implementations, values and gradients.

Each adapter below says which of our calls gives which output of the reference; a test walks all cases of its method,
compares every output and prints how many ran. No case is skipped; `golden.tolerance` states in writing for which
outputs only finiteness can be compared, and `vkd_weight_decay` is a record of a failure: there ours must differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import feature_batches as fb
import golden
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distillery.objectives.at import AT, at_loss
from distillery.objectives.crd import CRD
from distillery.objectives.features import align, stages
from distillery.objectives.itrd import ITRD, correlation_loss, mutual_loss
from distillery.objectives.kdsvd import KDSVD, kdsvd_loss
from distillery.objectives.nst import NST, nst_loss
from distillery.objectives.orthogonal import OrthogonalProjector, orthogonal_weight
from distillery.objectives.pkt import PKT, pkt_loss
from distillery.objectives.reviewkd import ReviewKD, hcl_loss, review
from distillery.objectives.rkd import RKD, differences, mean_distance, rkd_terms
from distillery.objectives.sp import SP, sp_loss
from distillery.objectives.vid import VID, start_log_scale, vid_loss
from distillery.objectives.vkd import VkD, vkd_loss

Values = dict[str, Tensor | float]
Hyper = dict[str, Any]
Inputs = dict[str, Tensor]


def leaf(inputs: Inputs, *names: str) -> list[Tensor]:
    return [inputs[name].requires_grad_() for name in names]


def gradient(value: Tensor, wrt: Tensor) -> Tensor:
    """The gradient, zeros where the value does not depend on the input."""
    (found,) = torch.autograd.grad(value, wrt, retain_graph=True, allow_unused=True)
    return torch.zeros_like(wrt) if found is None else found


def pooled_batch(x: Inputs) -> tuple[Any, Any]:
    """Context and batch of the pooled features of a case."""
    student, teacher = fb.outputs(pooled=x["student_feat"]), fb.outputs(pooled=x["teacher_feat"])
    return fb.context(student, teacher), fb.batch(student, teacher)


def rkd(h: Hyper, x: Inputs) -> Values:
    (s,) = leaf(x, "student_feat")
    terms = rkd_terms(s, x["teacher_feat"], h["squared"], h["eps"])
    loss = h["distance_weight"] * terms["distance"] + h["angle_weight"] * terms["angle"]
    ctx, rows = pooled_batch(x)
    out = {f"term_{k}": v for k, v in terms.items()} | {"loss": loss}
    out["distiller_loss_kd"] = fb.distilled(RKD(ctx, RKD.Config(**h)), rows)
    for name in ("student", "teacher"):
        out[f"{name}_mean_distance"] = mean_distance(differences(x[f"{name}_feat"]), h["squared"], h["eps"])[1]
    return out | {f"grad_{k}": gradient(out[k], s) for k in ("loss", "term_distance", "term_angle")}


def pkt(h: Hyper, x: Inputs) -> Values:
    (s,) = leaf(x, "student_feat")
    loss = pkt_loss(s, x["teacher_feat"], h["eps"])
    ctx, rows = pooled_batch(x)
    return {
        "loss": loss,
        "distiller_loss_kd": fb.distilled(PKT(ctx, PKT.Config(**h)), rows),
        "grad_loss": gradient(loss, s),
    }


def spatial(x: Inputs, which: str) -> tuple[list[tuple[Tensor, Tensor]], Any, Any]:
    """The chosen stages ("all", "first", "last"), and context and batch of networks that have just these."""
    pairs = [(x[f"student_stage{i}"].requires_grad_(), x[f"teacher_stage{i}"]) for i in range(2)]
    pairs = {"all": pairs, "first": pairs[:1], "last": pairs[1:]}[which]
    student, teacher = (fb.outputs(maps=side) for side in zip(*pairs, strict=True))
    return pairs, fb.context(student, teacher), fb.batch(student, teacher)


def by_stage(h: Hyper, x: Inputs, function: Callable[..., Tensor], cls: type, **hyper: Any) -> Values:
    pairs, ctx, rows = spatial(x, h["stages"])
    parts = torch.stack([function(s, t) for s, t in pairs])
    out: Values = {"per_stage": parts.detach(), "loss": parts.sum()}
    if cls is not SP or h["stages"] == "last":  # the class takes the last stage, as released
        out["distiller_loss_kd"] = fb.distilled(cls(ctx, cls.Config(feat_weight=h["feat_weight"], **hyper)), rows)
    return out | stage_gradients(parts.sum(), x)


def stage_gradients(loss: Tensor, x: Inputs) -> Values:
    """Gradients by the student's stages that take part."""
    parts = {f"grad_stage{i}": x[f"student_stage{i}"] for i in range(2)}
    return {name: gradient(loss, s) for name, s in parts.items() if s.requires_grad}


def at(h: Hyper, x: Inputs) -> Values:
    return by_stage(h, x, lambda s, t: at_loss(s, t, h["p"]), AT, p=h["p"])


def sp(h: Hyper, x: Inputs) -> Values:
    return by_stage(h, x, sp_loss, SP)


def nst(h: Hyper, x: Inputs) -> Values:
    return by_stage(h, x, nst_loss, NST)


def vid(h: Hyper, x: Inputs) -> Values:
    pairs, ctx, rows = spatial(x, h["stages"])
    hyper = {"feat_weight": h["feat_weight"], "eps": h["eps"], "init_variance": h["init_pred_var"]}
    objective = VID(ctx, VID.Config(**hyper, train_variance=True))
    objective.to(pairs[0][0].dtype)
    out: Values = {"log_scale_init": start_log_scale(h["init_pred_var"], h["eps"])}
    parts, weights = [], []
    for i, regress in enumerate(objective.regressors):
        regress.load_state_dict({k: x[f"regressor{i}.{k}"] for k in ("0.weight", "2.weight", "4.weight")})
        with torch.no_grad():
            getattr(objective, f"log_scale{i}").fill_(out["log_scale_init"])
    loss = fb.distilled(objective, rows)
    out |= {"distiller_loss_kd": loss, "loss": loss / h["feat_weight"]}
    for i, (regress, (s, t)) in enumerate(zip(objective.regressors, stages(rows), strict=True)):
        small, target = align(s, t)
        parts.append(vid_loss(regress(small), getattr(objective, f"log_scale{i}"), target, h["eps"]))
        weights += [(f"grad_regressor{i}.{k}", p) for k, p in regress.named_parameters()]
        weights += [(f"grad_log_scale{i}", getattr(objective, f"log_scale{i}"))]
    found = {k: gradient(out["loss"], p) for k, p in weights}
    return out | {"per_stage": torch.stack(parts)} | found | stage_gradients(out["loss"], x)


def kdsvd(h: Hyper, x: Inputs) -> Values:
    pairs, ctx, rows = spatial(x, "all")
    loss = kdsvd_loss([s for s, _ in pairs], [t for _, t in pairs], h["k"])
    out: Values = {"loss": loss, "distiller_loss_kd": fb.distilled(KDSVD(ctx, KDSVD.Config(**h)), rows)}
    return out | {f"grad_stage{i}": gradient(loss, s) for i, (s, _) in enumerate(pairs)}


def hcl(h: Hyper, x: Inputs) -> Values:
    count = sum(name.startswith("student") for name in x)
    parts = torch.stack([hcl_loss(x[f"student{i}"].requires_grad_(), x[f"teacher{i}"]) for i in range(count)])
    grads = {f"grad_student{i}": gradient(parts.sum(), x[f"student{i}"]) for i in range(count)}
    return {"loss": parts.sum(), "per_level": parts, **grads}


def reviewkd(h: Hyper, x: Inputs) -> Values:
    names = [name for name in x if name.startswith("student_stage")]
    (pooled, *maps) = leaf(x, "student_pooled", *names)
    taps = "preacts" if h["stu_preact"] else "maps"
    student = fb.outputs(pooled=pooled, **{taps: maps})
    teacher = fb.outputs(pooled=x["teacher_pooled"], preacts=[x[n.replace("student", "teacher_preact")] for n in names])
    ctx, rows = fb.context(student, teacher), fb.batch(student, teacher, epoch=h["epoch"])
    config = ReviewKD.Config(feat_weight=h["weight"], warmup_epochs=h["warmup"], student_taps=taps)
    objective = ReviewKD(ctx, config).to(pooled.dtype)
    state = {k[5:].replace("att_conv", "attention"): v for k, v in x.items() if k.startswith("abfs.")}
    objective.fusions.load_state_dict(state, strict=False)
    assert set(dict(objective.fusions.named_parameters())) == set(state)
    loss = fb.distilled(objective, rows)
    out: Values = {"distiller_loss_kd": loss, "loss": loss / (h["weight"] * min(h["epoch"] / h["warmup"], 1.0))}
    out["running_mean_after_abfs.0.conv1"] = objective.fusions[0].conv1[1].running_mean.clone()
    deep = [t.shape[-2:] for t in objective._deep_first(rows.teacher, "preacts")]
    fused = review(objective.fusions, objective._deep_first(rows.student, taps), deep)[::-1]
    for i, level in enumerate(fused):
        out |= {f"fused_level{i}_sum": level.sum(), f"fused_level{i}_abs_sum": level.abs().sum()}
    out |= {f"grad_{n.removeprefix('student_')}": gradient(out["loss"], x[n]) for n in ("student_pooled", *names)}
    parameters = dict(objective.fusions.named_parameters())
    out["grad_abfs_l2norms"] = torch.stack([gradient(out["loss"], parameters[n]).norm() for n in state])
    return out


def crd(h: Hyper, x: Inputs) -> Values:
    def rows(step: int) -> tuple[Any, Any]:
        return fb.outputs(pooled=x[f"student_feat_step{step}"]), fb.outputs(pooled=x[f"teacher_feat_step{step}"])

    hyper = {"feat_dim": h["feat_dim"], "nce_k": h["nce_k"], "momentum": h["momentum"], "feat_weight": h["feat_weight"]}
    labels = torch.arange(h["n_data"]) % 10
    config = CRD.Config(temperature=h["T"], **hyper)
    objective = CRD(fb.context(*rows(0), labels), config).to(x["memory_v1"].dtype)
    for name, linear in (("s", objective.embed_student), ("t", objective.embed_teacher)):
        linear.load_state_dict({k: x[f"embed_{name}.{k}"] for k in ("weight", "bias")})
    objective.student_bank.rows.copy_(x["memory_v1"])
    objective.teacher_bank.rows.copy_(x["memory_v2"])
    out: Values = {}
    for step in range(2):
        s, index = x[f"student_feat_step{step}"].requires_grad_(), x[f"index_step{step}"].long()
        chosen = x[f"contrast_index_step{step}"].long()
        from_student, from_teacher = objective.contrast(s, x[f"teacher_feat_step{step}"], index, chosen)
        loss = from_student + from_teacher
        found = {
            "loss": loss,
            "term_student": from_student,
            "term_teacher": from_teacher,
            "distiller_loss_kd": h["feat_weight"] * loss,
            "Z_v1": objective.teacher_bank.log_normaliser.exp(),
            "Z_v2": objective.student_bank.log_normaliser.exp(),
            "memory_v1_rows_after": objective.student_bank.rows[index],
            "memory_v2_rows_after": objective.teacher_bank.rows[index],
            "grad_student_feat": gradient(loss, s),
            "grad_embed_s.weight": gradient(loss, objective.embed_student.weight),
            "grad_embed_t.weight": gradient(loss, objective.embed_teacher.weight),
        }
        out |= {f"step{step}_{name}": value for name, value in found.items()}
    return out


def itrd(h: Hyper, x: Inputs) -> Values:
    (s,) = leaf(x, "student_feat")
    ctx, rows = pooled_batch(x)
    weights = {k: h[k] for k in ("lambda_corr", "lambda_mutual")}
    objective = ITRD(ctx, ITRD.Config(alpha=h["alpha_it"], **weights))
    objective.to(s.dtype).embed.load_state_dict({k: x[f"embed.{k}"] for k in ("weight", "bias")})
    embedded = objective.embed(s)
    out: Values = {
        "term_correlation": correlation_loss(embedded, x["teacher_feat"], h["alpha_it"]),
        "term_mutual": mutual_loss(embedded, x["teacher_feat"]),
        "loss": fb.distilled(objective, rows),
    }
    return out | {f"grad_{k}": gradient(out[k], s) for k in list(out)}


def reflections(x: Inputs) -> Tensor:
    """The base matrix H(v1) H(v2) of a case."""
    v1, v2 = (x[k] / x[k].norm() for k in ("base_v1", "base_v2"))
    eye = torch.eye(len(v1), dtype=v1.dtype)
    return (eye - 2 * torch.outer(v1, v1)) @ (eye - 2 * torch.outer(v2, v2))


def vkd_orthogonal(h: Hyper, x: Inputs) -> Values:
    (free,) = leaf(x, "unconstrained")
    weight = orthogonal_weight(free, h["orthogonal_map"], reflections(x) if h["use_trivialization"] else None)
    rows, columns = (torch.arange(n, dtype=weight.dtype) for n in weight.shape)
    probe = torch.cos(0.37 * rows[:, None] + 0.91 * columns)
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    error = (tall.T @ tall - torch.eye(tall.shape[1], dtype=weight.dtype)).abs().max()
    return {"weight": weight, "gram_max_error": error, "grad_unconstrained": gradient((weight * probe).sum(), free)}


def projector(x: Inputs, kind: str = "auto") -> OrthogonalProjector:
    """Our projector at the state of a case: its signs are the truncated diagonal of the released parameter."""
    free = x["unconstrained"]
    made = OrthogonalProjector(free.shape[1], free.shape[0], kind).to(free.dtype)
    made.base.copy_(reflections(x))
    made.signs.copy_(free.diagonal().trunc())
    made.free.data.copy_(free)
    return made


def vkd(h: Hyper, x: Inputs) -> Values:
    s = x["student_tokens"].mean(dim=1).requires_grad_()
    t = x["teacher_map"].mean(dim=(2, 3))
    student = fb.outputs(x["student_distill_logits"], s)
    teacher = fb.outputs(x["teacher_logits"], t)
    hyper = {"feat_weight": h["alpha"], "kd_weight": h["gamma"], "temperature": h["T"], "beta": h["smooth_l1_beta"]}
    objective = VkD(fb.context(student, teacher), VkD.Config(**hyper)).to(s.dtype)
    objective.projector = projector(x)
    terms = objective.distill(fb.batch(student, teacher))
    targets, weight = x["labels"], objective.projector.weight()
    soft = targets if targets.is_floating_point() else F.one_hot(targets, x["student_logits"].shape[1]).to(s.dtype)
    xe = -(soft * x["student_logits"].log_softmax(dim=1)).sum(dim=1).mean()
    return {
        "loss_repr": terms["feature"],
        "loss_kl": terms.get("kd", torch.zeros(())),
        "loss_xe": xe,
        "total": xe + fb.total(terms),
        "grad_student_pooled_repr": gradient(terms["feature"], s),
        "projected_student": objective.projector(s),
        "normalised_teacher": F.layer_norm(t, t.shape[1:], eps=h["layer_norm_eps"]),
        "projection_weight_checksum": torch.stack([weight.sum(), weight.abs().sum()]),
        "grad_unconstrained": gradient(terms["feature"], objective.projector.free),
    }


def vkd_standardised(h: Hyper, x: Inputs) -> Values:
    (s,) = leaf(x, "student_feat")
    projected = projector(x)(s)
    if h["affine"]:
        projected = projected * x["scale"] + x["bias"]
    teacher = x.get("teacher_feat", projected.detach())
    loss = vkd_loss(projected, teacher, "standardise", h["smooth_l1_beta"])
    return {"loss": loss, "grad_student_feat": gradient(loss, s), "projected_student": projected}


ADAPTERS: dict[str, Callable[[Hyper, Inputs], Values]] = {
    "rkd": rkd,
    "pkt": pkt,
    "sp": sp,
    "at": at,
    "nst": nst,
    "vid": vid,
    "kdsvd": kdsvd,
    "reviewkd_hcl": hcl,
    "reviewkd": reviewkd,
    "crd": crd,
    "itrd": itrd,
    "vkd_orthogonal": vkd_orthogonal,
    "vkd": vkd,
    "vkd_standardised": vkd_standardised,
}


def compare(case: golden.Case) -> tuple[int, list[str]]:
    """Compare every output of one case; return how many there were and the ones that differ."""
    inputs, expected = golden.load(case)
    hyper = dict(case["hyper"])
    if case["method"] == "crd":  # the released code keeps both in a float32 buffer
        hyper |= {"T": case["effective_T"], "momentum": case["effective_momentum"]}
    ours = ADAPTERS[case["method"]](hyper, inputs)
    failures = []
    for name in expected:
        try:
            golden.check(case, name, ours[name])
        except (AssertionError, KeyError) as error:
            failures.append(f"{case['id']}: {error!r}".splitlines()[0])
    return len(expected), failures


@pytest.mark.parametrize("method", ADAPTERS)
def test_reference(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    cases = golden.cases(method)
    results = [compare(case) for case in cases]
    failures = [failure for _, found in results for failure in found]
    with capsys.disabled():
        print(f"\n  {method}: {len(results)} golden cases, {sum(n for n, _ in results)} outputs compared", end=" ")
    assert not failures, f"{len(failures)} outputs differ:\n" + "\n".join(failures[:40])
    assert len(results) == golden.count(method) > 0


def decayed(kind: type[torch.optim.Optimizer], hyper: Hyper, steps: int) -> tuple[OrthogonalProjector, Tensor]:
    """Train a projector under weight decay; give it and the norms of its weight before and after each step."""
    torch.manual_seed(0)
    made = OrthogonalProjector(64, 128)
    optimizer = kind(made.parameters(), lr=hyper["lr"], weight_decay=hyper["weight_decay"])
    norms = [made.weight().norm()]
    for _ in range(steps):
        optimizer.zero_grad()
        vkd_loss(made(torch.randn(16, 64)), torch.randn(16, 128)).backward()
        optimizer.step()
        norms.append(made.weight().norm())
    return made, torch.stack(norms).detach()


def test_the_released_projector_dies_of_weight_decay_and_ours_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    cases = golden.cases("vkd_weight_decay")
    for case in cases:
        released = golden.expected(case)["projection_frobenius_norm_before_and_after_steps"]
        assert released[0] == pytest.approx(8, abs=1e-4)  # the square root of 64 orthonormal columns
        assert (released[1:] == 0).all()
        made, norms = decayed(torch.optim.AdamW, case["hyper"], steps=50)
        torch.testing.assert_close(norms, torch.full_like(norms, 8.0))
        assert made.free.abs().max() > 0  # and it has learned
    with capsys.disabled():
        print(f"\n  vkd_weight_decay: {len(cases)} golden cases, ours keeps its projector", end=" ")
    assert len(cases) == golden.count("vkd_weight_decay") > 0


def test_no_method_of_the_golden_set_is_left_out() -> None:
    import test_objectives_logits as logits

    assert set(golden.manifest()["methods"]) == {*ADAPTERS, "vkd_weight_decay", *logits.ADAPTERS}
