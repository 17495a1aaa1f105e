"""The stage that fetches a released teacher and judges it by its accuracy, on digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import small_study
import torch
import yaml
from checkpoints import MEMBER, NAME, archived, everything, released, same, sha256
from loopback import Server, nobody
from torch import Tensor

from distillery import data, models
from distillery.pipeline.check import check, load
from distillery.pipeline.layout import Layout
from distillery.pipeline.planner import resolve
from distillery.pipeline.work import Work
from distillery.records.io import DistilleryError, load_tensors, read_json, sha256_file
from distillery.stages import teacher as stage
from distillery.teachers import download
from distillery.teachers.fetch import NoMirror
from distillery.teachers.released import RELEASED
from distillery.training.history import load_history

LAYOUT = Layout("digits")

pytestmark = pytest.mark.usefixtures("downloads")


@dataclass(frozen=True)
class Trained:
    """A teacher trained by the stage itself in a working folder: its weights and what it reached."""

    folder: Path
    weights: dict[str, Tensor]
    accuracy: float


def study_of(**teacher: Any) -> dict[str, Any]:
    params = small_study.digits()
    params["recipe"] |= {"epochs": 3, "milestones": [2], "batch_size": 16}
    params["teachers"] = {NAME: {"architecture": NAME, "seed": 3, **teacher}}
    params["pairs"] = {f"{NAME}-{NAME}": {"teacher": NAME, "student": NAME}}
    return params


def run(folder: Path, **teacher: Any) -> dict[str, Any]:
    """Run the stage `teacher` in `folder` and return its record, with its history."""
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(study_of(**teacher)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        plan = resolve(load("params.yaml"))
        stage.run(Work(plan.job("teacher", teacher=NAME), plan.settings))
        return read_json(LAYOUT.teacher_record(NAME)) | {"history": load_history(LAYOUT.teacher_history(NAME))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    data.prepare("digits", {"test_fraction": 0.5}, folder / LAYOUT.arrays)
    record = run(folder, source="train")
    assert record["history"]["teacher"][-1]["test_top1"] > 50
    return Trained(folder, load_tensors(folder / LAYOUT.teacher(NAME)), record["history"]["teacher"][-1]["test_top1"])


@pytest.fixture
def place(trained: Trained, tmp_path: Path) -> Path:
    """A working folder with the data and without a teacher."""
    (tmp_path / "artifacts" / "digits").mkdir(parents=True)
    (tmp_path / LAYOUT.arrays.parent).symlink_to(trained.folder / LAYOUT.arrays.parent)
    return tmp_path


@pytest.mark.slow
def test_a_released_archive_becomes_a_verified_teacher(
    trained: Trained, place: Path, server: Server, downloads: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = released(trained.weights)
    others = {f"cifar_teachers/{n}_vanilla/ckpt_epoch_240.pth": b"another teacher" for n in RELEASED}
    archive = archived({**others, MEMBER: content})
    url = server.offer("cifar_teachers.tar", archive)
    keys = {"source": "fetch", "urls": [url], "member": MEMBER, "accuracy": round(trained.accuracy, 2)}
    record = run(place, **keys, sha256=sha256(archive))
    weights = load_tensors(place / LAYOUT.teacher(NAME))
    assert same(weights, trained.weights)
    assert all(weights[k].dtype == t.dtype for k, t in trained.weights.items())
    fetched = record["fetched"]
    assert (fetched["url"], fetched["sha256"]) == (url, sha256(archive))
    assert (fetched["member"], fetched["member_sha256"]) == (MEMBER, sha256(content))
    assert fetched["test_top1"] == trained.accuracy
    assert fetched["published_top1"] == round(trained.accuracy, 2)
    assert record["outputs"][str(LAYOUT.teacher(NAME))]["sha256"] == sha256_file(place / LAYOUT.teacher(NAME))
    assert record["parameters"] == sum(p.numel() for p in models.build(NAME, 10, 1).parameters())
    assert record["history"] == {}
    said = capfd.readouterr().out
    assert f"fetch {NAME}: MB 1/1" in said
    assert f"{trained.accuracy:.2f} % measured, {trained.accuracy:.2f} % published, from {url}" in said
    assert run(place, **keys)["fetched"] == fetched  # from the cache, and the same record
    assert server.asked == ["cifar_teachers.tar"]
    assert everything(downloads) == [download.kept(url).name]


def test_another_accuracy_than_the_published_is_refused(trained: Trained, place: Path, server: Server) -> None:
    url = server.offer("teacher.pth", released(trained.weights))
    for published in (trained.accuracy - 0.12, trained.accuracy + 0.12):  # more than one image of 899
        with pytest.raises(DistilleryError) as caught:
            run(place, source="fetch", urls=[url], accuracy=published, fallback="train")
        told = str(caught.value)
        assert f"{url} reaches a test accuracy of {trained.accuracy:.2f} %" in told
        assert f"points from the {published:.2f} % that it should: take another mirror" in told
        assert "\n" not in told
        assert not (place / LAYOUT.teacher(NAME)).exists()
    assert run(place, source="fetch", urls=[url], accuracy=trained.accuracy - 0.1)["fetched"]["url"] == url
    assert run(place, source="fetch", urls=[url])["fetched"]["published_top1"] is None


def test_damaged_weights_are_found_by_their_accuracy(trained: Trained, place: Path, server: Server) -> None:
    """They load, and yet they are not the teacher."""
    damaged = {**trained.weights, "conv1.weight": trained.weights["conv1.weight"].roll(1)}
    url = server.offer("teacher.pth", released(damaged))
    with pytest.raises(DistilleryError, match=f"reaches .* points from the {trained.accuracy:.2f} %"):
        run(place, source="fetch", urls=[url], accuracy=trained.accuracy)


def test_a_teacher_with_other_classes_is_told(
    trained: Trained, place: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is published for it, so it is taken; but who permuted classes by a name hears of it."""
    permuted = {k: v.roll(1, 0) if k.startswith("fc.") else v for k, v in trained.weights.items()}
    url = server.offer("teacher.pth", released(permuted))
    assert run(place, source="fetch", urls=[url])["fetched"]["test_top1"] < 10
    told = capfd.readouterr().out
    assert "is no better than chance: are its classes the data's, in this order (0, 1, 2, ...)?" in told


