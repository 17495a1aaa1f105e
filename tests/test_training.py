"""The training step against golden vectors; the view table against the live teacher; resume, preemption, failure."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from typing import Any

import golden
import models_golden
import numpy as np
import pytest
import torch
from small_study import STUDY, make, write

from distillery import data, models
from distillery.data.dataset import Dataset
from distillery.data.loader import Samples
from distillery.data.views import Views
from distillery.objectives.base import Batch, Context, Objective
from distillery.objectives.build import build
from distillery.pipeline.layout import Layout
from distillery.records.io import DistilleryError, StaleInput, load_tensors
from distillery.study.blocks import Cache, Method, Recipe
from distillery.task import task_of
from distillery.tasks.classification.training import ClassTraining, assemble
from distillery.teachers.source import LiveTeachers, TableTeachers
from distillery.teachers.view_table import ViewTable
from distillery.teachers.view_table import build as build_table
from distillery.training.checkpoint import Checkpoint
from distillery.training.loop import Preempted, fit
from distillery.training.optimizer import make_optimizer
from distillery.training.step import Step
from distillery.training.trainee import Trainee

CPU = torch.device("cpu")
KD = Method(objective="kd", temperature=4.0)
SHORT = Recipe(epochs=3, milestones=(2,), augmentation={"pad": 1, "flip": False})


class Fixed:
    """An epoch that is one batch, as it is."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.samples = Samples(images, labels, torch.arange(len(labels)))

    def batch(self, rows: slice) -> Samples:
        assert rows == slice(0, len(self.samples.index))
        return self.samples

    def tensors(self) -> list[torch.Tensor]:
        return []


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("digits") / "arrays.safetensors"
    data.prepare("digits", {}, path)
    return Dataset.load(path)


@pytest.fixture(scope="module")
def teacher(digits: Dataset) -> models.base.Network:
    torch.manual_seed(0)
    network = models.build("resnet8_w4", digits.num_classes, digits.channels)
    trainee = Trainee(network, build(Method(objective="ce"), _context(digits, network)), ClassTraining())
    fit(trainee, digits.loader(SHORT), None, SHORT, 0)
    return network


def _context(digits: Dataset, network: models.base.Network) -> Context:
    with torch.no_grad():
        example = network.eval()(digits.normalise(digits.test_images[:1]))
    return Context(digits.num_classes, digits.train_labels, example)


# --- the step ---------------------------------------------------------------------------------------------------------

HYPER = {"T": "temperature", "warmup": "warmup_epochs"}


STEPS = golden.folder("training_step")
CASES: list[dict[str, Any]] = json.loads((STEPS / "manifest.json").read_text())["cases"]


def test_the_repository_holds_a_step_of_every_reference_trainer() -> None:
    cases = json.loads((golden.VECTORS / "training_step" / "manifest.json").read_text())["cases"]
    assert {case["method"] for case in cases} == {"kd", "dkd"}
    assert {case["dtype"] for case in cases} == {"float32", "float64"}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_three_steps_equal_the_reference(case: dict[str, Any]) -> None:
    """Three steps of the reference trainers (SGD, momentum, weight decay on all): losses, weights, logits."""
    arrays = np.load(STEPS / "training_step.npz", allow_pickle=False)
    double = case["dtype"] == "float64"
    rtol = 1e-9 if double else 1e-2 if case["weights"] == "formula" else 1e-4

    def same(value: torch.Tensor, name: str) -> None:
        expected = torch.from_numpy(np.asarray(arrays[f"{case['id']}__{name}"]))
        bound = rtol * expected.abs().max() + 1e-12
        assert (value.double() - expected.double()).abs().max() <= bound, name

    dtype = torch.float64 if double else torch.float32
    recipe = Recipe(lr=case["lr"], precision=case["dtype"], tap_preacts=True)
    networks = {}
    for role in ("teacher", "student"):
        entries = models_golden.facts(case[role])["state_dict"]
        networks[role] = models.build(case[role], 100).to(dtype)
        models_golden.fill(networks[role], case["weights"], entries)
    student, live = networks["student"].train(), LiveTeachers([networks["teacher"]], recipe)
    images = models_golden.images(case["inputs"], 8).to(dtype)
    labels = torch.tensor(case["labels"])
    hyper = {HYPER.get(k, k): v for k, v in case["hyper"].items() if k != "epoch"}
    context = Context(100, labels, models.base.Outputs(torch.zeros(1, 100)))
    objective = build(Method(objective=case["method"], **hyper), context)
    optimizer = make_optimizer(list(student.named_parameters()), recipe, CPU)
    step = Step(Trainee(student, objective, ClassTraining()), optimizer, live.teach, recipe, CPU)
    norms, losses, terms = [], [], []
    same(live.teach(images, [])[0].logits, "teacher_logits")
    logits = []
    student.register_forward_hook(lambda module, args, out: logits.append(out.logits.detach().clone()))
    for _ in range(case["steps"]):
        step.begin(Fixed(images, labels), case["hyper"].get("epoch", case["epoch"]))
        step(0, 8)
        losses.append(step.totals["loss"] / 8)
        terms.append(step.totals["loss_ce"] / 8)
        norms.append(torch.stack([p.detach().norm() for p in student.parameters()]))
    same(torch.stack(losses), "loss_total")
    same(torch.stack(terms), "loss_ce_weighted")
    same(torch.stack(logits), "train_logits_per_step")
    same(torch.stack(norms), "parameter_l2_norms_after_step")
    same(torch.stack([v.double().sum() for v in student.state_dict().values()]), "final_state_dict_sums")
    with torch.no_grad():
        same(student.eval()(images, preacts=True).logits, "final_logits_eval_mode")
        same(student.train()(images, preacts=True).logits, "final_logits_train_mode")


