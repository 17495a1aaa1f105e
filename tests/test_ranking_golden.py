"""Ranking: what the released code of UnKD computes, from the same inputs."""

from __future__ import annotations

import pytest
import ranking_golden as golden
import torch

from distillery.tasks.ranking.candidates import candidate_lists
from distillery.tasks.ranking.metrics import measure, recommend
from distillery.tasks.ranking.models import BPRMF, LightGCN, Recommender, normalised_graph
from distillery.tasks.ranking.objectives.base import bpr as bpr_loss
from distillery.tasks.ranking.objectives.base import log_probability, penalty
from distillery.tasks.ranking.objectives.cd import cd_loss
from distillery.tasks.ranking.objectives.rd import position_weights, rank_weights, rd_loss
from distillery.tasks.ranking.objectives.rrd import rrd_loss
from distillery.tasks.ranking.objectives.unkd import unkd_loss
from distillery.tasks.ranking.popularity import mirrored_popularity, pairs_per_group, popularity_groups, shares

STRUCTURE, LOSSES = golden.cases("unkd_structure"), golden.cases("unkd")
TERMS = ("unkd", "bpr", "reg", "total", "rd_static", "rd_dynamic", "cd", "rrd")


def by_id(case: golden.Case) -> str:
    return case["id"]


def network(case: golden.Case, whose: str) -> Recommender:
    """The recommender of a case with the embeddings of its teacher or student."""
    data, hyper = golden.inputs(case), case["hyper"]
    net: Recommender
    if hyper["model"] == "BPRMF":
        net = BPRMF(golden.interactions(case), data[f"{whose}_user"].shape[1])
    else:
        net = LightGCN(golden.interactions(case), data[f"{whose}_user"].shape[1], hyper["layers"])
    net.to(getattr(torch, case["dtype"]))
    with torch.no_grad():
        net.user.copy_(data[f"{whose}_user"])
        net.item.copy_(data[f"{whose}_item"])
    return net


def losses(case: golden.Case, net: Recommender) -> dict[str, torch.Tensor]:
    data, hyper = golden.inputs(case), case["hyper"]
    user = data["batch_users"]

    def score(items: torch.Tensor) -> torch.Tensor:
        return net((user, items)).logits

    student = net((user, torch.stack([data["batch_pos"], data["batch_neg"]], dim=1)))
    found = {"bpr": bpr_loss(student.logits[:, 0], student.logits[:, 1], student.floor)}
    found["reg"] = penalty(*student.ego)
    found["unkd"] = unkd_loss(score(data["pos_items"][user]), score(data["neg_items"][user]))
    found["total"] = found["bpr"] + hyper["decay"] * found["reg"] + hyper["kd_weight"] * found["unkd"]

    best = score(data["rd_teacher_top"][user])
    places = position_weights(best.shape[1], 1.0).to(best.dtype)
    found["rd_static"] = rd_loss(best, places)
    moving = rank_weights(best.detach(), score(data["rd_dynamic_samples"][user]).detach(), hyper["n_items"], 0.1)
    found["rd_dynamic"] = rd_loss(best, torch.nn.functional.normalize(places * moving, p=1, dim=1))
    teacher = network(case, "teacher")
    found["cd"] = cd_loss(score(data["cd_items"][user]), teacher((user, data["cd_items"][user])).logits.detach())
    interesting, rest = score(data["rrd_interesting"][user]), score(data["rrd_uninteresting"][user])
    found["rrd"] = rrd_loss(interesting.sigmoid(), rest.sigmoid())
    return found


@pytest.mark.parametrize("case", LOSSES, ids=by_id)
def test_losses_and_gradients(case: golden.Case) -> None:
    net = network(case, "student")
    found = losses(case, net)
    for term in TERMS:
        golden.check(case, term, found[term])
        for name, table in (("user", net.user), ("item", net.item)):
            (grad,) = torch.autograd.grad(found[term], table, retain_graph=True)
            golden.check(case, f"grad_{term}_{name}", grad)


@pytest.mark.parametrize("case", golden.cases("unkd", "propagated_user"), ids=by_id)
def test_lightgcn_propagates(case: golden.Case) -> None:
    users, items = network(case, "student").factors()
    golden.check(case, "propagated_user", users)
    golden.check(case, "propagated_item", items)


