"""ViDT and its distillation against outputs of the released code."""

from __future__ import annotations

import detection_golden
import numpy as np
import pytest
import torch
from vision_golden import agrees, uniform

from distillery.objectives.orthogonal import orthogonal_weight
from distillery.tasks.detection.criterion import costs, match, set_losses, set_terms
from distillery.tasks.detection.detections import objects
from distillery.tasks.detection.networks.deformable import between, gathered
from distillery.tasks.detection.networks.vidt import ViDT
from distillery.tasks.detection.objectives.tokens import pools, token_matching, vkd_term
from distillery.tasks.detection.predictions import best_of_sets

COST = (2.0, 5.0, 2.0)
each_vidt = pytest.mark.parametrize("case", detection_golden.cases("vidt"), ids=lambda case: case["id"])


def made_of(case: dict) -> ViDT:
    return detection_golden.network(case["id"].rpartition("_")[0])


def stats(x: torch.Tensor) -> np.ndarray:
    x = x.detach().double()
    return torch.stack([x.mean(), x.std(correction=0), x.amin(), x.amax(), x.abs().sum()]).numpy()


@pytest.mark.parametrize("name", detection_golden.manifest()["networks"])
def test_released_keys_and_order_are_ours(name: str) -> None:
    facts, options = detection_golden.manifest()["networks"][name], detection_golden.options(name)
    with torch.device("meta"):
        part, whole = ViDT(**options), ViDT(**options | {"tokens": 100, "layers": 6})
    assert list(part.state_dict()) == [key for key, _ in detection_golden.entries(name)]
    assert sum(p.numel() for p in part.parameters()) == facts["parameters_here"]
    assert sum(p.numel() for p in whole.parameters()) == facts["parameters_100_tokens_6_layers"]


@each_vidt
def test_predictions_matching_losses_and_gradients(case: dict) -> None:
    ours, want = made_of(case), detection_golden.outputs(case)
    agrees(np.array([v.double().sum().item() for v in ours.state_dict().values()]), want["state_dict_sums"], 1e-5)
    found = ours(detection_golden.pictures(case))
    logits, boxes = found.logits[..., :-4], found.logits[..., -4:]
    agrees(logits[:, -1], want["pred_logits"], 1e-4)
    agrees(boxes[:, -1], want["pred_boxes"], 1e-4)
    assert [list(m.shape) for m in found.maps] == case["patch_token_shapes"]
    for m, s, first in zip(found.maps, want["patch_token_stats"], want["patch_token_first8"], strict=True):
        agrees(stats(m), s, 1e-4)
        agrees(m.detach().reshape(-1)[:8], first, 1e-3)
    sets = found.tokens[-1]
    agrees(sets[:, 0].detach(), want["body_det_token"], 1e-4)
    for i, s in enumerate(want["neck_det_token_stats"]):
        agrees(stats(sets[:, i]), s, 1e-4)

    targets = detection_golden.targets(case)
    truth, last = objects(targets), sets.shape[1] - 1
    matched = [
        match(costs(ls, bs, *of, COST)) for ls, bs, of in zip(logits[:, last], boxes[:, last], truth, strict=True)
    ]
    assert torch.cat([rows for rows, _ in matched]).tolist() == want["matched_queries"].tolist()
    assert torch.cat([columns for _, columns in matched]).tolist() == want["matched_targets"].tolist()
    for s in range(last + 1):
        pairs = zip(logits[:, s], boxes[:, s], truth, strict=True)
        terms = set_terms(logits[:, s], boxes[:, s], truth, [match(costs(ls, bs, *of, COST)) for ls, bs, of in pairs])
        suffix = "" if s == last else f"_{s}"
        for name, term in zip(("ce", "bbox", "giou"), terms, strict=True):
            agrees(term.detach(), want[f"loss_{name}{suffix}"], 1e-4)

    weights = [case["hyper"]["loss_weights"][f"loss_{name}"] for name in ("ce", "bbox", "giou")]
    total = torch.stack([*set_losses(found.logits, targets, COST, weights).values()]).sum()
    agrees(total.detach(), want["total"], 1e-4)
    total.backward()
    named = dict(ours.named_parameters())
    keys = [key for key, _ in detection_golden.entries(case["id"].rpartition("_")[0])]
    order = [keys[k] if isinstance(k, int) else k for k in case["parameter_order"]]
    norms = [0.0 if named[k].grad is None else named[k].grad.norm().item() for k in order]
    agrees(np.array(norms), want["grad_l2"], 1e-3)