def test_learning_rate_drops_after_its_milestones() -> None:
    schedule = Recipe().part("schedule")
    rates = [schedule.rate(epoch) for epoch in (1, 150, 151, 180, 181, 210, 211, 240)]
    assert rates == pytest.approx([5e-2, 5e-2, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5])


# --- the view table ---------------------------------------------------------------------------------------------------


def _table(teacher: models.base.Network, digits: Dataset, folder: Path, cache: Cache) -> tuple[Path, dict[str, Any]]:
    path = folder / "table.bin"
    return path, build_table(teacher, digits, Views(1, False, 8), cache, path, "key")


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [False, True])
def test_table_and_live_teacher_train_alike(
    digits: Dataset, teacher: models.base.Network, tmp_path: Path, pooled: bool
) -> None:
    """Same views, same order: the loss curves agree to float32 rounding, epoch by epoch."""
    path, record = _table(teacher, digits, tmp_path, Cache(pooled=pooled))
    assert record["teacher_forwards"] == len(digits.train_labels) * 9
    table = ViewTable.open(path, record)
    views, padded = Views(1, False, 8), Views(1, False, 8).pad(digits.train_images)
    index, view = torch.arange(200), torch.arange(200) % 9
    with torch.no_grad():
        live = teacher.eval()(digits.normalise(views.take(padded, index, view)))
    cached = table.outputs(table.rows(index, view))
    assert (cached.logits - live.logits).abs().max() <= 1e-5
    assert torch.equal(cached.logits.argmax(1), live.logits.argmax(1))
    if pooled:
        assert (cached.pooled - live.pooled).abs().max() <= 1e-5

    def curve(source: Any) -> list[float]:
        trainee = assemble("resnet8_w2", KD, digits, [teacher], 3)
        return [record["loss"] for record in fit(trainee, digits.loader(SHORT), source, SHORT, 3)]

    assert curve(TableTeachers([table])) == pytest.approx(curve(LiveTeachers([teacher], SHORT)), rel=1e-4)


