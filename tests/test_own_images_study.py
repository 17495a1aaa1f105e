"""A study of own photos: which change makes the data due, what is said when they are gone, and the way to a table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_images import drawn, photos, save

from distillery.cli import main
from distillery.pipeline.current import Judge
from distillery.pipeline.planner import current
from distillery.records import named
from distillery.records.io import DistilleryError, StaleInput

STUDY: dict[str, Any] = {
    "study": "photos",
    "data": {"source": "folder", "root": "photos", "size": 16},
    "recipe": {"epochs": 8, "batch_size": 8, "lr": 0.05, "milestones": [6], "augmentation": {"pad": 1}},
    "teachers": {"big": {"architecture": "resnet8_w4", "recipe": {"epochs": 12, "milestones": [9]}}},
    "pairs": {"big-small": {"teacher": "big", "student": "resnet8_w2"}},
    "methods": {"ce": {"objective": "ce"}, "kd": {"objective": "kd"}},
    "seeds": [0],
    "tables": {"baseline": "ce"},
}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with params.yaml and 60 photos."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 30)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(STUDY))
    return tmp_path


def run(*words: str) -> None:
    """A `distillery` command."""
    try:
        main([*words])
    except SystemExit as left:
        assert not left.code, words


def verdict() -> str:
    """What the judge says of the data: "current", or why not."""
    _, plan = current()
    found = Judge(plan).verdict(plan.job("data"))
    return found.why or found.state


def swap_two(root: Path) -> None:
    """Exchange the content of two photos of one size, keeping their times: only ctime tells."""
    a, b = root / "cool" / "000.jpg", root / "cool" / "001.jpg"
    size = max(a.stat().st_size, b.stat().st_size)
    for path in (a, b):
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, ns=(10**18, 10**18))
    run("data")
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other), b.write_bytes(one)
    for path in (a, b):
        os.utime(path, ns=(10**18, 10**18))


CHANGES: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "a photo removed": (lambda root: (root / "cool" / "003.jpg").unlink(), True),
    "a photo added": (lambda root: save(drawn(7), root / "cool" / "new.png"), True),
    "a photo renamed": (lambda root: (root / "cool" / "003.jpg").rename(root / "cool" / "x.jpg"), True),
    "a photo moved to another class": (lambda root: (root / "cool" / "003.jpg").rename(root / "warm" / "x.jpg"), True),
    "a byte changed": (lambda root: save(drawn(8), root / "cool" / "003.jpg"), True),
    "the same size and times, another content": (swap_two, True),
    "a photo touched": (lambda root: os.utime(root / "cool" / "003.jpg"), False),
    "a hidden file": (lambda root: (root / "cool" / ".DS_Store").write_text("x"), False),
    "an empty folder removed": (lambda root: None, False),
    "written anew with the same bytes": (
        lambda root: (root / "cool" / "003.jpg").write_bytes((root / "cool" / "003.jpg").read_bytes()),
        False,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_the_data_are_due_when_a_photo_changed_and_only_then(change: str, study: Path) -> None:
    run("data")
    assert verdict() == "current"
    make, due = CHANGES[change]
    make(study / "photos")
    assert verdict() == ("data.files changed" if due else "current")


def test_photos_that_moved_are_the_same(study: Path) -> None:
    run("data")
    (study / "photos").rename(study / "elsewhere")
    (study / "params.yaml").write_text(
        yaml.safe_dump(STUDY | {"data": STUDY["data"] | {"root": str(study / "elsewhere")}})
    )
    assert verdict() == "current"


def test_unchanged_files_are_not_read_again(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    before = named.sha256_file
    monkeypatch.setattr(named, "sha256_file", lambda path: read.append(path.name) or before(path))
    note = study / "note.json"
    first = named.content([study / "photos"], note)
    assert len(read) == 60
    assert named.content([study / "photos"], note) == first and len(read) == 60
    os.utime(study / "photos" / "cool" / "000.jpg")
    assert named.content([study / "photos"], note) == first and len(read) == 120


def test_links_are_followed_but_not_in_circles(study: Path) -> None:
    root = study / "photos"
    (root / "linked").symlink_to(photos(study / "other", 2) / "warm")
    (root / "cool" / "loop").symlink_to(root)
    (root / "cool" / "nowhere.jpg").symlink_to("nothing")
    names = [file[1] for file in named.listing([root])]
    assert "linked/000.jpg" in names and "cool/nowhere.jpg" in names and len(names) == 63
    before = named.content([root], study / "note.json")
    save(drawn(5), study / "other" / "warm" / "000.jpg")
    assert named.content([root], study / "note.json") != before


def test_photos_that_are_gone(study: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("data")
    shutil.rmtree(study / "photos")
    assert verdict() == "photos is missing"
    capfd.readouterr()
    run("status")
    assert "photos is missing" in capfd.readouterr().out
    for words in (["check"], ["plan"], ["data"]):
        with pytest.raises(SystemExit):
            main(words)
        said = capfd.readouterr().err
        assert said == ("distillery: params.yaml: data: the folder photos does not exist: correct `data.root`\n")
    photos(study / "photos", 30)
    assert verdict() == "current"


def test_photos_that_change_while_they_are_read(study: Path) -> None:
    from distillery.pipeline.work import Work
    from distillery.stages import data

    _, plan = current(write=True)
    work = Work(plan.job("data"), plan.settings)
    save(drawn(3), study / "photos" / "cool" / "003.jpg")
    with pytest.raises(StaleInput, match=r"^data: the files in photos changed since: start the engine again$"):
        data.run(work)
    assert not any(path.exists() for path in plan.job("data").outputs.values())


def test_the_rehearsal_decodes_nothing(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
    run("check")
    bad = STUDY | {"recipe": STUDY["recipe"] | {"batch_size": 47}, "data": STUDY["data"] | {"size": [5, 4]}}
    bad["pairs"] = {"big-small": {"teacher": "big", "student": "vgg8"}}
    (study / "params.yaml").write_text(yaml.safe_dump(bad))
    with pytest.raises(DistilleryError, match="vgg8 does not take images of 5x4 with 3 channels"):
        current(write=True)


@pytest.mark.slow
def test_from_photos_to_a_table(study: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("check")
    run("data")
    run("teacher", "--teacher", "big")
    run("cache", "--teacher", "big")
    run("pair", "--pair", "big-small")
    for method in STUDY["methods"]:
        run("distill", "--pair", "big-small", "--method", method, "--seed", "0")
        run("evaluate", "--pair", "big-small", "--method", method, "--seed", "0")
    run("tables")
    capfd.readouterr()
    run("show")
    shown = capfd.readouterr().out
    table = (study / "results" / "photos" / "table.md").read_text()
    accuracies = [float(line.split("|")[2].split("(")[0]) for line in table.splitlines() if "(1)" in line]
    assert len(accuracies) == 3 and min(accuracies) > 75, table
    assert "kd" in shown and "run the engine again" not in shown
    shutil.rmtree(study / "photos")
    run("show")
    assert "(data: photos is missing)" in " ".join(capfd.readouterr().out.split())
    run("status")
    assert "photos is missing" in capfd.readouterr().out
