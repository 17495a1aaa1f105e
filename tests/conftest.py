"""Fixtures that every test may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback import Server, serving
from slurm_cluster import SlurmCluster, missing

from distillery.teachers import download

ROOT = Path(__file__).resolve().parents[1]

# One thread, as in the jobs: two OpenMP threads beside another busy process are many times slower than one.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run engines first: the longest would run alone at the end otherwise (pytest-xdist deals out files)."""
    items.sort(key=lambda item: not (isinstance(item, pytest.Function) and "Workbench" in vars(item.module)))


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Published tables and the real CIFAR-100, kept beside the repository because of their size.

    What needs them checks records of this repository against their sources. Nothing that compares computed numbers
    with the released implementations may ask for this: those vectors are in tests/vectors.
    """
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("checks a record against its source in ../shared, which is too large to come with the repository")
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A web server on loopback that misbehaves as it is told."""
    with serving(tmp_path / "served") as running:
        yield running


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloaded teachers are kept: a folder of the test's own; and no patience."""
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "downloads"))
    monkeypatch.setattr(download, "PAUSE", 0.01)
    return tmp_path / "downloads"


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A running Slurm cluster on loopback, stopped at the end. CI must have Slurm; elsewhere its tests are skipped."""
    if absent := missing():
        said = f"Slurm is not installed ({', '.join(absent)}): apt-get install slurm-wlm munge"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    with SlurmCluster() as cluster:
        yield cluster
