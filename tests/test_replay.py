"""The replay table: training from it is training with the live teacher; and it is noticed when it is another one's."""

from __future__ import annotations

import copy
import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_images import photos
from small_study import STUDY
from test_stream import written

from distillery import models
from distillery.data import prepare
from distillery.data.dataset import Dataset
from distillery.data.photo_set import PhotoSet
from distillery.data.stream import Stream
from distillery.errors import DistilleryError, StaleInput
from distillery.models.base import Network, Outputs
from distillery.objectives.base import Context
from distillery.objectives.build import build as build_objective
from distillery.pipeline import fingerprint as code
from distillery.pipeline.check import check
from distillery.pipeline.job import Job
from distillery.pipeline.planner import resolve
from distillery.study.blocks import Cache, Method, Recipe
from distillery.tasks.classification import training
from distillery.tasks.classification.cache import _planned
from distillery.tasks.classification.training import ClassTraining
from distillery.teachers import replay
from distillery.teachers.replay import (
    LEVELS,
    Plan,
    ReplayTable,
    ReplayTeachers,
    build,
    decode,
    encode,
    file_of,
    size_in_bytes,
)
from distillery.teachers.replayed import DECIDES, Replayed
from distillery.teachers.source import LiveTeachers
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Preempted, fit
from distillery.training.teaching import TeacherSource
from distillery.training.trainee import Trainee

RECIPE = Recipe(epochs=3, batch_size=7, lr=0.02, milestones=(2,))
PLAN = Plan("key", images=24, classes=2)
SEED = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    """Twenty-four training images, batches of seven."""
    folder = tmp_path_factory.mktemp("replay")
    return PhotoSet.load(*written(photos(folder / "photos", 12, ("train", "val")), folder))


@pytest.fixture(scope="module")
def teacher(data: PhotoSet) -> Network:
    """A network that has learnt a little: its outputs differ from view to view."""
    torch.manual_seed(0)
    network = models.build("resnet8", 2)
    trained = Trainee(network, build_objective(Method(objective="ce"), context(data, network)), ClassTraining())
    fit(trained, loader(data), None, RECIPE, 1)
    return network.eval()


def loader(data: PhotoSet, recipe: Recipe = RECIPE) -> Stream:
    return Stream(data, recipe, workers=0)


@torch.no_grad()
def context(data: PhotoSet, student: Network, teacher: Network | None = None) -> Context:
    image = data.normalise(data.example())
    outputs = teacher.eval()(image, preacts=True) if teacher else None
    return Context(2, data.train_labels, student.eval()(image, preacts=True), outputs, teacher)


def trained(
    data: PhotoSet,
    teacher: Network,
    source: TeacherSource,
    recipe: Recipe = RECIPE,
    checkpoint: Checkpoint | None = None,
) -> Any:
    """Train a student; return its history and weights."""
    torch.manual_seed(3)
    student = models.build("resnet8", 2)
    objective = build_objective(Method(objective="kd", temperature=2.0), context(data, student, teacher))
    history = fit(Trainee(student, objective, ClassTraining()), loader(data, recipe), source, recipe, SEED, checkpoint)
    return history, student.state_dict()


def made(data: PhotoSet, teacher: Network, folder: Path, plan: Plan = PLAN, epochs: int = 3) -> ReplayTable:
    for epoch in range(1, epochs + 1):
        build(teacher, loader(data), SEED, epoch, RECIPE, plan, folder)
    return ReplayTable(folder, plan)


# --- the same training


def test_training_from_the_table_is_training_with_the_live_teacher(
    data: PhotoSet, teacher: Network, tmp_path: Path
) -> None:
    """On one thread and in float32 to the last bit: losses, accuracies, weights; epochs built in any order."""
    live, weights = trained(data, teacher, LiveTeachers([teacher], RECIPE))
    for epoch in (2, 3, 1):
        build(teacher, loader(data), SEED, epoch, RECIPE, PLAN, tmp_path)
    replayed, others = trained(data, teacher, ReplayTeachers([ReplayTable(tmp_path, PLAN)]))
    assert replayed == live
    assert len({record["loss_kd"] for record in live}) == 3, "the loss falls: something is learnt"
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_bfloat16_keeps_the_type_that_the_teacher_gave(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "bfloat16", "epochs": 1})
    live, _ = trained(data, teacher, LiveTeachers([teacher], recipe), recipe)
    facts = build(teacher, loader(data, recipe), SEED, 1, recipe, PLAN, tmp_path)
    assert facts["type"] == "bfloat16"
    replayed, _ = trained(data, teacher, ReplayTeachers([ReplayTable(tmp_path, PLAN)]), recipe)
    assert replayed == live


