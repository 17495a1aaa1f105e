"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# One thread, as in the jobs: two OpenMP threads beside another busy process are many times slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference material kept beside the repository (golden vectors, real CIFAR-100)."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("the reference material (../shared) does not lie beside this checkout")
    return path
