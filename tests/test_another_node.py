"""A job that one node began goes on at another: nodes of a cluster differ in their processors and kernels."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

import pytest
import torch
from synthetic_study import Synthetic, params

from distillery.pipeline.work import Work
from distillery.records import environment
from distillery.stages.finished import Finished


@pytest.fixture
def synthetic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synthetic:
    monkeypatch.chdir(tmp_path)
    made = Synthetic(tmp_path, params())
    made.cell("a-b", "kd", "0-2", [80.0, 81.0, 82.0])
    return made


def identities(made: Synthetic) -> list[str]:
    """What a teacher's checkpoint, a half-built view table and a student's checkpoint are known by."""
    teacher, cache = (Work(made.plan.job(s, teacher="resnet20_w8"), made.plan.settings) for s in ("teacher", "cache"))
    students = Work(made.plan.job("distill", pair="a-b", method="kd", seed="0-2"), made.plan.settings)
    return [teacher.identity, cache.identity, Finished(students, {"device": "cpu"}).identity(0)]


def test_what_one_node_began_another_continues(synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    here = identities(synthetic)
    monkeypatch.setattr(environment, "_told_of_cpu", lambda what: "another processor with avx512f")
    monkeypatch.setattr(os, "cpu_count", lambda: 999)
    monkeypatch.setattr(platform, "platform", lambda: "the next kernel")
    assert identities(synthetic) == here


def test_what_other_packages_began_nobody_continues(synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    here = identities(synthetic)
    monkeypatch.setattr(metadata, "version", lambda package: "another")
    assert not {*here} & {*identities(synthetic)}


def test_another_gpu_gives_other_bits(synthetic: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(synthetic.plan.job("teacher", teacher="resnet20_w8"), synthetic.plan.settings)
    here = work.identity
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    work.on(torch.device("cuda"))
    assert work.identity != here
