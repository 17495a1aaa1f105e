"""Checkpoints as the web holds them, good and bad, and fetching them in tests."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from distillery import models
from distillery.teachers.fetch import Fetched, NoMirror, fetch
from distillery.teachers.released import Source

NAME = "resnet8_w4"
MEMBER = f"cifar_teachers/{NAME}_vanilla/ckpt_epoch_240.pth"


def _drawn() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    fresh = models.build(NAME, 10, 1).state_dict()
    return {k: torch.rand(t.shape, generator=generator) if t.is_floating_point() else t for k, t in fresh.items()}


TEACHER = _drawn()  # no tensor is as in a fresh network: whatever is not loaded shows


def released(weights: dict[str, Tensor]) -> bytes:
    """What a RepDistiller training of 2019 leaves: torch's old format, tensors on a GPU, an optimiser, no counters."""
    old = {k: t for k, t in weights.items() if not k.endswith("num_batches_tracked")}
    state = {0: {"momentum_buffer": torch.zeros(3)}}
    optimizer = {"state": state, "param_groups": [{"lr": 5e-5, "nesterov": False, "params": [0]}]}
    facts = {"epoch": 240, "model": old, "accuracy": torch.tensor(72.34), "best_acc": 72.5, "optimizer": optimizer}
    torch.save(facts, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    content = buffer.getvalue()
    for here, there in (
        (b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n"),
        (b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"),
    ):
        assert content.count(here) == 1  # pickle names a thing once and refers to it after that
        content = content.replace(here, there)
    return content


def saved(content: Any) -> bytes:
    torch.save(content, buffer := io.BytesIO())
    return buffer.getvalue()


def archived(members: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            (info := tarfile.TarInfo(name)).size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal but for the counters, which old checkpoints lack."""
    names = [k for k in left if not k.endswith("num_batches_tracked")]
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in names)


def everything(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def get(*urls: str, member: str | None = None, sha256: str | None = None) -> tuple[Fetched, dict[str, Tensor]]:
    """Fetch into a fresh network of ten classes; the weights it then holds."""
    network = models.build(NAME, 10, 1)
    found = fetch("t", network, Source(urls, member, sha256, None))
    return found, network.state_dict()


def refused(*urls: str, **keys: Any) -> str:
    """Fetch in vain; the one sentence why, and a network left as it was."""
    network = models.build(NAME, 10, 1)
    before = {k: t.clone() for k, t in network.state_dict().items()}
    with pytest.raises(NoMirror) as caught:
        fetch("t", network, Source(urls, keys.get("member"), keys.get("sha256"), None))
    assert all(torch.equal(t, before[k]) for k, t in network.state_dict().items())
    assert "\n" not in str(caught.value)
    assert list(caught.value.failures) == list(dict.fromkeys(urls))
    return str(caught.value)
