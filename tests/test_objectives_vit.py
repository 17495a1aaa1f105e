"""DeiT's distillation head, logit standardisation on it, and VkD on tokens: golden vectors, and what else must hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vision_golden as golden
from torch import Tensor

from distillery.models import build
from distillery.models.base import Network, Outputs
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.deit import DeiT
from distillery.objectives.plugins.standardise import Standardise
from distillery.objectives.vkd import vkd_loss
from distillery.objectives.vkd_tokens import VkDTokens
from distillery.study.blocks import Recipe
from distillery.training.optimizer import make_optimizer, set_rate

DECAYED = {"optimizer": {"name": "adamw"}, "lr": 5e-4, "weight_decay": 0.05, "decay": "matrices"}
KINDS = ("householder", "matrix_exponential", "as_released")


def batch(student: Outputs, teacher: Outputs, labels: Tensor | None = None) -> Batch:
    index = torch.arange(len(student.logits))
    return Batch(index if labels is None else labels, student, (teacher,), torch.ones(()), index)


def context(student: Outputs, teacher: Outputs) -> Context:
    return Context(student.logits.shape[1], torch.arange(8), student, teacher)


def deit(student: Outputs, teacher: Outputs, standardised: bool = False, **config: Any) -> DeiT:
    objective = DeiT(context(student, teacher), DeiT.Config(**config))
    objective.plugins.extend([Standardise()] * standardised)
    return objective


# --- logit standardisation on the distillation head


@pytest.mark.parametrize("case", golden.cases("ls_vit_loss"), ids=lambda case: case["id"])
def test_standardised_loss_equals_the_released_code(case: golden.Case) -> None:
    hyper, want = case["hyper"], golden.outputs(case)
    logits = golden.ruled(case["inputs"]["student"]).requires_grad_()
    teacher = Outputs(golden.ruled(case["inputs"]["teacher"]))
    student = Outputs(torch.zeros_like(logits), distilled=logits)
    # The released weight counts only where the logits are standardised.
    weight = hyper["extra_weight"] if hyper["standardise"] else 1.0
    objective = deit(
        student, teacher, hyper["standardise"], kind="soft", temperature=hyper["temperature"], kd_weight=weight
    )
    loss = objective.distill(batch(student, teacher))["kd"]
    golden.agrees(loss, want["loss"], 1e-10)
    golden.agrees(torch.autograd.grad(loss, logits)[0], want["grad_student"], 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("case", golden.cases("ls_vit"), ids=lambda case: case["id"])
def test_three_steps_of_the_standardisation_papers_training(case: golden.Case) -> None:
    """The released teacher runs on batch statistics while the student trains; ours never does, so this is done here."""
    hyper, want, dtype = case["hyper"], golden.outputs(case), getattr(torch, case["dtype"])
    student, teacher = golden.filled("ls_deit_ti", dtype), golden.filled("ls_resnet56", dtype)
    with torch.no_grad():
        teacher.head.weight *= 1e-4
    images, labels = golden.ruled(case["inputs"]["images"]).to(dtype), torch.tensor(case["inputs"]["labels"])
    small = F.interpolate(images, (32, 32), mode="bilinear", align_corners=False)
    example = looked_at(student, images)
    config = {"kind": "soft", "temperature": hyper["temperature"], "kd_weight": hyper["extra_weight"]}
    objective = deit(example, example, hyper["standardise"], ce_weight=hyper["ce_factor"], **config)
    steps = Steps(student, objective, DECAYED, dtype)
    teacher.train()
    for row in want["steps"]:
        with torch.no_grad():
            taught = teacher(small)
        terms, out = steps(float(row[3]), images, lambda out, taught=taught: objective(batch(out, taught, labels)))
        steps.agree(torch.stack([sum(terms.values()), terms["ce"], terms["kd"]]), row[:3])
        if steps.done == 1:
            steps.agree(out.logits, want["logits_class_first_step"])
            steps.agree(out.distilled, want["logits_distillation_first_step"])
            steps.agree(steps.gradients(), want["grad_l2_first_step"])
    steps.agree(steps.norms(), want["parameter_l2_after"])
    steps.agree(looked_at(student, images).logits, want["final_logits_eval_mode"])


class Steps:
    """Training steps on given batches with the recipe's own optimiser, and a tolerance that fits the precision."""

    def __init__(self, student: Network, objective: Objective, recipe: dict[str, Any], dtype: torch.dtype) -> None:
        self.student, self.objective, self.done = student.train(), objective.to(dtype), 0
        self.rtol, self.atol = (1e-9, 1e-12) if dtype == torch.float64 else (1e-4, 1e-5)
        self.parameters = [p for p in student.parameters() if p.requires_grad]
        named = [*student.named_parameters(), *objective.named_parameters()]
        self.optimizer = make_optimizer(named, Recipe.model_validate(recipe), torch.device("cpu"))

    def __call__(
        self, rate: float, images: Tensor, loss: Callable[[Outputs], dict[str, Tensor]]
    ) -> tuple[dict[str, Tensor], Outputs]:
        """Take one step; return the terms and the outputs before it."""
        set_rate(self.optimizer, rate)
        self.optimizer.zero_grad()
        out = self.student(images)
        terms = loss(out)
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer.step()
        self.done += 1
        return {name: term.detach() for name, term in terms.items()}, out

    def agree(self, got: Tensor | None, want: np.ndarray) -> None:
        assert got is not None
        golden.agrees(got, want, self.rtol, self.atol)

    def gradients(self) -> Tensor:
        return torch.stack([p.grad.norm() for p in self.parameters if p.grad is not None])

    def norms(self) -> Tensor:
        return torch.stack([p.detach().norm() for p in self.parameters])


