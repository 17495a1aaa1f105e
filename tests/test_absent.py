"""What a study names and what is not here: `check` tells, before a job fails for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from loopback import nobody
from small_study import STUDY, write

from distillery.cli import app
from distillery.errors import DistilleryError
from distillery.pipeline import absent
from distillery.pipeline.check import check
from distillery.pipeline.layout import Layout

WEB = f"http://{nobody()}/a.pth"  # nobody is asked for it


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """We are in a folder with a checkpoint, an unpacked archive, and nothing else."""
    monkeypatch.chdir(tmp_path)
    Path("archive").mkdir()
    for file in ("here.pth", "archive/model.pth"):
        Path(file).touch()
    return tmp_path


def told(data: dict[str, Any] | None = None, **teacher: Any) -> str:
    fetched = {"architecture": "resnet8_w4", "source": "fetch", "urls": [WEB]}
    params = STUDY | {"data": data or STUDY["data"], "teachers": {"t": fetched | teacher}}
    study = check(params)
    try:
        absent.refuse_absent(study)
    except DistilleryError as error:
        return str(error)
    return "\n".join(f"note: {note}" for note in absent.notes(study))


@pytest.mark.parametrize("source", ["cifar100", "cifar10", "streamed_cifar100"])
def test_data_that_lie_nowhere(source: str, folder: Path) -> None:
    data = {"source": source, "mirror": "nowhere"}
    assert told(data) == "params.yaml: data.mirror: there is no nowhere here: correct the path, or put the data there"
    assert told(data | {"mirror": "archive"}) == told({"source": source}) == ""
    (made := Layout(STUDY["study"]).arrays).parent.mkdir(parents=True)
    made.touch()
    assert told(data) == ""  # they are not read again


def test_checkpoints_that_lie_nowhere() -> None:
    lost = "params.yaml: teachers.t.urls: there is no a.pth here: correct the path, or put the checkpoint there"
    assert told(urls=["a.pth"]) == lost
    assert told(urls=["a.pth", "~/b.pth"]).count("there is no ") == 2
    assert told(urls=["archive"]).endswith("archive is a folder: name the checkpoint in it as `member`")
    assert told(urls=["archive"], member="b.pth").endswith("no b.pth in archive: correct `member`, or the path")
    assert told(urls=(), weights="./a.pth") == lost.replace("urls", "weights")
    for fine in (["here.pth"], ["archive"], [WEB]):
        assert told(urls=fine, member="model.pth") == ""


def test_what_another_mirror_or_a_training_replaces_is_a_note() -> None:
    note = "note: teachers.t.urls: there is no a.pth here: correct the path, or put the checkpoint there; it is passed"
    for teacher in (
        {"urls": ["a.pth", WEB]},
        {"urls": ["here.pth", "a.pth"]},
        {"urls": ["a.pth"], "fallback": "train"},
    ):
        assert told(**teacher) == f"{note} over"


def test_check_tells(capsys: pytest.CaptureFixture[str]) -> None:
    """Also if the data are ones that can be rehearsed without being there."""
    recipe = STUDY["recipe"] | {"augmentation": {"pad": 4}}
    study = STUDY | {"data": {"source": "cifar10", "mirror": "nowhere"}, "recipe": recipe}
    write(study)
    with pytest.raises(DistilleryError, match=r"^params\.yaml: data\.mirror: there is no nowhere here: correct"):
        app(["check"], standalone_mode=False)
    del study["data"]["mirror"]
    write(study)
    app(["check"], standalone_mode=False)
    assert "params.yaml is valid" in capsys.readouterr().out
