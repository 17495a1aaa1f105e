"""Ranking: the task in the fit loop, on a small data set with structure."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_ranking import ITEMS, USERS, write_users

from distillery.errors import DistilleryError
from distillery.records.io import save_tensors, sha256_array
from distillery.study.blocks import Method, Recipe
from distillery.tasks.ranking import Ranking
from distillery.tasks.ranking.data import RankData
from distillery.tasks.ranking.evaluation import RankEvaluation
from distillery.tasks.ranking.loader import PairLoader
from distillery.tasks.ranking.source import CiteULike, Interactions
from distillery.tasks.ranking.teaching import ListTeacher
from distillery.tasks.ranking.training import RankTraining
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Preempted, fit

pytestmark = pytest.mark.slow

RECIPE = Recipe.model_validate(
    {"epochs": 15, "batch_size": 64, "lr": 0.02, "optimizer": {"name": "adam"}, "milestones": [], "test_every": 15}
)
TASK = RankTraining(Ranking())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RankData:
    folder = tmp_path_factory.mktemp("ranking")
    path = str(write_users(folder / "users.dat"))
    options = {"path": path, "format": "users", "least": 5, "test_fraction": 0.2, "val_users": 0.3}
    arrays = Interactions(Interactions.Config.read(options)).load()
    hashes = {name: sha256_array(array) for name, array in arrays.tensors.items()}
    facts = arrays.facts() | {"source": "interactions", "sha256_of": hashes}
    save_tensors(folder / "arrays.safetensors", arrays.tensors, {"facts": json.dumps(facts)})
    return RankData.load(folder / "arrays.safetensors")


def method(name: str, **options: Any) -> Method:
    return Method.model_validate({"objective": name} | options)


def taught(name: str, teacher: torch.nn.Module, data: RankData, **options: Any) -> ListTeacher:
    job: Any = SimpleNamespace(values={"objective": {"objective": name} | options})
    source, how = TASK.teaching(job, {}, [teacher], RECIPE, data)  # type: ignore[list-item]
    assert isinstance(source, ListTeacher) and how == "ranked lists"
    return source


@pytest.fixture(scope="module")
def teacher(data: RankData) -> torch.nn.Module:
    trainee = TASK.assemble("bprmf_d20", method("bpr"), data, [], 5)
    fit(trainee, PairLoader(data), None, RECIPE, 5)
    return trainee.student


def test_the_data_are_what_the_file_says(data: RankData) -> None:
    pairs = data.pairs
    assert (pairs.users, pairs.items) == (USERS, ITEMS)
    assert len(pairs.val.user.unique()) == 27 and len(pairs.test.user.unique()) == 63
    assert data.facts["counts"]["train"] == len(pairs.train)
    assert not pairs.train.has(pairs.test.user, pairs.test.item).any()


@pytest.mark.parametrize("network", ["bprmf_d4", "lightgcn_d4"])
def test_training_finds_the_tastes(network: str, data: RankData) -> None:
    trainee = TASK.assemble(network, method("bpr"), data, [], 0)
    loader = PairLoader(data)
    before = TASK.test(trainee, loader, RECIPE)
    history = fit(trainee, loader, None, RECIPE, 0)
    assert history[0]["loss_bpr"] > history[-1]["loss_bpr"]
    for split in ("val", "test"):
        assert history[-1][f"{split}_recall@10"] > 2 * before[f"{split}_recall@10"]
        assert 0 < history[-1][f"{split}_ndcg@10"] < 1
    assert 0 < history[-1]["test_popular_share"] <= 1


METHODS: dict[str, dict[str, Any]] = {
    "cd": {"samples": 10, "depth": 60},
    "rd": {"top": 10, "start_epochs": 3, "samples": 20},
    "rrd": {"depth": 30, "interesting": 8, "uninteresting": 8},
    "unkd": {"groups": 3, "draws": 9},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_distils(name: str, data: RankData, teacher: torch.nn.Module) -> None:
    block = METHODS[name] | {"weight": 1.0}
    trainee = TASK.assemble("bprmf_d4", method(name, **block), data, [], 0)
    history = fit(trainee, PairLoader(data), taught(name, teacher, data, **block), RECIPE, 0)
    assert history[-1][f"loss_{name}"] < history[0][f"loss_{name}"]


def test_strata_do_what_they_are_for(data: RankData, teacher: torch.nn.Module) -> None:
    """Of pairs of like popularity the student orders more as its teacher does than a student without a teacher."""
    block = METHODS["unkd"] | {"weight": 1.0}
    lists = taught("unkd", teacher, data, **block)
    better, worse = lists.lists.items(99, 99).chunk(2, dim=1)
    agree = {}
    for name, source in (("bpr", None), ("unkd", lists)):
        trainee = TASK.assemble("bprmf_d4", method(name, **(block if source else {})), data, [], 0)
        fit(trainee, PairLoader(data), source, RECIPE, 0)
        users, items = trainee.student.factors()
        scores = users @ items.T
        agree[name] = (scores.gather(1, better) > scores.gather(1, worse)).double().mean().item()
    assert agree["unkd"] > agree["bpr"] + 0.05


def test_epochs_are_functions_of_seed_and_epoch(data: RankData, teacher: torch.nn.Module) -> None:
    loader, rows = PairLoader(data), taught("unkd", teacher, data).rows
    first, again = (loader.epoch(3, 2, cached=partial(rows, seed=3)) for _ in range(2))
    assert first.items.equal(again.items) and first.index.equal(again.index)
    for other in (loader.epoch(3, 2, cached=partial(rows, seed=4)), loader.epoch(3, 3, cached=partial(rows, seed=3))):
        assert not first.items[:, 2:].equal(other.items[:, 2:])
    assert not data.pairs.train.has(first.user, first.items[:, 1]).any()
    assert data.pairs.train.has(first.user, first.items[:, 0]).all()
    assert first.index.sort().values.equal(torch.arange(loader.count))
    batch = first.batch(slice(5, 9))
    assert batch.inputs[1].equal(first.items[5:9]) and batch.index.equal(first.index[5:9])


def test_the_seed_alone_decides_the_weights(data: RankData, teacher: torch.nn.Module) -> None:
    ends = []
    for seed in (0, 0, 1):
        trainee = TASK.assemble("bprmf_d4", method("unkd"), data, [], seed)
        fit(trainee, PairLoader(data), taught("unkd", teacher, data), RECIPE.updated({"epochs": 2}), seed)
        ends.append(trainee.student.item.detach().clone())
    assert ends[0].equal(ends[1]) and not ends[0].equal(ends[2])


@pytest.mark.parametrize("network", ["bprmf_d4", "lightgcn_d4"])
def test_a_run_that_was_stopped_in_an_epoch_ends_with_the_same_bits(
    network: str, data: RankData, teacher: torch.nn.Module, tmp_path: Path
) -> None:
    recipe = RECIPE.updated({"epochs": 3})
    ends = []
    for stop_in in (0, 25):  # of 3 epochs of 18 steps each
        trainee = TASK.assemble(network, method("unkd"), data, [], 0)
        loss, steps = trainee.objective.distill, 0

        def interrupted(batch: Any, loss: Any = loss, stop_in: int = stop_in) -> Any:
            nonlocal steps
            steps += 1
            if steps == stop_in:
                os.kill(os.getpid(), signal.SIGTERM)
            return loss(batch)

        trainee.objective.distill = interrupted  # type: ignore[method-assign]
        checkpoint = Checkpoint(tmp_path / f"{stop_in}.safetensors", "this run")
        arguments = (PairLoader(data), taught("unkd", teacher, data), recipe, 0, checkpoint)
        if stop_in:
            with pytest.raises(Preempted):
                fit(trainee, *arguments)
            trainee = TASK.assemble(network, method("unkd"), data, [], 0)
        history = fit(trainee, *arguments)
        ends.append((history[-1]["loss"], trainee.student.state_dict()))
    (loss_of_one, one), (loss_of_other, other) = ends
    assert loss_of_one == loss_of_other and one.keys() == other.keys() == {"user", "item"}
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("network", ["bprmf_d4", "lightgcn_d4"])
@pytest.mark.parametrize("change", [{"ema": {"decay": 0.9}}, {"precision": "float64"}])
def test_recipes_hold_for_recommenders(network: str, change: dict[str, Any], data: RankData) -> None:
    trainee = TASK.assemble(network, method("bpr"), data, [], 0)
    before = TASK.test(trainee, PairLoader(data), RECIPE)["test_recall@10"]
    history = fit(trainee, PairLoader(data), None, RECIPE.updated(change | {"epochs": 8, "test_every": 8}), 0)
    assert max(value for name, value in history[-1].items() if name.endswith("test_recall@10")) > 2 * before


def test_several_processes_are_refused(data: RankData, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"TORCHELASTIC_RUN_ID": "run", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}  # by torchrun
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DistilleryError, match="in one process"):
        TASK.loader(data, RECIPE)


def test_the_evaluation_sees_what_the_last_test_saw(data: RankData, teacher: torch.nn.Module) -> None:
    trainee = TASK.assemble("lightgcn_d4", method("bpr"), data, [], 0)
    (record,) = fit(trainee, PairLoader(data), None, RECIPE.updated({"epochs": 1}), 0)
    evaluation = RankEvaluation(Ranking())
    outputs = evaluation.outputs(trainee.student, data, RECIPE)
    found, truth = evaluation.measure(outputs, data), evaluation.truth(data)
    assert {f"test_{name}": value for name, value in found["last"].items()}.items() <= record.items()
    assert {f"val_{name}": value for name, value in found["val"].items()}.items() <= record.items()
    assert set(found["last"]) == {measure.name for measure in Ranking.measures}
    assert outputs.shape == (len(truth["users"]), 10)
    assert evaluation.compare(outputs, outputs) == {"overlap@10": 1.0}
    theirs = evaluation.outputs(teacher, data, RECIPE)
    assert 0 < evaluation.compare(outputs, theirs)["overlap@10"] < 1


@pytest.mark.parametrize("network", ["bprmf_d4", "lightgcn_d4"])
def test_embeddings_that_are_no_numbers_are_not_measured(network: str, data: RankData) -> None:
    evaluation, recommender = RankEvaluation(Ranking()), TASK.network(network, data)
    assert evaluation.measurable(evaluation.outputs(recommender, data, RECIPE))
    with torch.no_grad():
        recommender.item[0] = torch.nan
    assert not evaluation.measurable(evaluation.outputs(recommender, data, RECIPE))


def test_another_file_is_not_taken_for_citeulike(tmp_path: Path) -> None:
    path = str(write_users(tmp_path / "users.dat"))
    with pytest.raises(DistilleryError, match="is not CiteULike-t's"):
        CiteULike(CiteULike.Config.read({"path": path})).load()
