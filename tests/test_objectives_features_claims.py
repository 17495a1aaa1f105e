"""Single claims of feature objectives: the formula of the paper, the widths published, what is left alone."""

from __future__ import annotations

import math

import feature_batches as fb
import pytest
import torch
import torch.nn.functional as F
from feature_cases import make, network, over, run

from distillery.objectives.adain import AdaIN, adain, statistics
from distillery.objectives.base import Incompatible
from distillery.objectives.cc import cc_loss
from distillery.objectives.features import average_pool
from distillery.objectives.fitnet import hint_regressor
from distillery.objectives.nst import nst_loss
from distillery.objectives.ofd import margins, ofd_loss
from distillery.objectives.vid import VID


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
    assert objective.config.ce_weight == 0
    assert not any(k.startswith("_teacher") for k in objective.state_dict())
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.train().predict(own)
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items()), "looking changed the projector"
    objective.projector = torch.nn.Sequential()
    torch.testing.assert_close(objective.predict(own), own.logits, atol=1e-4, rtol=1e-4)
    assert list(objective.distill(fb.batch(own, own)).values()) == [0]


def test_simkd_and_adain_leave_the_teacher_alone() -> None:
    for case in ("simkd", "adain", "ofd"):
        objective = make(case, "wrn_16_2", "resnet8", 32)
        teacher = network("wrn_16_2")
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "teacher",
    ["resnet8", "resnet8x4", "wrn_16_2", "vgg8", "resnet18", "mobilenet_v2", "shufflenet_v1", "shufflenet_v2"],
)
def test_adain_judges_the_students_deviations(teacher: str) -> None:
    """The gradient by a scale of the deviations alone, means kept, at every stage that counts by default."""
    objective, told = make("adain_default", teacher, "resnet8", 32), run(teacher, 32, 4)
    assert len(objective.taps) == len(objective.connectors) == min(len(told.maps), 4) - 2
    for project, (s, t) in zip(objective.connectors, objective.taps, strict=True):
        assert 0 < t < len(told.maps) - 1
        style = project(run("resnet8", 32, 4).maps[s]).double().detach()
        mean = style.mean(dim=(2, 3), keepdim=True)
        scale = torch.ones(style.shape[1], 1, 1, dtype=torch.float64, requires_grad=True)
        objective._teacher[0].double()
        loss = objective.judgement(mean + scale * (style - mean), told.maps[t].double(), told.logits.double(), t)
        (gradient,) = torch.autograd.grad(loss, scale)
        assert gradient.norm() > 1e-7 * loss.detach(), (teacher, t, gradient.norm(), loss)


@pytest.mark.parametrize("teacher", ["resnet8", "resnet8x4", "vgg8", "resnet18", "shufflenet_v1"])
def test_adain_refuses_a_tap_of_which_only_the_means_are_heard(teacher: str) -> None:
    frozen = network(teacher).eval()
    ctx = fb.context(run("resnet8", 32, 4), run(teacher, 32, 4), teacher_model=frozen)
    with pytest.raises(Incompatible, match=r"depends on the means of tap \d alone"):
        AdaIN(ctx, AdaIN.Config(stages=(-1,)))
    with pytest.raises(Incompatible, match="stage 7 does not exist"):
        AdaIN(ctx, AdaIN.Config(stages=(7,)))
    assert AdaIN(ctx, AdaIN.Config(stages=(-1,), adain_weight=0.0, l2_weight=1.0)).taps  # a plain gap hears both


def test_srrl_is_the_released_loss() -> None:
    """mean over B, C of the squared gap of spatial means, and MSE of the teacher's logits of the projected map."""
    own, told = run("resnet8", 32, 4), run("resnet8x4", 32, 4)
    objective = make("srrl", "resnet8x4", "resnet8", 32)
    assert not objective.connectors and [p.shape for p in objective.parameters()] == [(256, 64, 1, 1), (256,), (256,)]
    projected = objective.last(own.maps[-1])
    head, means = network("resnet8x4").head, projected.mean(dim=(2, 3))
    expected = F.mse_loss(means, told.maps[-1].mean(dim=(2, 3))) + F.mse_loss(head(means), told.logits)
    assert objective.distill(fb.batch(own, told)).keys() == {"srrl"}
    torch.testing.assert_close(objective.distill(fb.batch(own, told))["srrl"], expected)


def test_vid_variances_are_fixed_unless_asked_for() -> None:
    ctx = fb.context(run("resnet8", 8, 4), run("resnet8x4", 8, 4))
    for train in (False, True):
        objective = VID(ctx, VID.Config(train_variance=train))
        scales = [getattr(objective, f"log_scale{i}") for i in range(3)]
        assert [isinstance(scale, torch.nn.Parameter) for scale in scales] == [train] * 3
        assert [math.log1p(math.exp(scale[0].item())) for scale in scales] == pytest.approx([5.0] * 3, abs=1e-4)


def test_itrd_embeds_for_the_mutual_term_only_if_the_widths_differ() -> None:
    own = over(run("resnet8", 8, 4), lambda x: x.clone())
    for teacher, embedded in (("resnet8", False), ("resnet8x4", True)):
        objective = make("itrd", teacher, "resnet8")
        mutual = objective.distill(fb.batch(own, run(teacher, 8, 4)))["mutual"]
        assert mutual.requires_grad == embedded


def test_average_pool_is_the_adaptive_one() -> None:
    x = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    for size in ((4, 4), (5, 3), (1, 1), (12, 8)):
        torch.testing.assert_close(average_pool(x, size), F.adaptive_avg_pool2d(x, size))
