"""Generation: a whole study by the stages, and what `distillery check` says about one."""

from __future__ import annotations

import copy
import csv
import re
from pathlib import Path
from typing import Any

import pytest
import small_generation
import small_study
import yaml
from conftest import ROOT

from distillery.data.dataset import Dataset
from distillery.errors import DistilleryError
from distillery.objectives import OBJECTIVES
from distillery.pipeline.check import check, load
from distillery.pipeline.layout import Layout
from distillery.records.header import Header
from distillery.records.io import load_arrays, read_json, save_tensors, sha256_file
from distillery.task import task_of
from distillery.tasks.generation import Generation


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The smallest study, with the classifier that judges it."""
    folder = tmp_path_factory.mktemp("judge")
    study = copy.deepcopy(small_generation.STUDY)
    study["task"]["classifier"] = small_generation.judge(folder, small_generation.digits(folder))
    return study


@pytest.fixture
def study(judged: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return copy.deepcopy(judged)


@pytest.mark.slow
def test_a_study_of_generation_ends_in_tables(study: dict[str, Any]) -> None:
    study["methods"]["kd_dlgan"] = {"objective": "kd_dlgan", "d_steps": 1}
    study["recipe"] |= {"epochs": 2, "test_every": 1}
    study["task"]["fraction"] = 0.2
    small_study.write(study)
    small_study.make(tables=True)
    table, page = Path("results/small/table.md").read_text(), Path("results/small/report.html").read_text()
    assert "Frechet distance in the features of resnet8\\_w4 (lower is better)" in table and "no teacher" in table
    assert 'id="figure-samples"' in page and 'id="figure-curves"' in page
    with Path("results/small/runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 6
    for run in runs:
        last, best = float(run["fd_resnet8_w4_last"]), float(run["fd_resnet8_w4_test_best"])
        assert 0 < best <= last and 0 <= float(run["conditional"]) <= 100 and float(run["spread"]) >= 0
    arrays = load_arrays(Layout("small").predictions("t-s", "gan", "0-1"))
    assert arrays["run.0.samples"].shape == (60, 8, 8, 1) and arrays["teacher.t.samples"].size == 0
    # What was measured after the last epoch is what the test in it found, to the bit.
    assert arrays["run.0.curves.test_fd_resnet8_w4"][-1] == pytest.approx(
        float(runs[0]["fd_resnet8_w4_last"]), rel=1e-6
    )
    teacher = Header.read(Path("artifacts/small/teachers/t/model.safetensors"))
    assert teacher.train_images == 179 and teacher.data["selection"]["fraction"] == 0.2
    record = read_json(Layout("small").run_record("t-s", "vkd", "0-1"))
    assert record["teacher_outputs"] == "live teacher: it sees generated images"
    assert small_study.due() == []


def problems(study: dict[str, Any]) -> list[str]:
    found = check(study)
    return list(task_of(found.task).part("rehearsal")(found, True))


def test_a_small_study_is_valid(study: dict[str, Any]) -> None:
    assert problems(study) == []


TRAINED_ELSEWHERE = {"t": {"architecture": "resnet8_w4", "source": "fetch", "weights": "./elsewhere.pth"}}


@pytest.mark.parametrize(
    ("block", "change", "says"),
    [
        ("methods", {"kd": {"objective": "kd"}}, "kd is no objective of generators: take gan, kd_dlgan or vkd_gan"),
        ("methods", {"v": {"objective": "vkd_gan", "normalize": "none"}}, "unknown key 'normalize': did you mean"),
        ("methods", {"v": {"objective": "vkd_gan", "feat_weight": 0}}, "the distillation term of vkd_gan has weight 0"),
        ("methods", {"v": {"objective": "gan", "plus": {"gan": {}}}}, "plug-ins and partners act on classifiers"),
        (
            "methods",
            {"v": {"objective": "vkd_gan", "whitening": "cholesky", "eps": 0.0}},
            "has no Cholesky factor with eps 0: raise `eps`",
        ),
        # What a key says has an effect, or is refused.
        ("task", {"fraction": 1.0, "fraction_seed": 3}, "task.fraction_seed: has no effect with fraction: 1.0"),
        ("task", {"trained_on": "cifar10"}, "task.trained_on: has no effect: no teacher"),
        ("methods", {"v": {"objective": "gan", "lecam_start": 5}}, "lecam_start: has no effect with lecam: 0.0"),
        ("methods", {"v": {"objective": "gan", "lecam": 0.3}}, "lecam: has no effect: 15 of 60 steps"),
        ("methods", {"v": {"objective": "gan", "ema_decay": 0.5}}, "ema_decay: has no effect: 15 of 60 steps"),
        ("methods", {"v": {"objective": "gan", "d_steps": 61}}, "d_steps: 61 of 60 steps leave none for the generator"),
        ("methods", {"v": {"objective": "gan", "ce_weight": 0}}, "every term of gan has weight 0"),
        ("methods", {"v": {"objective": "vkd_gan", "ce_weight": 0}}, "ce_weight: 0 leaves out the hinge losses"),
        (
            "methods",
            {"v": {"objective": "vkd_gan", "normalise": "none", "whitening": "cholesky"}},
            'whitening: has no effect with normalise: "none"',
        ),
        ("methods", {"v": {"objective": "vkd_gan", "eps": 0.1}}, 'eps: has no effect with whitening: "zca"'),
        (
            "methods",
            {"v": {"objective": "vkd_gan", "feat_weight": 0, "aggregated": 1, "beta": 2}},
            "beta: has no effect with feat_weight: 0.0",
        ),
        ("pairs", {"t-s": {"teacher": "t", "student": "resnet8_w2"}}, "pairs.t-s: resnet8_w2 is no discriminator"),
        ("teachers", {"t": {"architecture": "biggan_ch2"}}, "teachers.t: biggan_ch2 is a discriminator"),
        ("teachers", {"t": {"architecture": "clip_vit_b32"}}, "CLIP is not trained here: say `source: fetch`"),
        ("teachers", TRAINED_ELSEWHERE, "it may have seen what is withheld: say in `task.trained_on`"),
        ("recipe", {"batch_size": 32}, "the last batch of 449 images holds one, which has no statistics"),
        ("recipe", {"batch_size": 1}, "the last batch of 449 images holds one, which has no statistics"),
        ("recipe", {"label_smoothing": 0.1}, "recipe.label_smoothing: no class is predicted: leave it out"),
        ("recipe", {"ema": {"decay": 0.9}}, "recipe.ema: the average is the generator's"),
        ("recipe", {"precision": "bfloat16"}, "generators train in float32, tf32 or float64"),
        ("task", {"classifier": None}, "nothing says how images are compared"),
        ("task", {"samples": 101}, "task.samples: 1 of 101 images would be normalised apart from the others"),
        ("task", {"samples": 120}, "which are made 50 at a time: take 150"),
        ("task", {"inception": {"weights": "no.pth", "sha256": "0" * 64}}, "there is no file no.pth"),
        (
            "data",
            {"source": "streamed_folder", "root": ".", "test_fraction": None},
            "is streamed, and generators train",
        ),
    ],
)
def test_what_would_fail_is_said(study: dict[str, Any], block: str, change: dict[str, Any], says: str) -> None:
    study["methods"] = {"gan": study["methods"]["gan"]}  # one is enough, and quick
    study[block] = {k: v for k, v in (study[block] | change).items() if v is not None}
    try:
        found = problems(study)
    except DistilleryError as error:
        found = str(error).splitlines()
    assert found and re.search(re.escape(says), "\n".join(found)), found


def test_what_begins_in_the_last_step_is_valid(study: dict[str, Any]) -> None:
    """60 steps of the discriminator, 4 for each of the generator: the last of LeCam's term comes after 14 of these."""
    study["methods"] = {"gan": {"objective": "gan", "lecam": 0.3, "lecam_start": 13, "ema_decay": 0.9, "ema_start": 15}}
    study["tables"] = {}
    assert problems(study) == []
    study["methods"]["gan"]["lecam_start"] = 14
    assert "lecam: has no effect" in problems(study)[0]


