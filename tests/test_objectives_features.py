"""Feature objectives end to end: on real networks, on hostile features, on the meta device; and what each claims."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math

import feature_batches as fb
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distillery import models
from distillery.models.base import Network, Outputs
from distillery.objectives import signatures
from distillery.objectives.adain import AdaIN, adain, statistics
from distillery.objectives.at import AT
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.build import build
from distillery.objectives.cc import CC, cc_loss
from distillery.objectives.crd import CRD
from distillery.objectives.features import average_pool, standardise, unit
from distillery.objectives.fitnet import FitNet, hint_regressor
from distillery.objectives.itrd import ITRD
from distillery.objectives.kdsvd import KDSVD
from distillery.objectives.negatives import ClassSampler
from distillery.objectives.nst import NST, nst_loss
from distillery.objectives.ofd import OFD, margins, ofd_loss
from distillery.objectives.orthogonal import OrthogonalProjector, expm, householder
from distillery.objectives.pkt import PKT
from distillery.objectives.reviewkd import ReviewKD
from distillery.objectives.rkd import RKD
from distillery.objectives.simkd import SimKD
from distillery.objectives.sp import SP
from distillery.objectives.vid import VID
from distillery.objectives.vkd import VkD, vkd_loss, whiten
from distillery.study import Method

CASES = {
    "vkd": (VkD, {}),
    "vkd_standardise": (VkD, {"normalise": "standardise", "orthogonal_map": "householder"}),
    "vkd_whiten": (VkD, {"normalise": "whiten", "orthogonal_map": "cayley"}),
    "crd": (CRD, {"nce_k": 16}),
    "crd_relax": (CRD, {"nce_k": 16, "mode": "relax", "temperature": 0.01}),
    "itrd": (ITRD, {}),
    "fitnet": (FitNet, {}),
    "at": (AT, {}),
    "at_4": (AT, {"p": 4}),
    "rkd": (RKD, {}),
    "pkt": (PKT, {}),
    "sp": (SP, {}),
    "vid": (VID, {"train_variance": True, "init_variance": 100.0}),
    "nst": (NST, {}),
    "kdsvd": (KDSVD, {}),
    "cc": (CC, {}),
    "cc_normalised": (CC, {"normalise": True}),
    "reviewkd": (ReviewKD, {}),
    "reviewkd_preacts": (ReviewKD, {"student_taps": "preacts"}),
    "ofd": (OFD, {}),
    "simkd": (SimKD, {}),
    "adain": (AdaIN, {"l2_weight": 1.0, "srrl_weight": 1.0}),
    "adain_middle": (AdaIN, {"stage": 1}),
}
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


@functools.cache
def network(name: str) -> Network:
    torch.manual_seed(0)
    return models.build(name, num_classes=10)


@functools.cache
def run(name: str, size: int, count: int) -> Outputs:
    """Outputs of a network in evaluation mode on random images, with pre-activation taps."""
    torch.manual_seed(1)
    images = torch.randn(count, 3, size, size)
    with torch.no_grad():
        return network(name).eval()(images, preacts=True)


def over(outputs: Outputs, change: object) -> Outputs:
    """The outputs with every feature changed by a function."""
    assert callable(change)
    return Outputs(
        change(outputs.logits),
        change(outputs.pooled),
        tuple(map(change, outputs.maps)),
        tuple(map(change, outputs.preacts)),
    )


def leaves(outputs: Outputs) -> list[Tensor]:
    assert outputs.pooled is not None
    return [outputs.logits, outputs.pooled, *outputs.maps, *outputs.preacts]


def make(case: str, teacher: str, student: str, size: int = 8) -> Objective:
    kind, hyper = CASES[case]
    torch.manual_seed(2)
    frozen = copy.deepcopy(network(teacher)).requires_grad_(False).eval()
    ctx = fb.context(run(student, size, 4), run(teacher, size, 4), teacher_model=frozen)
    made: Objective = kind(ctx, **hyper)
    return made


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


@pytest.mark.parametrize(("teacher", "student"), PAIRS)
@pytest.mark.parametrize("case", CASES)
def test_real_networks(case: str, teacher: str, student: str) -> None:
    if not runs_for(case, teacher, student):
        with pytest.raises(ValueError, match="student gives none"):
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
        rows, labels=rows.labels.to("meta"), index=rows.index.to("meta"), epoch=rows.epoch.to("meta")
    )
    fb.total(objective.to("meta")(rows)).backward()
    assert objective.predict(own).shape == (4, 10)


def test_steps_with_an_eigensolver_are_not_called_static() -> None:
    assert not make("kdsvd", "resnet8x4", "resnet8").static
    assert not make("vkd_whiten", "resnet8x4", "resnet8").static
    assert make("vkd", "resnet8x4", "resnet8").static


def test_registry_reads_what_the_classes_take() -> None:
    found = signatures.objectives()
    for kind in {kind for kind, _ in CASES.values()}:
        signature = found[kind.__module__.rpartition(".")[2]]
        assert signature.cls == kind.__name__
        assert signature.needs == kind.needs
        assert signature.hyper.keys() == (kind.__init__.__kwdefaults__ or {}).keys()
        assert {k: d for k, (_, d) in signature.hyper.items()} == kind.__init__.__kwdefaults__
        assert not signature.mistakes(kind.__init__.__kwdefaults__)


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
            terms = objective.distil(fb.batch(student(images, preacts=True), other))
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
    with pytest.raises(ValueError, match="RKD compares pooled features, but the student has none"):
        RKD(fb.context(without, run("resnet8", 8, 4)))
    with pytest.raises(ValueError, match="AT compares feature maps, but the teacher gives none"):
        AT(fb.context(run("resnet8", 8, 4), bare))
    with pytest.raises(ValueError, match="cannot run from a cached table"):
        SimKD(fb.context(run("resnet8", 8, 4), run("resnet8", 8, 4)))
    with pytest.raises(ValueError, match="hint_layer 9 does not exist"):
        FitNet(fb.context(run("resnet8", 8, 4), run("resnet8", 8, 4)), hint_layer=9)
    with pytest.raises(ValueError, match="all training labels are the same"):
        ClassSampler(torch.zeros(5, dtype=torch.int64), 3)


# Orthogonal projectors


@pytest.mark.parametrize("kind", ["householder", "matrix_exp", "cayley"])
@pytest.mark.parametrize(("inputs", "outputs"), [(6, 10), (8, 8), (10, 6)])
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


# Contrast images


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
    one.distil(fb.batch(own, other))
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


# Single claims


def test_nst_is_the_same_by_positions_and_by_channels() -> None:
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(3, c, 2, 2, generator=generator, dtype=torch.float64) for c in (6, 9))
    a, b = (F.normalize(x.flatten(2), dim=2) for x in (s, t))
    kernel = [torch.einsum("bcn,bdn->bcd", p, q).square().mean() for p, q in ((b, b), (a, a), (a, b))]
    torch.testing.assert_close(nst_loss(s, t), kernel[0] + kernel[1] - 2 * kernel[2])


def test_cc_is_the_mean_product_of_neighbours() -> None:
    s, t = torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), torch.zeros(3, 2)
    assert cc_loss(s, t) == (1 * 0 + 2 * 1 + 0 * 3 + 1 * 0) / 2
    assert cc_loss(s[:1], t[:1]) == 0


def test_margins_are_conditional_means_below_zero() -> None:
    norm = torch.nn.BatchNorm2d(4)
    norm.bias.data = torch.tensor([0.0, 1.0, 10.0, -2.0])
    norm.weight.data = torch.tensor([1.0, -0.5, 1.0, 0.0])
    normal = torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    expected = [(x := m + s * normal)[x < 0].mean() for m, s in ((0.0, 1.0), (1.0, 0.5))]
    torch.testing.assert_close(margins(norm), torch.tensor([*expected, -3.0, -2.0]), atol=5e-3, rtol=0)


def test_ofd_is_the_three_masks_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    m = torch.tensor([-0.5, -1.0, 0.0], dtype=torch.float64)
    v = m[:, None, None]
    masks = (t > 0, (s > t) & (t > v) & (t <= 0), (s > v) & (t <= v))
    parts = ((s - t).square(), (s - t).square(), (s - v).square())
    expected = sum(p * mask for p, mask in zip(parts, masks, strict=True)).mean(0).sum()
    torch.testing.assert_close(ofd_loss(s, t, m), expected)


@pytest.mark.parametrize(
    ("student", "teacher", "kernel"), [(8, 4, 3), (4, 8, 4), (8, 8, 1), (8, 5, 4), (32, 8, 25), (4, 32, 1)]
)
def test_hint_regressor_reaches_the_teacher(student: int, teacher: int, kernel: int) -> None:
    made = hint_regressor((3, student, student), (5, teacher, teacher))
    assert made[0].kernel_size == (kernel, kernel)
    size = student if student * 2 < teacher else teacher
    assert made(torch.randn(2, 3, student, student)).shape == (2, 5, size, size)


@pytest.mark.parametrize(
    ("student", "teacher", "widths", "middle"),
    [
        ("shufflenet_v2", "resnet8x4", [1024, 464, 232, 116], 512),
        ("shufflenet_v1", "wrn_16_2", [960, 960, 480, 240], 512),
        ("mobilenet_v2", "vgg8", [1280, 160, 48, 16, 12], 512),
        ("wrn_16_1", "resnet14", [64, 64, 32, 16], 64),
    ],
)
def test_review_widths_are_the_published_ones(student: str, teacher: str, widths: list[int], middle: int) -> None:
    fusions = make("reviewkd", teacher, student, 32).fusions
    assert [f.conv1[0].in_channels for f in fusions] == widths
    assert {f.conv1[0].out_channels for f in fusions} == {middle}
    assert [f.attention is None for f in fusions] == [True, *[False] * (len(widths) - 1)]


@pytest.mark.parametrize("teacher", ["resnet8x4", "wrn_16_2", "vgg8", "mobilenet_v2"])
def test_simkd_with_a_perfect_projection_is_the_teacher(teacher: str) -> None:
    own = run(teacher, 32, 4)
    objective = make("simkd", teacher, teacher, 32)
    assert objective.ce_weight == 0
    assert not any(k.startswith("_teacher") for k in objective.state_dict())
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.train().predict(own)
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items()), "looking changed the projector"
    objective.projector = torch.nn.Sequential()
    torch.testing.assert_close(objective.predict(own), own.logits, atol=1e-4, rtol=1e-4)
    assert list(objective.distil(fb.batch(own, own)).values()) == [0]


def test_simkd_and_adain_leave_the_teacher_alone() -> None:
    for case in ("simkd", "adain", "ofd"):
        objective = make(case, "wrn_16_2", "resnet8", 32)
        teacher = make.__globals__["network"]("wrn_16_2")
        assert not {id(p) for p in objective.parameters()} & {id(p) for p in teacher.parameters()}
        own = over(run("resnet8", 32, 4), lambda x: x.clone().requires_grad_())
        fb.total(objective(fb.batch(own, run("wrn_16_2", 32, 4)))).backward()
        for frozen in getattr(objective, "_teacher", ()):
            assert all(p.grad is None for p in frozen.parameters())


def test_adain_gives_content_the_statistics_of_style() -> None:
    generator = torch.Generator().manual_seed(0)
    content, style = torch.randn(2, 3, 8, 8, generator=generator), 4 * torch.randn(2, 3, 5, 5, generator=generator) + 1
    for a, b in zip(statistics(adain(content, style)), statistics(style), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(adain(content, content), content)


def test_vid_variances_are_fixed_unless_asked_for() -> None:
    ctx = fb.context(run("resnet8", 8, 4), run("resnet8x4", 8, 4))
    for train in (False, True):
        objective = VID(ctx, train_variance=train)
        scales = [getattr(objective, f"log_scale{i}") for i in range(3)]
        assert [isinstance(scale, torch.nn.Parameter) for scale in scales] == [train] * 3
        assert [math.log1p(math.exp(scale[0].item())) for scale in scales] == pytest.approx([5.0] * 3, abs=1e-4)


def test_itrd_embeds_for_the_mutual_term_only_if_the_widths_differ() -> None:
    own = over(run("resnet8", 8, 4), lambda x: x.clone())
    for teacher, embedded in (("resnet8", False), ("resnet8x4", True)):
        objective = make("itrd", teacher, "resnet8")
        mutual = objective.distil(fb.batch(own, run(teacher, 8, 4)))["mutual"]
        assert mutual.requires_grad == embedded


def test_average_pool_is_the_adaptive_one() -> None:
    x = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    for size in ((4, 4), (5, 3), (1, 1), (12, 8)):
        torch.testing.assert_close(average_pool(x, size), F.adaptive_avg_pool2d(x, size))


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
            assert fb.total(kind(ctx, **hyper)(fb.batch(own, other))).isfinite(), name
