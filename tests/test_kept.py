"""Finished jobs of a shared Slurm job: what is kept, and when it may be put back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from distillery.pipeline.layout import Layout
from distillery.records import kept
from distillery.records.io import write_json

AT = Layout("digits")
RECORD = {"stage": "distill", "params_sha256": "1", "inputs": {"arrays": "2"}}
WEIGHTS, MADE = AT.students("pair", "kd", "0"), AT.runs("pair", "kd", "0")


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    WEIGHTS.parent.mkdir(parents=True)
    WEIGHTS.write_text("weights")
    write_json(MADE, RECORD | {"history": [1]})


@pytest.mark.usefixtures("finished")
def test_a_finished_job_comes_back_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLERY_KEEP", "1")
    kept.keep(AT, WEIGHTS, MADE)
    number = WEIGHTS.stat().st_ino
    shutil.rmtree(AT.artifacts / "runs")
    assert kept.restore(AT, RECORD, WEIGHTS, MADE)
    assert WEIGHTS.read_text() == "weights"
    assert WEIGHTS.stat().st_ino == number
    assert kept.restore(AT, RECORD, WEIGHTS, MADE), "as often as the group is repeated"


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize("changed", [{"params_sha256": "3"}, {"inputs": {"arrays": "4"}}, {"code_sha256": "5"}])
def test_nothing_comes_back_to_another_job(monkeypatch: pytest.MonkeyPatch, changed: dict[str, object]) -> None:
    monkeypatch.setenv("DISTILLERY_KEEP", "1")
    kept.keep(AT, WEIGHTS, MADE)
    shutil.rmtree(AT.artifacts / "runs")
    assert not kept.restore(AT, RECORD | changed, WEIGHTS, MADE)
    assert not WEIGHTS.exists()


@pytest.mark.usefixtures("finished")
def test_half_of_a_job_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILLERY_KEEP", "1")
    kept.keep(AT, WEIGHTS, MADE)
    AT.kept(MADE).unlink()  # killed before the record was kept
    assert not kept.restore(AT, RECORD, WEIGHTS, MADE)


@pytest.mark.usefixtures("finished")
def test_a_job_of_one_run_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTILLERY_KEEP", raising=False)
    kept.keep(AT, WEIGHTS, MADE)
    assert not AT.all_kept.exists()
    assert not kept.restore(AT, RECORD, WEIGHTS, MADE)