def test_a_file_that_is_not_the_named_classifier_is_refused(study: dict[str, Any], tmp_path: Path) -> None:
    study["methods"] = {"gan": study["methods"]["gan"]}
    named = study["task"]["classifier"]
    study["task"]["classifier"] = named | {"architecture": "resnet20"}
    (said,) = problems(study)
    assert "is the teacher resnet8_w4, and not a teacher that is a resnet20" in said
    path, header = tmp_path / "other.safetensors", Header.read(Path(named["weights"]))
    for metadata, why in (
        ({"format": "pt"}, "does not say which network and which classes it holds"),
        (
            header.model_copy(update={"image": (3, 8, 8)}).metadata(),
            "sees images of 3 channel(s) and 8 x 8 pixels, and those of the data have 1 channel(s) and 8 x 8 pixels",
        ),
        (header.model_copy(update={"image": (1, 32, 32)}).metadata(), "sees images of 1 channel(s) and 32 x 32 pixels"),
    ):
        save_tensors(path, load_arrays(Path(named["weights"])), metadata)
        study["task"]["classifier"] = named | {"weights": str(path), "sha256": sha256_file(path)}
        (said,) = problems(study)
        assert why in said


def test_a_teacher_that_has_seen_what_is_withheld_is_refused(study: dict[str, Any], tmp_path: Path) -> None:
    """By what its file says; by what the study declares, where the file says nothing."""
    study["methods"] = {"gan": study["methods"]["gan"]}
    data: Dataset = small_generation.digits(tmp_path)
    named = small_generation.judge(tmp_path, data)  # of all digits, and its header says so
    study["teachers"] = {"t": {"architecture": "resnet8_w4", "source": "fetch", "weights": named["weights"]}}
    seen = "it was trained on other images of digits than this study trains on, and may have seen what is withheld"
    assert any(seen in problem for problem in problems(study))
    study["task"]["trained_on"] = "cifar10"
    assert any("task.trained_on: the file of teachers.t says digits, not cifar10" in p for p in problems(study))

    path = tmp_path / "other.safetensors"
    header = Header.read(Path(named["weights"]))
    save_tensors(path, load_arrays(Path(named["weights"])), {"format": "pt"})  # says nothing of itself
    study["teachers"]["t"]["weights"] = str(path)
    study["task"]["trained_on"] = "digits"
    assert any(seen in problem for problem in problems(study))
    study["task"]["trained_on"] = "cifar10"
    assert problems(study) == []

    same = header.model_copy(
        update={"data": {"source": "digits", "selection": {"test_fraction": 0.5, "fraction": 0.5}}}
    )
    same.data["selection"]["fraction_seed"] = 0
    save_tensors(path, load_arrays(Path(named["weights"])), same.metadata())
    del study["task"]["trained_on"]
    assert problems(study) == []
    study["task"]["fraction_seed"] = 1
    assert any(seen in problem for problem in problems(study))