def test_a_damaged_table_is_refused(digits: Dataset, teacher: models.base.Network, tmp_path: Path) -> None:
    path, record = _table(teacher, digits, tmp_path, Cache())
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(StaleInput, match="delete it and run the cache stage again"):
        ViewTable.open(path, record)
    path.write_bytes(content[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(StaleInput, match="not the one its record describes"):
        ViewTable.open(path, record)
    path.unlink()
    with pytest.raises(StaleInput, match="missing"):
        ViewTable.open(path, record)


def test_an_interrupted_table_continues(
    digits: Dataset, teacher: models.base.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after some blocks, built again: the same bytes, without the teacher forwards already paid for."""
    whole, record = _table(teacher, digits, tmp_path, Cache())
    folder = tmp_path / "second"
    monkeypatch.setattr("distillery.teachers.view_table.FLUSH_ROWS", 1)

    def killed(done: int, total: int) -> None:
        if done > 500:
            raise KeyboardInterrupt

    views, path = Views(1, False, 8), folder / "table.bin"
    with pytest.raises(KeyboardInterrupt):
        build_table(teacher, digits, views, Cache(), path, "key", killed)
    assert not path.exists()
    seen: list[int] = []
    again = build_table(teacher, digits, views, Cache(), path, "key", lambda done, total: seen.append(done))
    assert seen[0] > 500
    assert path.read_bytes() == whole.read_bytes()
    assert again == record


# --- resume, preemption, failure --------------------------------------------------------------------------------------


class Interrupting(Objective):
    """Plain training that does something at one of its steps (a signal from outside, at a known moment)."""

    needs = frozenset()

    def __init__(self, context: Context, at: int, do: Any) -> None:
        super().__init__(context)
        self.count, self.at, self.do = 0, at, do

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.count += 1
        if self.count == self.at:
            self.do()
        return super().forward(batch)


def _run(digits: Dataset, folder: Path, at: int = 0, do: Any = None) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    network = models.build("resnet8_w2", digits.num_classes, digits.channels)
    trainee = Trainee(network, Interrupting(_context(digits, network), at, do), ClassTraining())
    checkpoint = Checkpoint(folder / "run.safetensors", "this run")
    checkpoint.seconds = 0
    fit(trainee, digits.loader(SHORT), None, SHORT, 1, checkpoint)
    return network.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 7, 15, 16, 29, 44])
def test_preempted_anywhere_resumes_exactly(digits: Dataset, tmp_path: Path, at: int) -> None:
    """SIGTERM or Ctrl-C within an epoch, at its edges, in the last one: the weights are those of an undisturbed run."""
    undisturbed = _run(digits, tmp_path / "a")
    how = signal.SIGINT if at % 2 else signal.SIGTERM
    with pytest.raises(Preempted) as stopped:
        _run(digits, tmp_path / "b", at, lambda: signal.raise_signal(how))
    assert stopped.value.code == 128 + how
    resumed = _run(digits, tmp_path / "b")
    assert all(torch.equal(resumed[k], v) for k, v in undisturbed.items())


def test_a_signal_after_the_last_step_is_obeyed(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the next run of a block of seeds would begin. Everything is saved; the next start has nothing to train."""
    undisturbed, measure = _run(digits, tmp_path / "a"), ClassTraining.test

    def interrupted(*args: Any, **keys: Any) -> dict[str, float]:
        calls.append(signal.raise_signal(signal.SIGINT) if len(calls) == SHORT.epochs - 1 else None)
        return measure(*args, **keys)

    calls: list[None] = []
    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(ClassTraining, "test", interrupted)
        _run(digits, tmp_path / "b")
    assert "by Ctrl-C (SIGINT): the state is saved" in capsys.readouterr().out
    resumed = _run(digits, tmp_path / "b", 1, lambda: pytest.fail("it trained on"))
    assert all(torch.equal(resumed[k], v) for k, v in undisturbed.items())


def test_killed_without_warning_resumes_exactly(digits: Dataset, tmp_path: Path) -> None:
    """What kill -9 leaves behind is the last epoch's checkpoint; a half-written file never has the final name."""

    def die() -> None:
        raise MemoryError

    undisturbed = _run(digits, tmp_path / "a")
    with pytest.raises(MemoryError):
        _run(digits, tmp_path / "b", 20, die)
    assert "rng.cpu" in load_tensors(tmp_path / "b" / "run.safetensors")
    resumed = _run(digits, tmp_path / "b")
    assert all(torch.equal(resumed[k], v) for k, v in undisturbed.items())


def test_a_checkpoint_of_another_run_is_not_resumed(digits: Dataset, tmp_path: Path) -> None:
    undisturbed = _run(digits, tmp_path / "a")
    path = tmp_path / "a" / "run.safetensors"
    found = Checkpoint(path, "this run").load()
    assert found
    assert found[0].epoch == 3
    assert Checkpoint(path, "another run").load() is None
    path.write_bytes(path.read_bytes()[:1000])
    assert Checkpoint(path, "this run").load() is None
    again = _run(digits, tmp_path / "a")
    assert all(torch.equal(again[k], v) for k, v in undisturbed.items())


def test_not_a_number_stops_the_run_with_a_sentence(digits: Dataset) -> None:
    trainee = assemble("resnet8_w2", Method(objective="ce", ce_weight=1e30), digits, [], 0)
    with pytest.raises(DistilleryError, match=r"loss is .* in epoch \d: lower `recipe.lr`"):
        fit(trainee, digits.loader(SHORT), None, SHORT, 0)


def test_a_convolution_that_torch_would_write_beyond_memory_for_is_refused(digits: Dataset) -> None:
    trainee = assemble("resnet8_w2", Method(objective="ce"), digits, [], 0)
    trainee.student.layer2[0].downsample[0] = torch.nn.Conv2d(2, 4, 1, stride=2, bias=False)  # type: ignore[index, union-attr]
    last = SHORT.updated({"channels_last": True})
    with pytest.raises(DistilleryError, match=r"layer2.0.downsample.0 is .* over fewer than 16 .*channels_last: false"):
        fit(trainee, digits.loader(last), None, last, 0)


def test_history_and_seeds(digits: Dataset) -> None:
    """The student's first weights depend on the seed alone; the history holds what the tables need."""
    first, second = (assemble("resnet8_w2", m, digits, [], 5).student for m in (Method(objective="ce"), KD))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    trainee = Trainee(first, build(Method(objective="ce"), _context(digits, first)), ClassTraining())
    held = digits.hold_out(0.1)
    history = fit(trainee, held.loader(SHORT), None, SHORT, 5)
    assert [r["epoch"] for r in history] == [1, 2, 3]
    assert {"lr", "loss", "loss_ce", "train_top1", "test_top1", "test_top5", "test_loss", "val_top1"} <= history[
        0
    ].keys()
    assert all(math.isfinite(v) for r in history for v in r.values())
    assert history[-1]["loss"] < history[0]["loss"]


# --- parts of a step --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [1e-2, 1e9])
def test_clip_is_torchs_over_student_and_objective_together(
    digits: Dataset, teacher: models.base.Network, clip: float
) -> None:
    def stepped(recipe: Recipe) -> tuple[list[torch.Tensor], list[torch.nn.Parameter]]:
        trainee = assemble("resnet8_w2", Method(objective="fitnet"), digits, [teacher], 0)
        named = [*trainee.student.named_parameters(), *trainee.objective.named_parameters()]
        assert len(named) > len([*trainee.student.parameters()]), "the objective has some of its own"
        before = [p.detach().clone() for _, p in named]
        live = LiveTeachers([teacher], recipe, trainee.objective.needs)
        step = Step(trainee, make_optimizer(named, recipe, CPU), live.teach, recipe, CPU)
        step.begin(Fixed(digits.normalise(digits.train_images[:8]), digits.train_labels[:8]), 1)  # type: ignore[arg-type]
        step(0, 8)
        return before, [p for _, p in named]

    plain = Recipe(lr=1.0, momentum=0.0, weight_decay=0.0)
    before, whole = stepped(plain)
    norm = torch.nn.utils.clip_grad_norm_(whole, clip)
    assert 1e-2 < norm < 1e9
    expected = [p if g.grad is None else p - g.grad for p, g in zip(before, whole, strict=True)]
    _, clipped = stepped(plain.updated({"clip": clip}))
    assert all(torch.equal(p, e) for p, e in zip(clipped, expected, strict=True))


class Formula(models.base.Network):
    """A teacher that has learnt nothing: without parameters, and without or with numbers of its own."""

    def __init__(self, numbers: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("numbers", numbers)

    def forward(self, images: torch.Tensor, preacts: bool = False) -> models.base.Outputs:
        assert self.numbers is None or images.dtype == self.numbers.dtype
        return models.base.Outputs(images.flatten(1)[:, :10])


def test_a_formula_without_weights_can_teach(digits: Dataset) -> None:
    task = task_of({"name": "classification"})
    for numbers in (None, torch.ones(3, dtype=torch.float64)):
        trainee = assemble("resnet8_w2", KD, digits, [Formula(numbers).eval()], 0)
        assert trainee.objective.needs == {"logits"}
        assert task.part("evaluation")(task).multiply_accumulates(Formula(numbers).eval(), digits) == 0


def test_a_view_table_of_another_augmentation_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    methods = {"kd": {"objective": "kd"}, "wide": {"objective": "kd", "recipe": {"augmentation": {"pad": 2}}}}
    write(STUDY | {"methods": methods, "recipe": STUDY["recipe"] | {"epochs": 1, "milestones": []}})
    make()
    records = {path.parts[-3]: json.loads(path.read_text()) for path in Path().rglob("runs.json")}
    assert records["kd"]["teacher_outputs"] == "view table"
    assert records["wide"]["teacher_outputs"] == "live teacher: the table was built for another augmentation"
    assert records["wide"]["recipe"]["augmentation"] == {"pad": 2, "flip": False}


def test_students_in_float64_read_no_view_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its float32 would be a silent loss: 1e-7 of every logit. Without another reader none is made."""
    monkeypatch.chdir(tmp_path)
    double = {"objective": "kd", "recipe": {"precision": "float64"}}
    for methods, made in (({"kd": {"objective": "kd"}, "double": double}, True), ({"double": double}, False)):
        name = "both" if made else "one"
        recipe = STUDY["recipe"] | {"epochs": 1, "milestones": []}
        write(STUDY | {"study": name, "methods": methods, "recipe": recipe, "tables": {}})
        make()
        records = {path.parts[-3]: json.loads(path.read_text()) for path in Path("artifacts", name).rglob("runs.json")}
        assert records["double"]["teacher_outputs"] == "live teacher: a view table would round what float64 computes"
        assert not made or records["kd"]["teacher_outputs"] == "view table"
        assert ("live" not in json.loads(Layout(name).view_table_record("t").read_text())) == made
