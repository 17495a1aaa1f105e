"""Trained networks outside the pipeline: what load_student and load_teacher give, and what they refuse."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_study
import torch
from own_images import photos
from torch import Tensor

from distillery.api import DistilleryError, Network, Student, Teacher, load_student, load_teacher
from distillery.cli import main
from distillery.data.dataset import Dataset
from distillery.records.io import load_arrays, load_tensors, read_json, read_metadata, save_tensors

pytestmark = pytest.mark.slow
STUDY = small_study.STUDY | {
    "methods": {
        "kd": {"objective": "kd", "label": "KD | tempered"},
        "half": {"objective": "kd", "recipe": {"precision": "bfloat16"}},
        "double": {"objective": "ce", "recipe": {"precision": "float64"}},
        "reuse": {"objective": "simkd", "plus": {"kd": {}}},
    },
    "seeds": ["0-1"],
}
FOLDER = Path("artifacts/small/runs/t-s")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained study."""
    folder = tmp_path_factory.mktemp("students")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_study.write(STUDY)
        small_study.make()
    return folder


@pytest.fixture(autouse=True)
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(trained)
    yield trained
    shutil.rmtree(trained / "exports", ignore_errors=True)


def file(method: str = "kd") -> Path:
    return FOLDER / method / "0-1" / "students.safetensors"


def held_out() -> tuple[Tensor, Tensor]:
    """The test images as the data has them, and their labels."""
    data = Dataset.load(Path("artifacts/small/data/arrays.safetensors"))
    return data.test_images, data.test_labels


def table(method: str, seed: int) -> float:
    """Test accuracy by the study's own evaluation."""
    [run] = [r for r in read_json(Path(f"artifacts/small/metrics/t-s/{method}/0-1.json"))["runs"] if r["seed"] == seed]
    return float(run["last"]["top1"])


def accuracy(logits: Tensor, labels: Tensor) -> float:
    return int((classes(logits) == labels).sum()) / (len(labels) / 100)


def classes(logits: Tensor) -> Tensor:
    """The predicted classes; of equal logits, frequent in bfloat16, the one that the evaluation takes."""
    return logits.argmax(1)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("method", ["kd", "half", "double", "reuse"])
def test_a_loaded_student_is_the_one_of_the_table(method: str, seed: int) -> None:
    student = load_student(file(method), seed)
    images, labels = held_out()
    logits = student(images)
    assert isinstance(student, Student) and not student.training and logits.dtype == torch.float32
    assert accuracy(logits, labels) == table(method, seed)
    predicted = load_arrays(Path(f"artifacts/small/metrics/t-s/{method}/0-1.safetensors"))[f"run.{seed}.predictions"]
    assert np.array_equal(classes(logits).numpy(), predicted)
    assert student.seed == seed and student.architecture == "resnet8_w4"
    assert student.class_names == tuple("0123456789") and isinstance(student.network, Network)
    said = student.metadata
    assert (said.study, said.pair, said.method, said.seeds) == ("small", "t-s", method, (seed,))
    assert (said.image, said.scale, said.teachers) == ((1, 8, 8), 16, {} if method == "double" else {"t": "resnet8_w8"})
    assert said.objective["objective"] == STUDY["methods"][method]["objective"] and said.recipe["epochs"] == 5


def test_students_make_good_tests() -> None:
    assert 50 < table("kd", 0) < 100 and table("kd", 0) != table("kd", 1)


def test_bytes_and_fractions_of_full_brightness_are_one_image() -> None:
    student, (images, _) = load_student(file(), 0), held_out()
    assert torch.equal(student(images), student(images / 16))
    assert torch.equal(student(images / 16), student((images / 16).double()))


def test_a_teacher_is_the_one_of_the_table() -> None:
    teacher = load_teacher("artifacts/small/teachers/t")
    images, labels = held_out()
    measured = read_json(Path("artifacts/small/metrics/t-s/kd/0-1.json"))["teachers"]["t"]["last"]["top1"]
    assert isinstance(teacher, Teacher) and accuracy(teacher(images), labels) == measured
    assert (teacher.architecture, teacher.metadata.teacher) == ("resnet8_w8", "t")


def test_a_file_alone_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = held_out()
    expected = table("reuse", 1)
    shutil.copy(file("reuse"), tmp_path / "students.safetensors")
    monkeypatch.chdir(tmp_path)
    assert accuracy(load_student(".", 1)(images), labels) == expected


def test_the_header_adds_no_weights_and_names_no_code() -> None:
    tensors = load_tensors(file())
    assert set(tensors) == {f"{s}.student.{k}" for s in (0, 1) for k in load_student(file(), 0).network.state_dict()}
    record = read_json(FOLDER / "kd" / "0-1" / "runs.json")
    said = json.dumps(read_metadata(file()))
    assert record["spec"]["code"] not in said and record["spec_sha256"] not in said, "same weights, same bytes"