@pytest.mark.slow
def test_a_teacher_of_other_classes_is_taken(study: dict[str, Any], tmp_path: Path) -> None:
    """A classifier of a data set of its own, with fewer classes; what it saw is declared."""
    import torch

    from distillery import models

    torch.manual_seed(2)
    torch.save(models.build("resnet8_w4", 7, 1).state_dict(), tmp_path / "seven.pth")
    teacher = {"architecture": "resnet8_w4", "source": "fetch", "weights": "./seven.pth"}
    study["teachers"] = {"t": teacher | {"preprocessing": {"mean": [0.3], "std": [0.4]}}}
    study["task"] |= {"trained_on": "cifar10", "teacher_classes": 7, "fraction": 0.2}
    study["methods"] = {"vkd": study["methods"]["vkd"]}
    study["tables"] = {}
    study["recipe"] |= {"epochs": 1, "test_every": 1}
    study["seeds"] = [0]
    small_study.write(study)
    small_study.make()
    assert Header.read(Path("artifacts/small/teachers/t/model.safetensors")).class_names == ()
    record = read_json(Layout("small").metrics("t-s", "vkd", "0"))
    assert record["runs"][0]["last"]["fd_resnet8_w4"] > 0
    assert record["cost"]["teacher_forwards"] == 2 * record["cost"]["images_seen"] > 0  # generated and real images
    assert record["cost"]["images_each"] == 2


def test_the_page_is_true() -> None:
    """docs/generation.md: its study is valid, its names are those of the code."""
    page = (ROOT / "docs/generation.md").read_text()
    (block,) = re.findall(r"<<'EOF'\n(.*?)EOF\n", page, re.DOTALL)
    found = check(yaml.safe_load(block))
    assert not task_of(found.task).part("rehearsal")(found, False)
    named = set(re.findall(r"^\| `(\w+)` \|", page.partition("| `objective:` |")[2].partition("## Teachers")[0], re.M))
    assert named == {row.name for row in OBJECTIVES._rows.values() if "tasks.generation" in row.module}
    columns = {column.name for column in Generation.columns} | {"fid", "is"}
    assert all(f"`{name}`" in page for name in columns)


STUDIES = {"vkd_biggan": (5, 15), "vkd_biggan_small": (3, 9)}


@pytest.mark.parametrize("name", STUDIES)
def test_the_studies_say_what_was_published(name: str) -> None:
    study = load(ROOT / f"workflow/studies/{name}.yaml")
    assert (len(study.methods), len(study.runs())) == STUDIES[name]
    text = (ROOT / f"workflow/studies/{name}.yaml").read_text()
    assert text.startswith(f"# {name}: ") and yaml.safe_load(text)["data"] == {"source": "cifar100"}
    task = task_of(study.task)
    assert task.config.fraction == 0.2 and not task.main.higher_is_better
    steps = study.recipe.epochs * 10_000 // study.recipe.batch_size
    assert steps == (1_000_000 if name == "vkd_biggan" else 1_600)