@torch.no_grad()
def looked_at(network: Network, images: Tensor) -> Outputs:
    """Outputs in evaluation mode, and the mode as it was."""
    training = network.training
    out: Outputs = network.eval()(images)
    network.train(training)
    return out


# --- DeiT's own losses


def heads() -> tuple[Tensor, Outputs, Outputs]:
    torch.manual_seed(0)
    distilled = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    student = Outputs(torch.randn(5, 7, dtype=torch.float64), distilled=distilled)
    return distilled, student, Outputs(torch.randn(5, 7, dtype=torch.float64))


def test_hard_distillation_takes_the_teachers_word_for_the_label() -> None:
    distilled, student, teacher = heads()
    labels = torch.tensor([0, 1, 2, 3, 4])
    terms = deit(student, teacher)(batch(student, teacher, labels))
    believed = teacher.logits.argmax(1)
    assert not torch.equal(believed, labels)
    torch.testing.assert_close(terms["kd"], 0.5 * F.cross_entropy(distilled, believed))
    torch.testing.assert_close(terms["ce"], 0.5 * F.cross_entropy(student.logits, labels))


def test_soft_distillation_over_entries_is_the_released_division() -> None:
    """facebookresearch/deit divides the sum by the number of entries; with log-probabilities on both sides."""
    distilled, student, teacher = heads()
    config = {"kind": "soft", "temperature": 3.0, "ce_weight": 0.9, "kd_weight": 0.1}
    got = deit(student, teacher, mean="entries", **config).distill(batch(student, teacher))["kd"]
    logs = [(logits / 3).log_softmax(1) for logits in (distilled, teacher.logits)]
    want = 0.1 * F.kl_div(*logs, reduction="sum", log_target=True) * 9 / distilled.numel()
    torch.testing.assert_close(got, want)
    by_image = deit(student, teacher, **config).distill(batch(student, teacher))["kd"]
    torch.testing.assert_close(by_image, 7 * got)


def test_a_student_without_a_distillation_head_is_refused() -> None:
    _, student, teacher = heads()
    with pytest.raises(Incompatible, match="the student has none: take kd"):
        deit(replace(student, distilled=None), teacher)


# --- VkD on patch tokens


def tokens(width: int, teacher_width: int, kind: str, start: Tensor, **config: Any) -> VkDTokens:
    """The objective, its projector starting at the orthogonalised (teacher_width, width) matrix."""
    example = torch.zeros(1, 10, dtype=torch.float64)
    student = Outputs(example, tokens=(torch.zeros(1, 4, width, dtype=torch.float64),))
    teacher = Outputs(example, maps=(torch.zeros(1, teacher_width, 2, 2, dtype=torch.float64),) * 2)
    made = VkDTokens(context(student, teacher), VkDTokens.Config(projector=kind, **config)).double()
    inner = made.projectors[0].linear
    if kind == "as_released":
        inner.weight = start  # torch orthogonalises it
    else:
        base, triangle = torch.linalg.qr(start, mode="complete")
        base[:, :width] *= triangle.diagonal().sign()
        inner.base.copy_(base)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", golden.cases("vkd_tokens"), ids=lambda case: case["id"])