def refused(call: Any, *words: str) -> None:
    with pytest.raises(DistilleryError) as found:
        call()
    sentence = str(found.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence and len(sentence) < 400


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    refused(lambda: load_student(file()), "seeds 0, 1", "choose one")
    refused(lambda: load_student(file(), 7), "no student of seed 7", "0, 1")
    refused(lambda: load_student(tmp_path / "none.safetensors"), "is missing")
    refused(lambda: load_student(tmp_path), "students.safetensors", "name the file")
    refused(lambda: load_student("artifacts/small/teachers/t"), "use load_teacher")
    refused(lambda: load_teacher(file()), "use load_student")
    old = tmp_path / "old.safetensors"
    save_tensors(old, load_tensors(file()))
    refused(lambda: load_student(old, 0), "does not say which network", "older Distillery")
    save_tensors(old, {}, {"distillery": json.dumps({"format": 2})})
    refused(lambda: load_student(old, 0), "another version")
    metadata = load_student(file(), 0).metadata.model_copy(update={"architecture": "resnet8_w8", "kind": "students"})
    save_tensors(old, load_tensors(file()), metadata.metadata())
    refused(lambda: load_student(old, 0), "does not hold the weights that it describes")
    student, (images, _) = load_student(file(), 0), held_out()
    refused(lambda: student(images[0]), "batch x 1 x height x width", "1 x 8 x 8")
    refused(lambda: student(images.expand(-1, 3, -1, -1)), "batch x 1 x")
    refused(lambda: student(images.int()), "uint8, or float", "int32")
    refused(lambda: student(images.float()), "these reach 16: divide by 16")


def command(*arguments: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    with pytest.raises(SystemExit) as left:
        main(["export", "--pair", "t-s", *arguments])
    printed = capsys.readouterr()
    assert (left.value.code or 0) == code, printed.err
    return printed.err if code else printed.out


FILES = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}


@pytest.mark.parametrize("method", ["kd", "half", "double", "reuse"])
def test_exported_programs_are_the_student_of_the_table(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    said = command("--method", method, "--seed", "1", "--onnx", "--torch-export", capsys=capsys)
    folder, expected = Path(f"exports/small-t-s-{method}-1"), table(method, 1)
    assert said.startswith(f"{folder}: model.safetensors {expected:.2f} %, model.onnx ")
    assert {p.name for p in folder.iterdir()} == FILES | {"model.onnx", "model.pt2"}
    images, labels = held_out()
    assert accuracy(load_student(folder)(images), labels) == expected
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(folder / "model.pt2").module()
    [logits] = session.run(["logits"], {"images": (images / 16).numpy()})
    near = {"half": 0.5, "double": 0.12}.get(method, 0.0)  # programs compute in float32: 0.11 is one image
    assert abs(accuracy(torch.from_numpy(logits), labels) - expected) <= near
    assert abs(accuracy(program(images / 16), labels) - expected) <= near
    [alone] = session.run(None, {"images": (images[:1] / 16).numpy()})
    assert np.allclose(alone, logits[:1], atol=1e-4) and program(images[:3] / 16).shape == (3, 10)
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list("0123456789")


def test_the_folder_describes_itself(capsys: pytest.CaptureFixture[str]) -> None:
    import yaml
    from safetensors.torch import load_file

    command("--method", "kd", "--seed", "0", "--to", "exports/mine", capsys=capsys)
    folder = Path("exports/mine")
    assert {p.name for p in folder.iterdir()} == FILES
    assert set(load_file(folder / "model.safetensors")) == set(load_student(folder).network.state_dict())
    config = read_json(folder / "config.json")
    assert config["id2label"]["3"] == "3" and config["image_size"] == [8, 8] and config["num_labels"] == 10
    assert read_json(folder / "preprocessor_config.json")["rescale_factor"] == 1 / 16
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    [result] = front["model-index"][0]["results"]
    assert front["pipeline_tag"] == "image-classification" and front["datasets"] == ["digits"]
    assert result["metrics"][0]["value"] == round(table("kd", 0), 4)
    mean = (table("kd", 0) + table("kd", 1)) / 2
    assert f"| mean over seeds (n = 2) | {mean:.2f} % |" in card and "95 % interval" in card
    assert "trained by KD \\| tempered on" in card
    teacher = read_json(Path("artifacts/small/metrics/t-s/kd/0-1.json"))["teachers"]["t"]["last"]["top1"]
    assert f"| teacher t (resnet8_w8) | {teacher:.2f} % |" in card
    record = read_json(FOLDER / "kd" / "0-1" / "runs.json")
    assert record["spec_sha256"] in card and "distillery distill --pair t-s --method kd --seed 0-1" in card


def test_a_student_of_streamed_images(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 8, ("train", "val"))
    small_study.write(
        small_study.STUDY
        | {
            "data": {"source": "streamed_folder", "root": "photos", "size": 16},
            "recipe": {"epochs": 1, "batch_size": 8, "lr": 0.02, "milestones": []},
            "methods": {"ce": {"objective": "ce"}},
            "tables": {},
        }
    )
    small_study.make()
    capsys.readouterr()
    said = command("--method", "ce", "--seed", "0", capsys=capsys)
    folder = Path("exports/small-t-s-ce-0")
    expected = read_json(Path("artifacts/small/metrics/t-s/ce/0.json"))["runs"][0]["last"]["top1"]
    assert said.startswith(f"{folder}: model.safetensors {expected:.2f} %")
    cut = read_json(folder / "preprocessor_config.json")
    assert cut["size"] == {"shortest_edge": 18} and cut["crop_size"] == {"height": 16, "width": 16}
    assert cut["do_center_crop"] and cut["resample"] == 2


def test_the_usage_block_runs_when_pasted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command("--method", "kd", "--seed", "0", capsys=capsys)
    monkeypatch.chdir("exports/small-t-s-kd-0")
    block = Path("README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(block.strip().splitlines()) == 6
    exec(compile(block, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip() in "0123456789"


def test_an_export_of_what_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in {
        ("--method", "kdd", "--seed", "0"): "--method kdd: study 'small' has none: did you mean 'kd'?",
        ("--method", "kd", "--seed", "10"): "--seed 10: study 'small' has none: ",
    }.items():
        assert words in command(*arguments, capsys=capsys, code=1)
    with pytest.raises(SystemExit):
        main(["export", "--pair", "t_s", "--method", "kd", "--seed", "0"])
    assert "did you mean 't-s'?" in capsys.readouterr().err
    assert not Path("exports").exists()


def test_a_folder_that_is_there_stays(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kd = ("--method", "kd", "--seed", "0")
    command(*kd, "--torch-export", capsys=capsys)
    folder = Path("exports/small-t-s-kd-0")
    for mark in ("notes.txt", ".git/config"):
        (folder / mark).parent.mkdir(exist_ok=True)
        (folder / mark).write_text("mine")
    (folder / "README.md").write_text("old")

    assert "--force" in command(*kd, capsys=capsys, code=1)
    said = command(*kd, "--force", capsys=capsys, code=1)
    assert "model.pt2 is of the student that was exported there before: give --torch-export" in said
    assert (folder / "README.md").read_text() == "old"
    (folder / "model.pt2").rename(folder / "kept.pt2")
    command(*kd, "--force", capsys=capsys)
    assert "mine" not in (folder / "README.md").read_text() != "old"
    assert (folder / "notes.txt").read_text() == (folder / ".git/config").read_text() == "mine"
    assert {p.name for p in folder.iterdir()} == FILES | {"kept.pt2", "notes.txt", ".git"}
    assert [p.name for p in Path("exports").iterdir()] == [folder.name]

    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert "README.md is a folder, and the export has" in command(*kd, "--force", capsys=capsys, code=1)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("strange", ["thesis.tex", "config.json"])
def test_a_folder_that_is_no_export_stays(strange: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / strange).write_text("{}")
    said = command("--method", "kd", "--seed", "0", "--force", "--to", str(tmp_path), capsys=capsys, code=1)
    assert "no exported student" in said and [p.name for p in tmp_path.iterdir()] == [strange]


def test_a_failed_export_leaves_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from distillery.students import export

    monkeypatch.setattr(export, "_accuracy", lambda *_: 12.0)
    assert "not the same student" in command("--method", "kd", "--seed", "0", capsys=capsys, code=1)
    assert list(Path("exports").iterdir()) == []


@pytest.mark.parametrize(("most", "program"), [(8_000, False), (40_000, True)], ids=["weights", "program"])
def test_where_there_is_no_room_the_folder_that_was_asked_for_is_named(
    most: int, program: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))  # bytes that a file may have
    try:
        more = ["--torch-export"] if program else []
        said = command("--method", "kd", "--seed", "0", "--to", "exports/x", *more, capsys=capsys, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    named = "exports/x" if program else "exports/x/model.safetensors"
    assert (
        said == f"distillery: cannot write {named}: the file grew over the allowed size; raise the limit and run the "
        "command again\n"
    )
    assert list(Path("exports").iterdir()) == []


def test_a_folder_that_nobody_can_make(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("a file system in which nothing can be made")
    said = command("--method", "kd", "--seed", "0", "--to", "/proc/x", capsys=capsys, code=1)
    assert said == "distillery: cannot make /proc/x there: name another folder by --to\n"


def test_onnx_without_its_packages(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = command("--method", "kd", "--seed", "0", "--onnx", capsys=capsys, code=1)
    assert "onnxscript" in said and "pip install 'distillery[onnx]'" in said and not Path("exports").exists()


def test_a_stale_or_missing_student_is_refused(
    capsys: pytest.CaptureFixture[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(copy)
    kd, weights = ("--method", "kd", "--seed", "0"), copy / file()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "is not the file that its record describes" in command(*kd, capsys=capsys, code=1)
    methods = STUDY["methods"] | {"kd": {"objective": "kd", "temperature": 2.0}}
    small_study.write(STUDY | {"methods": methods})
    said = command(*kd, capsys=capsys, code=1)
    assert "out of date" in said and "methods.kd.temperature" in said and "run the engine" in said
    small_study.write(STUDY)
    weights.unlink()
    said = command(*kd, capsys=capsys, code=1)
    assert "out of date" in said or "not there yet" in said
    assert not Path("exports").exists()
