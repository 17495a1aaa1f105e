"""What is measured about a student, against scikit-learn, hand-made cases and a real run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import golden
import models_golden
import numpy as np
import pytest
import small_study
import torch
import torch.nn.functional as F
import yaml
from sklearn import metrics

from distillery import models
from distillery.cli import app
from distillery.evaluation import conventions
from distillery.evaluation.accuracy import accuracy
from distillery.evaluation.calibration import calibration
from distillery.evaluation.fidelity import fidelity, logit_scale
from distillery.evaluation.macs import multiply_accumulates
from distillery.evaluation.places import places
from distillery.pipeline.layout import Layout
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError
from distillery.stages.evaluate import taken_out
from distillery.tasks.classification import Classification
from distillery.tasks.classification.evaluation import ClassEvaluation
from distillery.tasks.classification.training import ClassTraining
from distillery.training.history import load_history


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a fair classifier on 2,000 images of 12 classes, and the labels."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.randint(0, 12, (2000,), generator=generator)
    logits = 2 * torch.randn(2000, 12, generator=generator) + 2.5 * F.one_hot(labels, 12)
    return logits, labels


def test_accuracy_agrees_with_scikit_learn(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    found, scores = accuracy(logits, labels), logits.numpy()
    predicted = scores.argmax(1)
    assert found["top1"] == pytest.approx(100 * metrics.accuracy_score(labels, predicted), abs=1e-9)
    assert found["top5"] == pytest.approx(100 * metrics.top_k_accuracy_score(labels, scores, k=5), abs=1e-9)
    recall = metrics.recall_score(labels, predicted, average=None)
    assert found["per_class"] == pytest.approx(100 * recall, abs=1e-5)
    assert np.array_equal(found["predictions"], predicted)


def test_of_equal_logits_the_first_class_is_the_better_one() -> None:
    """bfloat16 has many, and torch's topk of one and of five, on a CPU and on a GPU, do not take the same."""
    logits = torch.randn(4000, 100, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.arange(4000) % 100
    assert (logits.topk(1).indices[:, 0] != logits.topk(5).indices[:, 0]).any()
    order = np.argsort(-logits.float().numpy(), axis=1, kind="stable")
    assert np.array_equal(order[np.arange(4000), places(logits, labels)], labels.numpy())
    found = accuracy(logits.float(), labels)
    assert np.array_equal(found["predictions"], order[:, 0])
    assert found["top1"] == pytest.approx(100 * (order[:, 0] == labels.numpy()).mean())
    tested = ClassTraining().counted(logits, labels)
    assert [int(tested["top1"]) / 40, int(tested["top5"]) / 40] == [found["top1"], found["top5"]]


def test_logits_that_are_no_numbers_are_never_right() -> None:
    logits = torch.tensor([[float("nan"), 1.0], [float("nan"), 1.0], [float("nan")] * 2])
    assert places(logits, torch.tensor([1, 0, 1])).tolist() == [1, 2, 2]


def test_a_class_without_test_images_has_no_accuracy() -> None:
    found = accuracy(torch.eye(4)[:3], torch.tensor([0, 1, 0]))
    assert found["per_class"] == [50.0, 100.0, None, None]
    assert found["top5"] == 100.0  # of four classes


def test_what_is_taken_out_of_the_metrics_survives_as_arrays(tmp_path: Path) -> None:
    classes, curves = np.array([0, 1, 999, 65535]), {"epoch": [1, 2], "test_top1": [None, 12.5]}
    entry = {"seed": 3, "predictions": classes, "per_class": [100 / 3, None], "curves": curves}
    artifacts.save_tensors(tmp_path / "p.safetensors", taken_out("run.3", entry, ClassEvaluation.bulk))
    assert entry == {"seed": 3}
    found = artifacts.load_arrays(tmp_path / "p.safetensors")
    assert found["run.3.predictions"].tolist() == classes.tolist()
    assert np.array_equal(found["run.3.per_class"], [100 / 3, np.nan], equal_nan=True)
    assert np.array_equal(found["run.3.curves.test_top1"], [np.nan, 12.5], equal_nan=True)


def test_calibration_agrees_with_scikit_learn_and_the_definition(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = sample
    found = calibration(logits, labels)
    p = logits.double().softmax(1).numpy()
    assert found["nll"] == pytest.approx(metrics.log_loss(labels, p), rel=1e-9)
    assert found["entropy"] == pytest.approx(-(p * np.log(p)).sum(1).mean(), rel=1e-9)
    confidence, right = p.max(1), p.argmax(1) == labels.numpy()
    ece = 0.0
    for low in range(15):  # the definition, bin by bin
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        assert found["reliability"]["images"][low] == inside.sum()
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
            assert found["reliability"]["accuracy"][low] == pytest.approx(100 * right[inside].mean(), abs=1e-5)
        else:
            assert found["reliability"]["confidence"][low] is None
    assert found["ece"] == pytest.approx(100 * ece, rel=1e-9)


def test_calibration_of_certain_and_of_clueless_outputs() -> None:
    certain = calibration(torch.tensor([[1e4, 0.0], [1e4, 0.0]]), torch.tensor([0, 1]))
    assert certain["ece"] == pytest.approx(50.0)
    assert certain["entropy"] == 0.0
    assert certain["nll"] == pytest.approx(5e3)  # finite where a probability would have underflown
    clueless = calibration(torch.zeros(4, 8), torch.tensor([0, 1, 2, 3]))
    assert clueless["entropy"] == pytest.approx(np.log(8))


def test_fidelity_against_numpy(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    student, _ = sample
    teacher = student + torch.randn(student.shape, generator=torch.Generator().manual_seed(8))
    found = fidelity(student, teacher)
    assert found["agreement"] == pytest.approx(100 * (student.argmax(1) == teacher.argmax(1)).double().mean().item())
    p, q = (x.double().softmax(1).numpy() for x in (teacher, student))
    assert found["kl"] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-9)
    each = [np.corrcoef(s, t)[0, 1] for s, t in zip(student.double().numpy(), teacher.double().numpy(), strict=True)]
    assert found["logit_correlation"] == pytest.approx(np.mean(each), rel=1e-9)


def test_fidelity_of_a_student_that_only_scales_its_teacher() -> None:
    teacher = torch.randn(50, 10, generator=torch.Generator().manual_seed(9))
    found = fidelity(0.1 * teacher + 3, teacher)
    assert found["agreement"] == 100.0
    assert found["logit_correlation"] == pytest.approx(1.0)
    assert found["kl"] > 0.1
    same = fidelity(teacher, teacher)
    assert same["kl"] == pytest.approx(0, abs=1e-12)
    assert (
        fidelity(torch.zeros(5, 10), teacher[:5])["logit_correlation"] == 0.0
    )  # constant logits: no direction, no NaN


def test_logit_scale_counts_every_logit_once(sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, _ = sample
    found, values = logit_scale(logits), logits.double().numpy()
    assert found["range"] == pytest.approx((values.max(1) - values.min(1)).mean())
    assert found["std"] == pytest.approx(values.std(1).mean())
    assert found["mean"] == pytest.approx(values.mean())
    start, counts = found["histogram"]["from"], found["histogram"]["counts"]
    expected, _ = np.histogram(values, bins=np.arange(start, start + len(counts) + 1))
    assert counts == expected.tolist()
    assert sum(counts) == values.size
    far = logit_scale(torch.tensor([[0.5, 1e12], [-1e12, 2.5]]))
    assert far["histogram"]["from"] == -1000 and sum(far["histogram"]["counts"]) == 4
    assert len(far["histogram"]["counts"]) == 2001 and far["max"] == pytest.approx(1e12)


@pytest.mark.slow
def test_multiply_accumulates_are_the_golden_ones() -> None:
    index = json.loads((golden.VECTORS / "architectures" / "index.json").read_text())
    ours = {released: name for name, released in models_golden.RELEASED_NAMES.items()}
    assert len(index) > 20
    for name, facts in index.items():
        network = models.build(ours.get(name, name), 100)
        assert multiply_accumulates(network, torch.zeros(1, 3, 32, 32)) == facts["macs"], name


def test_the_best_epoch_is_the_first_of_equals_and_is_named() -> None:
    epochs = [
        {"epoch": 1, "test_top1": 50.0, "test_top5": 90.0, "val_top1": 55.0},
        {"epoch": 2},
        {"epoch": 3, "test_top1": 60.0, "test_top5": 91.0, "val_top1": 54.0},
        {"epoch": 4, "test_top1": 60.0, "test_top5": 92.0, "val_top1": 55.0},
    ]
    assert conventions.best(epochs, "test", "top1") == {"epoch": 3, "top1": 60.0, "top5": 91.0}
    assert conventions.best(epochs, "val", "top1") == {"epoch": 1, "top1": 50.0, "top5": 90.0, "val_top1": 55.0}
    assert conventions.best([{"epoch": 1}], "val", "top1") is None
    assert conventions.best(epochs, "val", "top1", higher=False) == {
        "epoch": 3,
        "top1": 60.0,
        "top5": 91.0,
        "val_top1": 54.0,
    }
    assert conventions.curves(epochs)["test_top1"] == [50.0, None, 60.0, 60.0]


PAIR = "resnet8_w2-resnet8_w2"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny study, trained and evaluated through the command line's own functions."""
    folder = tmp_path_factory.mktemp("study")
    params = small_study.digits()
    params["data"]["test_fraction"] = 0.5
    params["recipe"] |= {"epochs": 2, "milestones": [1], "validation": 0.2, "test_every": 1}
    params["teachers"] = {"resnet8_w2": {"architecture": "resnet8_w2", "recipe": {"validation": 0.0}}}
    params["pairs"] = {PAIR: {"teacher": "resnet8_w2", "student": "resnet8_w2"}}
    params["methods"] = {"ce": {"objective": "ce"}, "simkd": {"objective": "simkd", "plus": {"crd": {}}}}
    params["methods"]["rough"] = {"objective": "ce", "recipe": {"precision": "bfloat16"}}
    params["seeds"], params["tables"] = [3], {"convention": "last"}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run("data")
        for stage in ("teacher", "cache"):
            run(stage, "--teacher", "resnet8_w2")
        run("pair", "--pair", PAIR)
        for method in params["methods"]:
            run("distill", "--pair", PAIR, "--method", method, "--seed", "3")
            run("evaluate", "--pair", PAIR, "--method", method, "--seed", "3")
    return folder


def run(*argv: str) -> None:
    app(list(argv), standalone_mode=False)


def predictions(method: str) -> dict[str, Any]:
    return artifacts.load_arrays(Layout("digits").predictions(PAIR, method, "3"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ce", "simkd", "rough"])
def test_evaluation_finds_the_accuracy_that_training_ended_with(
    trained: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.chdir(trained)
    layout = Layout("digits")
    record, bulk = artifacts.read_json(layout.metrics(PAIR, method, "3")), predictions(method)
    (measured,), trace = record["runs"], load_history(layout.history(PAIR, method, "3"))["3"]
    last = trace[-1]
    assert measured["last"] == {"top1": last["test_top1"], "top5": last["test_top5"]}
    assert measured["nll"] == pytest.approx(last["test_loss"], rel=1e-5)
    assert measured["test_best"]["top1"] == max(e["test_top1"] for e in trace)
    assert measured["val_best"]["val_top1"] == max(e["val_top1"] for e in trace)
    assert 100 * (bulk["labels"] == bulk["run.3.predictions"]).mean() == pytest.approx(measured["last"]["top1"])
    assert bulk["run.3.curves.loss"].tolist() == [round(e["loss"], 6) for e in trace]
    teacher = load_history(layout.teacher_history("resnet8_w2"))["teacher"]
    assert record["teachers"]["resnet8_w2"]["last"]["top1"] == teacher[-1]["test_top1"]
    forwards = record["cost"]["images_seen"] if method == "simkd" else 0
    assert record["cost"]["teacher_forwards"] == forwards
    assert record["cost"]["parameters"] == sum(p.numel() for p in models.build("resnet8_w2", 10, 1).parameters())


def test_a_second_evaluation_writes_the_same_bytes(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    at = Layout("digits")
    paths = [at.metrics(PAIR, "ce", "3"), at.predictions(PAIR, "ce", "3")]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    run("evaluate", "--pair", PAIR, "--method", "ce", "--seed", "3")
    assert [path.read_bytes() for path in paths] == before


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["distill", "evaluate"])
def test_nothing_is_compiled_so_the_compiler_is_not_imported(trained: Path, stage: str) -> None:
    """It takes more time than the work on a small network."""
    at = Layout("digits")
    made = trained / {"distill": at.students(PAIR, "ce", "3"), "evaluate": at.metrics(PAIR, "ce", "3")}[stage]
    made.unlink()
    program = "import sys; from distillery.cli import app; app(sys.argv[1:], standalone_mode=False); "
    program += "sys.exit('torch._dynamo' in sys.modules)"
    command = [stage, "--pair", PAIR, "--method", "ce", "--seed", "3"]
    subprocess.run([sys.executable, "-c", program, *command], cwd=trained, check=True)
    assert made.exists()


def test_only_fractions_can_be_none() -> None:
    evaluation = ClassEvaluation(Classification())
    for outputs in (torch.tensor([1.0, torch.nan]), np.array([0.0, -np.inf], dtype=np.float32)):
        assert not evaluation.measurable(outputs)
        assert evaluation.measurable(outputs[:1])
    assert all(map(evaluation.measurable, (None, torch.arange(3), np.array(["a"]), (torch.nan,))))


def test_weights_of_another_network_and_broken_ones_are_refused(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    path = Layout("digits").students(PAIR, "ce", "3")
    kept, mine = path.read_bytes(), artifacts.load_tensors(path)
    try:
        broken = {k: v * torch.nan if v.is_floating_point() else v for k, v in mine.items()}
        artifacts.save_tensors(path, broken)
        with pytest.raises(DistilleryError, match="the student of seed 3 gives NaN or infinity for test samples: its"):
            run("evaluate", "--pair", PAIR, "--method", "ce", "--seed", "3")
        artifacts.save_tensors(path, {k: torch.zeros_like(v) for k, v in mine.items()})
        with pytest.raises(
            DistilleryError, match=r"seed 3: .* holds zeros alone, as all weights here do.*train the run"
        ):
            run("evaluate", "--pair", PAIR, "--method", "ce", "--seed", "3")
        other = models.build("resnet8_w4", 10, 1).state_dict()
        artifacts.save_tensors(path, {f"3.student.{k}": v for k, v in other.items()})
        with pytest.raises(DistilleryError, match=r"weights of seed 3 do not fit.*train the run again"):
            run("evaluate", "--pair", PAIR, "--method", "ce", "--seed", "3")
    finally:
        path.write_bytes(kept)