def test_feature_term_equals_the_released_code(case: golden.Case, kind: str) -> None:
    want, rules = golden.outputs(case), case["inputs"]
    start = golden.ruled(rules["projector_initial_linear_weight"])
    objective = tokens(start.shape[1], start.shape[0], kind, start, kd_weight=0.0, beta=case["hyper"]["beta"])
    patches = golden.ruled(rules["student_patch_tokens"]).requires_grad_()
    taught = golden.ruled(rules["teacher_map"])
    zero = torch.zeros(len(patches), 10, dtype=torch.float64)
    terms = objective.distill(batch(Outputs(zero, tokens=(patches,)), Outputs(zero, maps=(taught, taught))))
    golden.agrees(objective.projectors[0].weight(), want["weight"], 1e-7)  # stored in float32
    golden.agrees(objective.projectors[0](patches.mean(1)), want["projected"], 1e-10)
    golden.agrees(terms["feature"], want["loss"], 1e-10)
    (gradient,) = torch.autograd.grad(terms["feature"], patches)
    golden.agrees(gradient[:, 0], want["grad_patch_token_0"], 1e-10)
    assert torch.equal(gradient, gradient[:, :1].expand_as(gradient))


@pytest.mark.slow
@pytest.mark.parametrize("case", golden.cases("vkd_deit"), ids=lambda case: case["id"])
def test_three_steps_of_vkds_training(case: golden.Case) -> None:
    """The released train_one_epoch with `as_released`, whose feature term is dead from the second step on.

    Without weight decay it lives; then its second step depends on torch's random completion of the projector's base, of
    which the vectors do not hold the seed. So only the first step is compared there.
    """
    want, dtype, rules = golden.outputs(case), getattr(torch, case["dtype"]), case["inputs"]
    decay = 0.0 if "nodecay" in case["id"] else 0.05
    student = golden.filled(rules["student"].removesuffix(" by rule"), dtype)
    images, targets = golden.ruled(rules["images"]).to(dtype), golden.ruled(rules["targets"]).softmax(1).to(dtype)
    start, weights = golden.ruled(rules["projector_initial_linear_weight"]), case["hyper"]
    objective = tokens(
        *(start.shape[1], start.shape[0], "as_released", start),
        feat_weight=weights["alpha"],
        kd_weight=weights["gamma"],
        temperature=float(weights["T"]),
    )
    steps = Steps(student, objective, DECAYED | {"weight_decay": decay}, dtype)
    rates = [5e-4, *want["lr_after_step"][:-1]]  # stepped after the update with the index of the finished step
    for n, (rate, row) in enumerate(zip(rates, want["steps_ce_feature_kl"], strict=True), start=1):
        mine = slice(4 * n - 4, 4 * n)
        maps = golden.ruled(rules["teacher_map_of_step_n"], n).to(dtype)
        taught = Outputs(golden.ruled(rules["teacher_logits_of_step_n"], n).to(dtype), maps=(maps, maps))

        def loss(out: Outputs, taught: Outputs = taught, soft: Tensor = targets[mine]) -> dict[str, Tensor]:
            ce = -(soft * out.logits.log_softmax(1)).sum(1).mean()  # mixup's targets
            return {"ce": ce} | objective.distill(batch(out, taught))

        terms, _ = steps(rate, images[mine], loss)
        steps.agree(torch.stack([terms["ce"], terms["feature"], terms["kd"]]), row)
        if n == 1:
            steps.agree(steps.gradients(), want["grad_l2_first_step"])
            (free,) = objective.parameters()
            assert free.grad is not None
            steps.agree(free.grad.norm(), want["projector_grad_l2_first"])
            if not decay:
                return
        assert not objective.projectors[0].weight().any(), "the released projector is zero after one decayed step"
    steps.agree(steps.norms(), want["parameter_l2_after"])
    steps.agree(looked_at(student, images[:2]).logits[:, :200], want["final_logits_eval_mode"])


