"""Training of recommenders: how they are built, what their methods draw from a teacher, how they are tested."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from distillery.models import NETWORKS
from distillery.objectives.base import Context
from distillery.objectives.build import Loss
from distillery.records.header import Header
from distillery.records.io import DistilleryError
from distillery.study.blocks import Method, Recipe
from distillery.tasks.ranking.data import RankData
from distillery.tasks.ranking.loader import PairLoader
from distillery.tasks.ranking.models import Recommender, Scores
from distillery.tasks.ranking.objectives.base import RankingObjective
from distillery.tasks.ranking.teaching import ListTeacher, ranker
from distillery.tasks.ranking.testing import best_items, scores_of
from distillery.tasks.weights import filled
from distillery.training.device import seeded
from distillery.training.parallel import ALONE, Ranks
from distillery.training.task import Training
from distillery.training.trainee import Trainee

if TYPE_CHECKING:
    from distillery.models.base import Network
    from distillery.pipeline.job import Job
    from distillery.training.teaching import TeacherSource


class RankTraining(Training):
    """Networks score items for users; a sample is a training pair."""

    def test(self, trainee: Trainee, loader: PairLoader, recipe: Recipe, ranks: Ranks = ALONE) -> dict[str, float]:  # type: ignore[override]
        """The measures of the task. Every process measures everything: it is one product of two small tables."""
        record: dict[str, float] = {}
        network = cast(Recommender, trainee.student)
        for name, split in loader.splits().items():
            best = best_items(network, loader.data, split.users)
            found = scores_of(best, split.users, split.held, loader.data)
            record |= {f"{name}_{measure}": value for measure, value in found.items()}
        return record

    def load(self, path: Path, sha256: str, recipe: Recipe, device: torch.device) -> RankData:
        return RankData.load(path, sha256).to(device)

    def loader(self, data: RankData, recipe: Recipe) -> PairLoader:
        if Ranks.launched().size > 1:
            raise DistilleryError("recommenders train in one process: start the stage without torchrun")
        return PairLoader(data)

    def network(self, architecture: str, data: RankData) -> Network:
        found = NETWORKS[architecture]
        network: Recommender = found.load()(data.pairs, **found.options)
        return network

    def trained(self, architecture: str, data: RankData, path: Path) -> Network:
        return filled(self.network(architecture, data), architecture, path)

    def assemble(self, student: str, method: Method, data: RankData, teachers: list[Network], seed: int) -> Trainee:
        with seeded(seed, "init"):
            network = self.network(student, data)
        with seeded(seed, "objective"):
            train = data.pairs.train
            objective = Loss(method).build(Context(data.pairs.items, train.item, Scores(torch.empty(1, 2))))
        return Trainee(network, objective, self)

    def teaching(
        self, job: Job, described: Mapping[str, Any], networks: list[Network], recipe: Recipe, data: RankData
    ) -> tuple[TeacherSource | None, str]:
        """What the method draws from the teacher's ranking, drawn here: it takes seconds."""
        if not networks:
            return None, "none"
        kind, config = Loss(Method.model_validate(job.values["objective"])).main
        assert issubclass(kind, RankingObjective) and kind.lists is not None
        teacher = cast(Recommender, networks[0]).to(data.half_of.device)
        return ListTeacher(kind.lists(config, ranker(teacher, data.pairs))), "ranked lists"

    def header(self, data: RankData, **facts: Any) -> Header:
        return Header(
            class_names=(),
            image=(0, 0, 0),
            scale=1.0,
            mean=(),
            std=(),
            data={key: data.facts[key] for key in ("source", "selection")},
            train_images=len(data.pairs.train),
            **facts,
        )
