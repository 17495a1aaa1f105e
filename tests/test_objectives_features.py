"""Feature objectives end to end: on real networks, on hostile features, on the meta device, from the registry."""

from __future__ import annotations

import copy
import dataclasses
import functools

import feature_batches as fb
import pytest
import torch
from feature_cases import CASES, make, network, over, run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distillery.models.base import Outputs
from distillery.objectives.adain import AdaIN
from distillery.objectives.at import AT
from distillery.objectives.base import Batch, Context, Incompatible, Objective
from distillery.objectives.build import build
from distillery.objectives.fitnet import FitNet
from distillery.objectives.kdsvd import decomposed, decomposed_by_gram
from distillery.objectives.negatives import ClassSampler
from distillery.objectives.ofd import OFD
from distillery.objectives.rkd import RKD
from distillery.objectives.simkd import SimKD
from distillery.study.blocks import Method

# A cross-section of the published pairs: same and other families, five taps and four, taps before the activation.
PAIRS = [
    ("resnet8x4", "resnet8"),
    ("resnet14", "resnet8"),
    ("wrn_16_2", "shufflenet_v1"),
    ("vgg8", "mobilenet_v2"),
    ("resnet8x4", "shufflenet_v2"),
    ("resnet14", "wrn_16_1"),
    ("vgg8", "resnet8"),
]


def leaves(outputs: Outputs) -> list[Tensor]:
    assert outputs.pooled is not None
    return [outputs.logits, outputs.pooled, *outputs.maps, *outputs.preacts]


def learns(objective: Objective, rows: Batch, tensors: list[Tensor]) -> Tensor:
    """Run forward and backward; check that everything is finite and the terms are scalars; return the loss."""
    terms = objective(rows)
    assert all(term.shape == () for term in terms.values()), {k: v.shape for k, v in terms.items()}
    loss = fb.total(terms)
    assert loss.isfinite(), {k: v.item() for k, v in terms.items()}
    parameters = [p for p in objective.parameters() if p.requires_grad]
    for x, g in zip([*tensors, *parameters], grads(loss, [*tensors, *parameters]), strict=True):
        assert g is None or g.isfinite().all(), f"gradient of {tuple(x.shape)}"
    for name, buffer in objective.named_buffers():
        assert buffer.isfinite().all(), name
    return loss