@pytest.mark.parametrize(
    ("kind", "alive"), [("householder", True), ("matrix_exponential", True), ("as_released", False)]
)
def test_only_the_released_projector_dies_of_weight_decay(kind: str, alive: bool) -> None:
    torch.manual_seed(0)
    objective = tokens(6, 15, kind, torch.randn(15, 6, dtype=torch.float64), kd_weight=0.0)
    patches = torch.randn(4, 9, 6, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(4, 15, 3, 3, dtype=torch.float64)
    zero = torch.zeros(4, 10, dtype=torch.float64)
    rows = batch(Outputs(zero, tokens=(patches,)), Outputs(zero, maps=(maps, maps)))
    optimizer = make_optimizer([*objective.named_parameters()], Recipe.model_validate(DECAYED), torch.device("cpu"))
    norms = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = objective.distill(rows)["feature"]
        (gradient,) = torch.autograd.grad(loss, patches, retain_graph=True)
        loss.backward()
        norms.append(float(gradient.norm()))
        optimizer.step()
    weight = objective.projectors[0].weight().detach()
    assert norms[0] > 0 and bool(norms[2] > 0) == alive
    assert torch.allclose(weight.T @ weight, torch.eye(6, dtype=torch.float64) * alive, atol=1e-12)


def test_a_distillation_head_learns_the_teachers_logits_else_the_class_head() -> None:
    torch.manual_seed(0)
    objective = tokens(6, 15, "householder", torch.randn(15, 6, dtype=torch.float64))
    distilled, student, teacher = heads()
    patches, maps = torch.randn(5, 4, 6, dtype=torch.float64), torch.randn(5, 15, 2, 2, dtype=torch.float64)
    student, teacher = replace(student, tokens=(patches,)), replace(teacher, maps=(maps, maps))
    for outputs, head in ((student, distilled), (replace(student, distilled=None), student.logits)):
        kd = objective.distill(batch(outputs, teacher))["kd"]
        want = F.kl_div(head.log_softmax(1), teacher.logits.softmax(1), reduction="batchmean")
        torch.testing.assert_close(kd, want)


def test_every_stage_has_its_projector_deepest_with_deepest() -> None:
    torch.manual_seed(0)
    student, teacher = build("pit_ti", 10).eval(), build("resnet8", 10).eval()  # both have three stages
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        ours, theirs = student(images), teacher(images)
    objective = VkDTokens(context(ours, theirs), VkDTokens.Config(stages="all", kd_weight=0.0, bias=True))
    widths = [tuple(p.weight().shape) for p in objective.projectors]
    assert widths == [(16, 64), (32, 128), (64, 256)]
    want = [
        vkd_loss(project(t.mean(1)), m.mean((2, 3)))
        for project, t, m in zip(objective.projectors, ours.tokens, theirs.maps[1:], strict=True)
    ]
    torch.testing.assert_close(objective.distill(batch(ours, theirs))["feature"], sum(want) / 3)
    assert sum(p.numel() for p in objective.parameters()) == 16 * 64 + 32 * 128 + 64 * 256 + 16 + 32 + 64


@pytest.mark.parametrize("normalise", ["layer_norm", "standardise", "whiten", "none"])
def test_normalisations_of_the_teacher(normalise: str) -> None:
    """Moving and scaling the teacher's features changes nothing, except where nothing is normalised."""
    torch.manual_seed(0)
    objective = tokens(5, 6, "householder", torch.randn(6, 5, dtype=torch.float64), normalise=normalise)
    patches, maps = torch.randn(9, 4, 5, dtype=torch.float64), torch.randn(9, 6, 2, 2, dtype=torch.float64)
    student = Outputs(torch.zeros(9, 10, dtype=torch.float64), tokens=(patches,))
    losses = []
    for other in (maps, 3 * maps + 1):
        teacher = Outputs(torch.zeros(9, 10, dtype=torch.float64), maps=(other, other))
        losses.append(float(objective.distill(batch(student, teacher))["feature"].detach()))
    assert (losses[0] == pytest.approx(losses[1], rel=1e-4)) == (normalise != "none")
    assert objective.static == (normalise != "whiten")


def test_networks_without_tokens_or_maps_are_refused() -> None:
    plain = Outputs(torch.zeros(1, 10))
    with pytest.raises(Incompatible, match="the student gives none: take vkd"):
        VkDTokens(context(plain, plain))
    with pytest.raises(Incompatible, match="the teacher gives none"):
        VkDTokens(context(replace(plain, tokens=(torch.zeros(1, 4, 6),)), plain))


# --- rows and rehearsal


def test_a_selection_of_rows_cuts_tokens_and_heads() -> None:
    torch.manual_seed(0)
    network, keep = build("deit_w48_p2", 10), torch.tensor([True, False, True, False])
    with torch.no_grad():
        out = network(torch.randn(4, 3, 8, 8))
    cut = batch(out, out).rows(keep).student
    assert out.distilled is not None and cut.distilled is not None
    assert torch.equal(cut.distilled, out.distilled[keep]) and torch.equal(cut.tokens[0], out.tokens[0][keep])