@pytest.mark.parametrize("case", golden.cases("unkd", "top20"), ids=by_id)
def test_recommendations_and_metrics(case: golden.Case) -> None:
    data, hyper = golden.inputs(case), case["hyper"]
    users, items = network(case, "student").factors()
    best = recommend(lambda u: users[u] @ items.T, data["test_user_ids"], golden.train_pairs(case), 20)
    assert best.equal(golden.expected(case, "top20").long())
    held = golden.Pairs.of(data["test_users"], data["test_items"], hyper["n_users"])
    group_of = popularity_groups(data["train_items"], hyper["n_items"], hyper["K"])
    for row, k in enumerate((10, 20)):
        found = measure(best[:, :k], data["test_user_ids"], held, group_of)
        for name, value in (
            ("recall", found.recall),
            ("ndcg", found.ndcg),
            ("recall_by_group", found.recall_by_group),
            ("share_by_group", found.share_by_group),
        ):
            want = golden.expected(case, f"metric_{name}")[row]
            torch.testing.assert_close(torch.tensor(value, dtype=torch.float64), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", STRUCTURE, ids=by_id)
def test_groups_and_shares(case: golden.Case) -> None:
    data, hyper = golden.inputs(case), case["hyper"]
    group_of = popularity_groups(data["train_items"], hyper["n_items"], hyper["K"])
    assert group_of.equal(golden.expected(case, "group_of_item").long())
    before = mirrored_popularity(data["train_items"], group_of)
    golden.check(case, "group_ratio_before_power", torch.tensor(before, dtype=torch.float64))
    used = shares(data["train_items"], group_of, hyper["lamda"])
    golden.check(case, "group_ratio_used", torch.tensor(used, dtype=torch.float64))
    assert pairs_per_group(used, hyper["n"]) == golden.expected(case, "pairs_per_group").tolist()


@pytest.mark.parametrize("model", ["BPRMF", "LightGCN"])
@pytest.mark.parametrize("case", golden.cases("unkd_structure", "candidates_BPRMF"), ids=by_id)
def test_candidates(case: golden.Case, model: str) -> None:
    data, train = golden.inputs(case), golden.train_pairs(case)
    names = {f"teacher_{side}": case["inputs"][f"{model}_teacher_{side}"] for side in ("user", "item")}
    case = case | {"inputs": names | case["inputs"], "hyper": case["hyper"] | {"model": model}}
    users, items = network(case, "teacher").factors()
    group_of = popularity_groups(data["train_items"], case["hyper"]["n_items"], case["hyper"]["K"])
    lists, lengths = candidate_lists(lambda u: users[u] @ items.T, train, group_of)
    want = golden.expected(case, f"candidates_{model}").long()
    assert lengths.equal((want >= 0).sum(2))
    width = int(lengths.max())
    assert lists[:, :, :width].long().equal(want[:, :, :width])


@pytest.mark.parametrize("case", golden.cases("unkd_structure", "graph_dense"), ids=by_id)
def test_graph(case: golden.Case) -> None:
    starts, column, weight = normalised_graph(golden.interactions(case))
    size = len(starts) - 1
    dense = torch.zeros(size, size, dtype=torch.float64)
    dense[torch.repeat_interleave(torch.arange(size), starts.diff()), column] = weight
    golden.check(case, "graph_dense", dense)
    assert dense.equal(dense.T)


def test_large_scores_stay_finite_in_float32() -> None:
    """Where the released float32 losses are infinite or have no gradient, ours have the gradient of float64."""
    margin = torch.tensor([-300.0, -110.0, -20.0, 0.0, 20.0, 300.0], requires_grad=True)
    (grad,) = torch.autograd.grad(rd_loss(margin, torch.ones(6)), margin)
    assert torch.sigmoid(margin)[:2].min() == 0  # what the released logarithm would be taken of
    torch.testing.assert_close(grad, (torch.sigmoid(margin.double()).float() - 1) / 6)
    exact = margin.detach().double()
    torch.testing.assert_close(
        log_probability(margin.detach(), 1e-10).double(), (exact.sigmoid() + 1e-10).log(), rtol=1e-6, atol=1e-7
    )