@each_vidt
def test_post_processing_is_the_released_one(case: dict) -> None:
    want = detection_golden.outputs(case)
    with torch.no_grad():
        found = made_of(case)(detection_golden.pictures(case))
    sizes = torch.tensor([[480.0, 640.0], [333.0, 500.0]])
    best = best_of_sets(found.logits, sizes, 100)
    agrees(best[..., 4], want["post_scores"], 1e-4)
    assert (best[..., 5] == torch.from_numpy(want["post_labels"])).float().mean() > 0.95  # near-ties may swap
    agrees(best[:, :5, :4], want["post_boxes_first5"], 1e-3)


def test_gathering_samples_as_grid_sample_does() -> None:
    maps = uniform((2, 3, 4, 5), 1, -1.0, 1.0).requires_grad_()
    grid = uniform((2, 6, 7, 2), 2, -1.3, 1.3).requires_grad_()
    both = [sample(maps, grid) for sample in (between, gathered)]
    agrees(both[1], both[0].detach().numpy(), 1e-12)
    gradients = [torch.autograd.grad(found.square().sum(), (maps, grid)) for found in both]
    for got, want in zip(gradients[1], gradients[0], strict=True):
        agrees(got, want.numpy(), 1e-10)


@pytest.mark.parametrize("case", detection_golden.cases("vkd_detection"), ids=lambda case: case["id"])
def test_vkd_compares_six_pools(case: dict) -> None:
    want, dtype = detection_golden.outputs(case), getattr(torch, case["dtype"])
    (b, tokens, c), shapes = (2, 7, case["hyper"]["width"]), [tuple(s) for s in case["shapes"]]

    def side(first: int, body: int, neck: int, bound: float) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
        maps = [uniform((b, c, *s), first + i, -bound, bound).to(dtype) for i, s in enumerate(shapes)]
        of_tokens = uniform((b, tokens, c), body, -bound, bound), uniform((3, b, tokens, c), neck, -bound, bound)
        return [m.requires_grad_() for m in maps], *(x.to(dtype).requires_grad_() for x in of_tokens)

    maps, body, neck = side(960, 970, 972, 2.0)
    their_maps, their_body, their_neck = side(965, 971, 973, 3.0)
    projectors = [
        orthogonal_weight(uniform((c, c), 980 + j, -0.3, 0.3).to(dtype), "matrix_exp") for j in range(len(shapes) + 2)
    ]
    agrees(projectors[0], want["projector_weight_0"], 1e-5)

    def pooled(ms: list[torch.Tensor], of_body: torch.Tensor, of_neck: torch.Tensor) -> list[torch.Tensor]:
        # The body stands by itself here: of a network it is the first set of the neck.
        found = pools((*(m.flatten(2).transpose(1, 2) for m in ms), of_neck.transpose(0, 1)))
        return [*found[:-2], of_body.flatten(0, 1), of_neck.flatten(0, 2)]

    mine, theirs = pooled(maps, body, neck), pooled(their_maps, their_body, their_neck)
    terms = [vkd_term(m @ w.T, t.detach()) for m, w, t in zip(mine, projectors, theirs, strict=True)]
    loss = torch.stack(terms).sum()
    rtol = 1e-10 if dtype == torch.float64 else 2e-5
    agrees(loss.detach(), want["loss_distil"], rtol)
    loss.backward()
    for name, grad in {
        "patch_0": maps[0].grad,
        "patch_3": maps[3].grad,
        "body": body.grad,
        "neck_0": neck.grad[0],
    }.items():
        agrees(grad, want[f"grad_{name}"], 10 * rtol if dtype == torch.float64 else 1e-4)


def test_token_matching_is_the_root_of_distances() -> None:
    """Six pools of tokens that lie 6 apart, the last one counted for each of 3 sets; and no NaN where all agree."""
    student = [torch.zeros(2, n, 4) for n in (8, 4, 2, 1)] + [torch.zeros(2, 3, 5, 4, requires_grad=True)]
    teacher = [torch.full_like(x, 3.0) for x in student]
    assert token_matching(pools(student), pools(teacher), 3).item() == pytest.approx((5 * 6 + 3 * 6) ** 0.5)
    same = token_matching(pools(student), pools([x.detach() for x in student]), 3)
    same.backward()
    assert same.item() == 0 and student[-1].grad.isfinite().all()