def grads(loss: Tensor, wrt: list[Tensor]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(loss, wrt, allow_unused=True)


def runs_for(case: str, teacher: str, student: str) -> bool:
    """Whether the method is defined for the pair; `test_refusals` checks what it says where it is not."""
    kind, hyper = CASES[case]
    return student != "mobilenet_v2" or (kind is not OFD and "student_taps" not in hyper)


@pytest.mark.slow
@pytest.mark.parametrize(("teacher", "student"), PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_real_networks(case: str, teacher: str, student: str) -> None:
    if not runs_for(case, teacher, student):
        with pytest.raises(Incompatible, match="student gives none"):
            make(case, teacher, student, 32)
        return
    objective = make(case, teacher, student, 32)
    own = over(run(student, 32, 4), lambda x: x.clone().requires_grad_())
    before = learns(objective, fb.batch(own, run(teacher, 32, 4)), leaves(own))
    found = grads(fb.total(objective(fb.batch(own, run(teacher, 32, 4)))), leaves(own))
    distilled = [g for g in found[1:] if g is not None]
    assert before > 0
    assert distilled, "no gradient reaches the student's features"
    assert any(g.abs().max() > 0 for g in distilled)
    assert objective.predict(own).shape == (4, 10)


HOSTILE = {
    "plain": lambda x: x,
    "zero": torch.zeros_like,
    "large": lambda x: 1e4 * x,
    "tiny": lambda x: 1e-20 * x,
    "duplicates": lambda x: x[:1].expand_as(x),
    "constant": torch.ones_like,
    "one zero row": lambda x: torch.cat([torch.zeros_like(x[:1]), x[1:]]),
    "dead channel": lambda x: torch.cat([torch.zeros_like(x[:, :1]), x[:, 1:]], dim=1),
    "bfloat16": lambda x: x.bfloat16(),
    "large bfloat16": lambda x: (1e4 * x).bfloat16(),
}


@functools.cache
def kept(case: str, teacher: str) -> Objective:
    return make(case, teacher, "resnet8")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    student=st.sampled_from(sorted(HOSTILE)),
    teacher=st.sampled_from([*sorted(HOSTILE), "equal"]),
    count=st.sampled_from([1, 2, 3, 5]),
    index=st.lists(st.integers(0, 39), min_size=5, max_size=5),
)
def test_finite_whatever_the_features(case: str, student: str, teacher: str, count: int, index: list[int]) -> None:
    name = "resnet8" if teacher == "equal" else "resnet8x4"
    objective = kept(case, name)
    cut = functools.partial(over, change=lambda x: x[:count])
    own = over(cut(run("resnet8", 8, 5)), HOSTILE[student])
    other = own if teacher == "equal" else over(cut(run("resnet8x4", 8, 5)), HOSTILE[teacher])
    own = over(own, lambda x: x.detach().clone().requires_grad_())
    learns(objective, fb.batch(own, other, index=torch.tensor(index[:count])), leaves(own))


@pytest.mark.parametrize("case", [name for name in CASES if name not in ("kdsvd", "vkd_whiten")])
def test_a_static_step_reads_nothing_back(case: str) -> None:
    """On the meta device there are shapes but no values: whatever would wait for a value fails."""
    objective = make(case, "resnet8x4", "resnet8")
    assert objective.static
    for frozen in getattr(objective, "_teacher", ()):
        frozen.to("meta")
    own, other = (over(run(n, 8, 4), lambda x: x.to("meta").requires_grad_()) for n in ("resnet8", "resnet8x4"))
    rows = fb.batch(own, other)
    rows = dataclasses.replace(
        rows, targets=rows.labels.to("meta"), index=rows.index.to("meta"), epoch=rows.epoch.to("meta")
    )
    fb.total(objective.to("meta")(rows)).backward()
    assert objective.predict(own).shape == (4, 10)


def test_steps_with_an_eigensolver_are_not_called_static() -> None:
    assert not make("kdsvd", "resnet8x4", "resnet8").static
    assert not make("vkd_whiten", "resnet8x4", "resnet8").static
    assert make("vkd", "resnet8x4", "resnet8").static


@pytest.mark.parametrize("shape", [(3, 48, 8), (2, 5, 8)])
def test_decompositions_for_cpu_and_gpu_agree(shape: tuple[int, ...]) -> None:
    """Values, and vectors up to their signs, of tall and of wide matrices."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (values, vectors), (other, turned) = decomposed(matrices), decomposed_by_gram(matrices)
    torch.testing.assert_close(other, values, rtol=1e-5, atol=1e-6)
    cosines = (vectors * turned).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_training_the_student_and_the_modules_lowers_the_term() -> None:
    """Twenty joint steps of the real optimiser with weight decay, for every method, on one batch."""
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    teacher = network("resnet8x4").eval()
    with torch.no_grad():
        other = teacher(images, preacts=True)
    for case in CASES:
        objective = make(case, "resnet8x4", "resnet8")
        student = copy.deepcopy(network("resnet8")).train()
        parameters = [*student.parameters(), *objective.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)
        history = []
        for _ in range(20):
            optimizer.zero_grad()
            terms = objective.distill(fb.batch(student(images, preacts=True), other))
            history.append(fb.total(terms).item())
            (fb.total(terms) / max(1.0, abs(history[0]))).backward()
            optimizer.step()
        assert sum(history[-3:]) < sum(history[:3]), (case, history)


def test_partners_bring_their_needs_and_keep_the_main_prediction() -> None:
    own = over(run("resnet8", 8, 4), lambda x: x.clone().requires_grad_())
    other = run("resnet8x4", 8, 4)
    ctx = fb.context(own, other, teacher_model=network("resnet8x4"))
    both = build(Method(objective="wttm", plus={"crd": {}, "itrd": {"weight": 0.5}}), ctx)
    terms = both(fb.batch(own, other))
    assert set(terms) == {"ce", "wttm", "crd_crd", "itrd_correlation", "itrd_mutual"}
    assert both.static
    assert both.needs == {"logits", "pooled"}
    last = build(Method(objective="kd", plus={"kdsvd": {}, "ofd": {}}), ctx)
    assert not last.static
    assert last.needs == {"logits", "maps", "preacts"}
    first = build(Method(objective="simkd", plus={"kd": {}}), ctx)
    main = first.main
    assert isinstance(main, SimKD)
    torch.testing.assert_close(first.predict(own), main.predict(own))
    assert not torch.equal(first.predict(own), own.logits)


def test_refusals() -> None:
    without = dataclasses.replace(run("resnet8", 8, 4), pooled=None)
    bare = Outputs(torch.zeros(1, 10))
    with pytest.raises(Incompatible, match="RKD compares pooled features, but the student has none"):
        RKD(fb.context(without, run("resnet8", 8, 4)))
    with pytest.raises(Incompatible, match="AT compares feature maps, but the teacher gives none"):
        AT(fb.context(run("resnet8", 8, 4), bare))
    with pytest.raises(Incompatible, match="cannot run from a cached table"):
        SimKD(fb.context(run("resnet8", 8, 4), run("resnet8", 8, 4)))
    with pytest.raises(Incompatible, match="hint_layer 9 does not exist"):
        FitNet(fb.context(run("resnet8", 8, 4), run("resnet8", 8, 4)), FitNet.Config(hint_layer=9))
    with pytest.raises(Incompatible, match="all training labels are the same"):
        ClassSampler(torch.zeros(5, dtype=torch.int64), 3)


def test_context_is_all_an_objective_needs() -> None:
    """Random outputs of no network at all will do for the methods that do not reuse the teacher."""
    torch.manual_seed(0)
    shapes = ((5, 8, 8), (7, 4, 4))
    own, other = (
        fb.outputs(torch.randn(4, 10), torch.randn(4, d), *([[torch.randn(4, *s) for s in shapes]] * 2)) for d in (7, 9)
    )
    for name, (kind, hyper) in CASES.items():
        if kind not in (SimKD, AdaIN, OFD):
            ctx: Context = fb.context(own, other)
            assert fb.total(kind(ctx, kind.Config(**hyper))(fb.batch(own, other))).isfinite(), name