def test_all_mirrors_dead_trains_if_the_study_says_so(trained: Trained, place: Path, server: Server) -> None:
    dead = f"{nobody()}/teacher.pth"
    keys = {"source": "fetch", "urls": [f"{server.url}/gone.tar", dead], "accuracy": trained.accuracy}
    with pytest.raises(NoMirror) as caught:
        run(place, **keys)
    told = str(caught.value)
    assert f"{server.url}/gone.tar (HTTP 404 Not Found); {dead} (Connection refused)" in told
    assert f"`teachers.{NAME}.urls`" in told
    assert "`fallback: train`" in told
    assert "\n" not in told
    assert not (place / LAYOUT.teacher(NAME)).exists()
    record = run(place, **keys, fallback="train")
    assert record["fallback"] == "trained here, because every mirror failed"
    assert record["mirrors"] == keys["urls"]
    assert record["history"]["teacher"][-1]["test_top1"] == trained.accuracy
    weights = load_tensors(place / LAYOUT.teacher(NAME))
    assert all(torch.equal(weights[k], t) for k, t in trained.weights.items())  # exactly what `source: train` gives
    volatile = read_json(place / LAYOUT.provenance(LAYOUT.teacher(NAME)))
    assert volatile["mirrors"][dead] == "Connection refused"


def test_studies_are_checked() -> None:
    def told(teacher: dict[str, Any], source: str = "cifar100") -> str:
        params = study_of(**teacher)
        params["data"] = {"source": source}
        try:
            check(params)
        except DistilleryError as error:
            return str(error)
        return ""

    fetched = {"source": "fetch"}
    assert told({**fetched, "architecture": "resnet56"}) == ""
    assert "no urls are given, and the released teachers known here are resnet56," in told(
        {**fetched, "architecture": "resnet56"}, "digits"
    )
    assert "not resnet8_w4 for cifar100" in told(fetched)
    assert told({**fetched, "urls": ["http://a/b.pth", "~/b.pth", "b.pth"]}) == ""
    assert "'ftp://a/b.pth' is neither an http(s) address nor a path" in told({**fetched, "urls": ["ftp://a/b.pth"]})
    urls = {**fetched, "urls": ["b.tar"]}
    for member in ("../b.pth", "/b.pth", "a/../../b.pth"):
        assert f"member: {member!r} leads out of the archive" in told({**urls, "member": member})
    assert told({**urls, "member": "a..b/c.pth", "sha256": "0" * 64, "accuracy": 72.34}) == ""
    assert f"teachers.{NAME}.sha256" in told({**urls, "sha256": "0" * 63})
    assert f"teachers.{NAME}.accuracy" in told({**urls, "accuracy": 172.34})
    assert f"teachers.{NAME}.fallback" in told({**urls, "fallback": "pray"})