def test_float64_training_sees_float64_rows(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"precision": "float64", "epochs": 1})
    network = copy.deepcopy(teacher).double()
    live, weights = trained(data, teacher, LiveTeachers([network], recipe), recipe)
    plan = dataclasses.replace(PLAN, kind="float64")
    facts = build(network, loader(data, recipe), SEED, 1, recipe, plan, tmp_path)
    assert facts["type"] == "float64" and file_of(tmp_path, 1).stat().st_size == 24 * 2 * 8
    replayed, others = trained(data, teacher, ReplayTeachers([ReplayTable(tmp_path, plan)]), recipe)
    assert replayed == live and all(torch.equal(weights[name], others[name]) for name in weights)


def test_sixteen_bits_are_close(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    live, _ = trained(data, teacher, LiveTeachers([teacher], RECIPE))
    plan = dataclasses.replace(PLAN, kind="int16")
    replayed, _ = trained(data, teacher, ReplayTeachers([made(data, teacher, tmp_path, plan)]))
    for one, other in zip(replayed, live, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert file_of(tmp_path, 1).stat().st_size == 24 * (8 + 2 * 2) == size_in_bytes(24, 2, "int16", 1)


def test_held_out_images_have_no_rows(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    part = data.hold_out(0.25)
    facts = build(teacher, loader(part), SEED, 1, RECIPE, PLAN, tmp_path)
    assert facts["teacher_forwards"] == 18 and file_of(tmp_path, 1).stat().st_size == 24 * 2 * 4
    live, _ = trained(part, teacher, LiveTeachers([teacher], RECIPE), one := RECIPE.model_copy(update={"epochs": 1}))
    assert trained(part, teacher, ReplayTeachers([ReplayTable(tmp_path, PLAN)]), one)[0] == live


def test_pooled_features_come_along(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    table = made(data, teacher, tmp_path, dataclasses.replace(PLAN, pooled=True), 1)
    seen: list[Any] = []

    def cached(index: torch.Tensor, view: torch.Tensor, epoch: int) -> list[torch.Tensor]:
        seen.append(table.rows(index, view, epoch))
        return seen[-1:]

    samples = loader(data).epoch(SEED, 1, cached=cached).batch(slice(0, 7))
    (found,), (expected,) = (
        source.teach(samples.inputs, samples.cached)
        for source in (ReplayTeachers([table]), LiveTeachers([teacher], RECIPE))
    )
    assert torch.equal(found.logits, expected.logits)
    assert found.pooled is not None and torch.equal(found.pooled, expected.pooled)


def test_enumerable_views_can_be_replayed_too(teacher: Network, tmp_path: Path) -> None:
    """Any loader can be replayed: of arrays, every view's number is compared."""
    prepare("folder", {"root": str(photos(tmp_path / "photos", 12, ("train", "val"))), "size": 24}, tmp_path / "arrays")
    arrays = Dataset.load(tmp_path / "arrays").loader(RECIPE)
    build(teacher, arrays, SEED, 1, RECIPE, PLAN, tmp_path)
    replayed_, live = ReplayTeachers([ReplayTable(tmp_path, PLAN)]), LiveTeachers([teacher], RECIPE)
    samples = arrays.epoch(SEED, 1, cached=replayed_.rows).batch(slice(7, 14))
    (one,), (other,) = (source.teach(samples.inputs, samples.cached) for source in (replayed_, live))
    assert torch.equal(one.logits, other.logits)
    with pytest.raises(StaleInput, match="was built from other pixels"):
        arrays.epoch(SEED + 1, 1, cached=replayed_.rows)


class Interrupting(LiveTeachers):
    """A teacher during whose tenth batch, in the middle of the third epoch, the scheduler wants the machine back."""

    calls = 0

    def teach(self, images: torch.Tensor, rows: list[torch.Tensor]) -> tuple[Outputs, ...]:
        self.calls += 1
        if self.calls == 10:
            signal.raise_signal(signal.SIGTERM)
        return super().teach(images, rows)


def test_a_run_that_was_preempted_in_an_epoch_ends_with_the_same_weights(
    data: PhotoSet, teacher: Network, tmp_path: Path
) -> None:
    live, weights = trained(data, teacher, LiveTeachers([teacher], RECIPE))
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", "key")
    source = Interrupting([teacher], RECIPE)
    with pytest.raises(Preempted):
        trained(data, teacher, source, checkpoint=checkpoint)
    history, others = trained(data, teacher, source, checkpoint=checkpoint)
    assert source.calls == 12, "three epochs of four batches: none twice"
    assert history == live and all(torch.equal(weights[name], others[name]) for name in weights)


# --- rows


def test_float32_rows_are_exact_and_sixteen_bits_within_half_a_step() -> None:
    generator = torch.Generator().manual_seed(0)
    scale = 10.0 ** torch.randint(-3, 4, (200, 1), generator=generator)
    rows = torch.randn(200, 100, generator=generator) * scale + 5 * torch.randn(200, 1, generator=generator)
    assert torch.equal(decode(encode(rows, "float32")), rows)
    extent = rows.amax(1) - rows.amin(1)
    error = (decode(encode(rows, "int16")).double() - rows.double()).abs().amax(1)
    rounding = 2.0**-22 * rows.abs().amax(1)  # of float32, where a row is far from zero
    assert (error <= extent / (2 * LEVELS) * 1.01 + rounding).all()
    worst = (rows.half().double() - rows.double()).abs().amax(1)
    assert (error < worst / 5).double().mean() > 0.9, "many times closer than float16, at its size"
    assert torch.equal(decode(encode(torch.full((2, 3), 7.25), "int16")), torch.full((2, 3), 7.25))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(DistilleryError, match="not a finite number"):
        encode(torch.tensor([[0.0, value]]), "int16")


def test_the_budget_is_known_beforehand() -> None:
    """ImageNet: 2.57 GB an epoch in 16 bits, 5.12 GB in float32."""
    assert size_in_bytes(1_281_167, 1000, "float32", 100) == 100 * 1_281_167 * 4000
    assert size_in_bytes(1_281_167, 1000, "int16", 1) == 1_281_167 * 2008


def test_the_budget_counts_the_numbers_of_float64(data: PhotoSet, teacher: Network) -> None:
    """A table for students in float64 holds numbers of 8 bytes, in a budget that 4 would keep."""
    values = {"augmentation": {}, "epochs": 3}
    size, why = _planned(teacher, data, Cache(), values)
    assert (size, why) == (size_in_bytes(24, 2, "float32", 3), "")
    budget = Cache(budget_gb=1.5 * size / 1e9)
    assert _planned(teacher, data, budget, values) == (size, "")
    size, why = _planned(teacher, data, budget, values | {"students_in": "float64"})
    assert size == size_in_bytes(24, 2, "float64", 3) and why.endswith("over cache.budget_gb")
    content = STUDY | {"data": {"source": "streamed_cifar100"}}
    content["methods"] = {"kd": {"objective": "kd", "recipe": {"precision": "float64"}}}
    assert [job.values["students_in"] for job in resolve(check(content)) if job.stage == "cache"] == ["float64"]


# --- made in pieces


def test_an_interrupted_build_goes_on(
    data: PhotoSet, teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(teacher, loader(data), SEED, 1, RECIPE, PLAN, tmp_path / "whole")
    monkeypatch.setattr(replay, "FLUSH_ROWS", 7)
    forwards = 0

    def counted(self: LiveTeachers, images: torch.Tensor, rows: list[torch.Tensor]) -> tuple[Outputs, ...]:
        nonlocal forwards
        forwards += len(images)
        return teach(self, images, rows)

    def stop(done: int, count: int) -> None:
        if done == 14:
            raise KeyboardInterrupt

    teach = LiveTeachers.teach
    monkeypatch.setattr(LiveTeachers, "teach", counted)
    with pytest.raises(KeyboardInterrupt):
        build(teacher, loader(data), SEED, 1, RECIPE, PLAN, tmp_path / "part", stop)
    assert not file_of(tmp_path / "part", 1).exists()
    assert build(teacher, loader(data), SEED, 1, RECIPE, PLAN, tmp_path / "part") == whole
    assert forwards == 24, "nothing is computed twice"
    assert build(teacher, loader(data), SEED, 1, RECIPE, PLAN, tmp_path / "part") == whole and forwards == 24
    assert sorted(path.name for path in (tmp_path / "part").iterdir()) == ["epoch-0001.bin", "epoch-0001.json"]
    other = dataclasses.replace(PLAN, key="another teacher")
    assert build(teacher, loader(data), SEED, 1, RECIPE, other, tmp_path / "part")["key"] == "another teacher"
    assert forwards == 48


class Killed(BaseException):
    """What nothing catches, as nothing catches SIGKILL."""


def test_a_build_that_was_killed_twice_makes_all_rows(
    data: PhotoSet, teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First as the file has its name and no facts, or as its note is still there; then before the next note."""
    whole = build(teacher, loader(data), SEED, 1, RECIPE, PLAN, tmp_path / "whole")

    def no_facts(path: Path, made: dict[str, Any]) -> None:
        if "partial" not in path.name:
            raise Killed
        write_json(path, made)

    def stop(done: int, count: int) -> None:
        if done == 14:
            raise Killed

    write_json = replay.write_json
    for name, stale in (("as it was", False), ("a note of a file that has its name", True)):
        folder = tmp_path / name
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(replay, "write_json", no_facts)
            build(teacher, loader(data), SEED, 1, RECIPE, PLAN, folder)
        note = file_of(folder, 1).with_suffix(".partial.json")
        assert file_of(folder, 1).exists() and not note.exists(), "a note goes before its file does"
        if stale:
            write_json(note, {"key": PLAN.key, "done": 24, "sums": {}, "columns": 2, "type": "float32"})
        with pytest.raises(Killed):
            build(teacher, loader(data), SEED, 1, RECIPE, PLAN, folder, stop)
        assert not note.exists()
        assert build(teacher, loader(data), SEED, 1, RECIPE, PLAN, folder) == whole
        assert file_of(folder, 1).read_bytes() == file_of(tmp_path / "whole", 1).read_bytes()


# --- another one's


def replayed(data: PhotoSet, table: ReplayTable, seed: int = SEED, epoch: int = 1) -> None:
    laid_out = loader(data).epoch(seed, epoch, cached=ReplayTeachers([table]).rows)
    for start in range(0, 24, 7):
        laid_out.batch(slice(start, min(start + 7, 24)))


def test_files_are_opened_once_by_each_run_and_made_again_if_deleted(
    data: PhotoSet, teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two students in turn, as `at_once` trains them; then either half of a file is gone."""
    source = Replayed([teacher], [tmp_path], [PLAN], lambda: loader(data), RECIPE)
    opened: list[Path] = []
    monkeypatch.setattr(replay, "sha256_file", lambda path: opened.append(path) or "")
    index, no_view = torch.arange(3), torch.full((3,), -1)
    first = [source.rows(index, no_view, 1, seed)[0] for _ in range(3) for seed in (0, 1)][:2]
    assert len(opened) == 4, "each file once as it is built, and once as it is opened"
    for name in ("*.bin", "*.json"):
        for path in tmp_path.rglob(name):
            path.unlink()
        again = Replayed([teacher], [tmp_path], [PLAN], lambda: loader(data), RECIPE)
        assert all(torch.equal(again.rows(index, no_view, 1, seed)[0], first[seed]) for seed in (0, 1))


def test_other_views_are_noticed(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    """Of another seed; or of other pixels in the same boxes, as another decoder or size would give."""
    table = made(data, teacher, tmp_path, epochs=1)
    assert len(table_sums(tmp_path)) == 8, "one in three here, one in a thousand of many"
    replayed(data, table)
    with pytest.raises(
        StaleInput, match=r"epoch-0001\.bin was built from other pixels than training sees \(image \d+\)"
    ):
        replayed(data, table, seed=SEED + 1)
    with pytest.raises(StaleInput, match="was built from other pixels"):
        replayed(dataclasses.replace(data, size=(24, 21)), table)


def table_sums(folder: Path) -> dict[str, int]:
    return json.loads(file_of(folder, 1).with_suffix(".json").read_text())["sums"]


def test_wrong_files_are_noticed(data: PhotoSet, teacher: Network, tmp_path: Path) -> None:
    made(data, teacher, tmp_path, epochs=2)
    with pytest.raises(DistilleryError, match=r"epoch-0003\.json is missing"):
        replayed(data, ReplayTable(tmp_path, PLAN), epoch=3)
    with pytest.raises(StaleInput, match="another teacher, recipe or epoch"):
        replayed(data, ReplayTable(tmp_path, dataclasses.replace(PLAN, key="other")))
    for end in (".bin", ".json"):
        file_of(tmp_path, 2).with_suffix(end).rename(file_of(tmp_path, 1).with_suffix(end))
    with pytest.raises(StaleInput, match="another teacher, recipe or epoch"):
        replayed(data, ReplayTable(tmp_path, PLAN))
    made(data, teacher, tmp_path / "new", epochs=1)
    path = file_of(tmp_path / "new", 1)
    content = path.read_bytes()
    for wrong in (content[:-1], b"\1" + content[1:]):
        path.write_bytes(wrong)
        with pytest.raises(StaleInput, match="is not the file that was built"):
            replayed(data, ReplayTable(tmp_path / "new", PLAN))


def test_numpy_rows_have_no_padding() -> None:
    for kind, size in (("float32", 40), ("float64", 80), ("int16", 28)):
        assert np.zeros(3, replay.row_type(kind, 10)).nbytes == 3 * size  # type: ignore[arg-type]


def test_a_table_is_of_the_code_and_the_packages_that_make_the_outputs(
    data: PhotoSet, teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released weights stay the same when the code of their network, or of what it sees, does not."""
    network, part = tmp_path / "network.py", tmp_path / "part.py"
    network.write_text("class Net: scale = 1")
    part.write_text("class Dark: level = 1")
    values: dict[str, Any] = {"task": {"name": "classification"}, "cached": {"dtype": "float32", "pooled": False}}
    values |= {"recipe": {"augmentation": {"then": [{"name": f"{part}:Dark"}]}}}
    values |= {"teachers": {"other": {"architecture": "resnet8"}, "mine": {"architecture": f"{network}:Net"}}}
    described = {"mine": {"weights": "of mine"}, "other": {"weights": "of other"}}  # by name, as files have them

    def keys() -> list[str]:
        for cached in (code._module, code._closure):
            cached.cache_clear()
        job, needs = Job("s", "distill", ("p", "kd", "0"), values, "", {}, {}), frozenset({"logits"})
        source, _ = ClassTraining()._replayed(job, described, [teacher, teacher], RECIPE, data, needs, None)
        assert isinstance(source, Replayed)
        return [plan.key for plan in source.plans]

    before = keys()
    network.write_text("class Net: scale = 1  # the same")
    assert keys() == before
    network.write_text("class Net: scale = 9")
    after = keys()
    assert after[0] == before[0] and after[1] != before[1]
    part.write_text("class Dark: level = 2")
    assert not {*keys()} & {*before, *after}
    after = keys()
    monkeypatch.setattr(training, "environment", lambda _: {"torch": "another"})
    before, after = after, keys()
    assert not {*before} & {*after}
    found = [after]
    for change in ({"dtype": "int16"}, {"pooled": True}, {"dtype": "float32"}):  # rows of another kind or width
        values["cached"] |= change
        found.append(keys())
    assert len({key for each in found for key in each}) == 8
    values["cached"]["pooled"] = False
    assert keys() == after
    described["other"]["weights"] = "others"
    assert keys()[0] != after[0] and keys()[1] == after[1], "each of its own teacher's weights"


def test_all_that_decides_a_row_is_in_the_key(data: PhotoSet, teacher: Network) -> None:
    """Every entry of `DECIDES` by itself; and nothing else of a recipe, as methods share the table."""
    values: dict[str, Any] = {"task": {"name": "classification"}, "cached": {"dtype": "float32", "pooled": False}}
    values |= {"recipe": {"augmentation": {}}, "teachers": {"t": {"architecture": "resnet8"}}}
    job = Job("s", "distill", ("p", "kd", "0"), values, "", {}, {})

    def key(**said: Any) -> str:
        recipe = RECIPE.updated(said)
        source, _ = ClassTraining()._replayed(
            job, {"t": {"weights": "w"}}, [teacher], recipe, data, frozenset({"logits"}), None
        )
        assert isinstance(source, Replayed)
        return source.plans[0].key

    others: dict[str, Any] = {"augmentation": {"view_seed": 1}, "batch_size": 8, "precision": "bfloat16"}
    others |= {"channels_last": True, "validation": 0.25, "label_smoothing": 0.1}
    assert others.keys() == set(DECIDES)
    keys = [key(), *(key(**{name: value}) for name, value in others.items())]
    assert len(set(keys)) == len(keys)
    assert key(lr=0.5, epochs=9, weight_decay=0.0, ema={"decay": 0.5}) == keys[0]
