"""A student of one study is the teacher of the next: what is taken, what makes it due, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import small_study
import torch

from distillery.api import DistilleryError, load_student, load_teacher
from distillery.pipeline.current import Judge
from distillery.pipeline.planner import current
from distillery.records.io import read_json, save_tensors

pytestmark = pytest.mark.slow
RECIPE = small_study.STUDY["recipe"] | {"epochs": 2, "milestones": []}
FIRST = small_study.STUDY | {
    "study": "first",
    "recipe": RECIPE,
    "methods": {"kd": {"objective": "kd"}, "reuse": {"objective": "simkd"}},
    "seeds": ["0-1"],
    "tables": {"baseline": None},
}
TEACHER = {
    "architecture": "resnet8_w4",
    "source": "student",
    "study": "first",
    "pair": "t-s",
    "method": "kd",
    "seed": 1,
}
SECOND = FIRST | {
    "study": "second",
    "teachers": {"a": TEACHER},
    "pairs": {"a-b": {"teacher": "a", "student": "resnet8_w2"}},
    "methods": {"kd": {"objective": "kd"}},
    "seeds": [0],
}
STUDENTS = Path("artifacts/first/runs/t-s/kd/0-1/students.safetensors")
JOBS = ["teacher a", "cache a", "pair a-b", "distill a-b kd 0", "evaluate a-b kd 0"]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the first study is done."""
    folder = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_study.write(FIRST, "first.yaml")
        small_study.make("first.yaml")
    return folder


@pytest.fixture(autouse=True)
def here(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has a copy of it."""
    shutil.copytree(first, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def second(**teacher: Any) -> None:
    """Put the second study in place, its teacher changed as said."""
    small_study.write(SECOND | {"teachers": {"a": TEACHER | teacher}}, "second.yaml")


def test_from_study_to_study() -> None:
    second()
    assert small_study.make("second.yaml") == ["data", *JOBS]
    student, teacher = load_student(STUDENTS, 1), load_teacher("artifacts/second/teachers/a")
    theirs = student.network.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in teacher.network.state_dict().items())
    [_, run] = read_json(Path("artifacts/first/metrics/t-s/kd/0-1.json"))["runs"]
    metrics = read_json(Path("artifacts/second/metrics/a-b/kd/0.json"))
    assert metrics["teachers"]["a"]["last"]["top1"] == run["last"]["top1"]
    record = read_json(Path("artifacts/second/teachers/a/teacher.json"))
    assert (record["fetched"]["url"], record["fetched"]["part"]) == (str(STUDENTS), "1.student")
    assert record["fetched"]["test_top1"] == run["last"]["top1"]
    assert small_study.due("second.yaml") == []


def test_another_student_makes_the_teacher_due() -> None:
    second()
    small_study.make("second.yaml")
    assert small_study.make("first.yaml") == []
    shutil.rmtree("artifacts/first/runs/t-s/kd")  # made again by the same study, it is the same
    assert small_study.make("first.yaml") == ["distill t-s kd 0-1"]
    assert small_study.due("second.yaml") == []
    small_study.write(FIRST | {"methods": {"kd": {"objective": "kd", "temperature": 2.0}}}, "first.yaml")
    small_study.make("first.yaml")
    assert small_study.due("second.yaml") == JOBS
    _, plan = current(Path("second.yaml"))
    assert Judge(plan).verdict(plan.job("teacher", teacher="a")).why == "teachers.a.file changed"
    assert small_study.make("second.yaml") == JOBS


def test_a_block_that_its_study_had_before_teaches_nobody() -> None:
    """Seed 1 is in the trained block 0-1 and in the block that the study has now, which has another recipe."""
    now = FIRST | {"seeds": ["0-2"], "recipe": RECIPE | {"lr": 0.01}, "methods": {"kd": {"objective": "kd"}}}
    small_study.write(now, "first.yaml")
    current(Path("first.yaml"), write=True)
    second()
    refused("seed 1, of study 'first' is not there (artifacts/first/runs/t-s/kd/0-2/", "run study 'first' first")
    small_study.make("first.yaml")
    small_study.make("second.yaml")
    assert STUDENTS.exists(), "the leftover"
    theirs = load_student(STUDENTS.parents[1] / "0-2" / STUDENTS.name, 1).network.state_dict()
    mine = load_teacher("artifacts/second/teachers/a").network.state_dict()
    assert all(torch.equal(value, mine[key]) for key, value in theirs.items())


@pytest.mark.parametrize("seeds", [[0], None])
def test_where_its_study_names_no_block_what_is_there_teaches(seeds: list[int] | None) -> None:
    if seeds is None:
        shutil.rmtree("artifacts/first/specs")  # not planned here
    else:
        small_study.write(FIRST | {"seeds": seeds}, "first.yaml")
        current(Path("first.yaml"), write=True)
    shutil.copytree(STUDENTS.parent, STUDENTS.parents[1] / "1-2")
    second()
    assert current(Path("second.yaml"))[1].settings["students"] == {"a": str(STUDENTS)}


def refused(*words: str) -> None:
    with pytest.raises(DistilleryError) as found:
        small_study.make("second.yaml")
    sentence = str(found.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence and not Path("artifacts/second/teachers/a/model.safetensors").exists()


def test_what_cannot_teach_is_one_sentence() -> None:
    second(study="zeroth")
    refused("teachers.a: the student of t-s by kd, seed 1, of study 'zeroth' is not there", "run study 'zeroth' first")
    second(method="dkd")
    refused("t-s by dkd, seed 1, of study 'first' is not there", "run study 'first' first")
    second(seed=7)
    refused("seed 7", "is not there", "run study 'first' first")
    second(architecture="resnet8_w8")
    refused("is a resnet8_w4", "teachers.a.architecture")
    second(method="reuse")
    refused("predicts through modules of simkd", "another method")
    small_study.write(SECOND | {"data": {"source": "digits", "test_fraction": 0.3}}, "second.yaml")
    refused("other classes or with another normalisation")


def test_an_edited_student_is_refused() -> None:
    second()
    content = bytearray(STUDENTS.read_bytes())
    content[-1] ^= 1
    STUDENTS.write_bytes(content)
    refused("is not the one that its record describes", "run study 'first' again")


def test_a_student_without_a_header_is_refused() -> None:
    second()
    save_tensors(STUDENTS, {})
    refused("is not the one that its record describes")


@pytest.mark.parametrize("member", [None, "1.student"])
def test_a_students_file_is_a_checkpoint_like_others(member: str | None) -> None:
    """The form that needs no study beside the file; of several seeds `member` says which."""
    teacher = {"architecture": "resnet8_w4", "source": "fetch", "urls": [str(STUDENTS)]}
    small_study.write(SECOND | {"teachers": {"a": teacher | ({"member": member} if member else {})}}, "second.yaml")
    if member is None:
        refused("holds 0.student, 1.student", "`member`")
        return
    assert small_study.make("second.yaml") == ["data", *JOBS]
    [_, run] = read_json(Path("artifacts/first/metrics/t-s/kd/0-1.json"))["runs"]
    record = read_json(Path("artifacts/second/teachers/a/teacher.json"))
    assert record["fetched"]["test_top1"] == run["last"]["top1"]
