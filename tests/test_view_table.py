"""The view table on real pixels of CIFAR's shape: exact and exhaustive for the papers' augmentation."""

from __future__ import annotations

import copy
import dataclasses
import errno
import os
from pathlib import Path

import pytest
import torch
from photographs import photographs

from distillery import models
from distillery.data.dataset import Dataset
from distillery.data.views import Views
from distillery.errors import DistilleryError
from distillery.models.base import Network
from distillery.study.blocks import Cache
from distillery.teachers.view_table import ViewTable, build, columns, effect

VIEWS = Views(4, True, 32)


@pytest.fixture(scope="module")
def photos() -> Dataset:
    """Twenty-five images; a table of them has 25 x 162 rows."""
    images, labels = photographs(25), torch.arange(25)
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    names = tuple(str(i) for i in range(100))
    return Dataset(images, labels, images, labels, names, 255.0, mean, std, torch.arange(len(labels)))


@pytest.fixture(scope="module")
def teacher(photos: Dataset) -> Network:
    """A network whose running statistics have seen the data, so that its logits differ from image to image."""
    torch.manual_seed(0)
    network = models.build("resnet8", 100).train()
    with torch.no_grad():
        for _ in range(20):
            network(photos.normalise(photos.train_images))
    return network.eval()


def live(teacher: Network, data: Dataset, index: torch.Tensor, view: torch.Tensor) -> models.base.Outputs:
    images = VIEWS.take(VIEWS.pad(data.train_images), index, view)
    with torch.no_grad():
        return teacher(data.normalise(images))


def test_a_full_disk_is_said_before_anything_is_computed(
    photos: Dataset, teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing into a map of a file with holes would end the process."""

    def full(file: int, start: int, size: int) -> None:
        assert size == 25 * 162 * 100 * 4
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DistilleryError, match=r"cannot write the view table .*No space left.*free space"):
        build(teacher, photos, VIEWS, Cache(), tmp_path / "table.bin", "key")
    assert not (tmp_path / "table.bin").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float16", 2e-2)])
def test_every_view_of_every_image_equals_the_live_teacher(
    photos: Dataset, teacher: Network, tmp_path: Path, dtype: str, bound: float
) -> None:
    path = tmp_path / "table.bin"
    record = build(teacher, photos, VIEWS, Cache(dtype=dtype, pooled=True, batch_size=324), path, "key")
    assert record["shape"] == [25 * 162, 100 + 64]
    table = ViewTable.open(path, record)
    generator = torch.Generator().manual_seed(1)
    pairs = torch.randperm(25 * 162, generator=generator)  # every (image, view), batched unlike the table was built
    for rows in pairs.split(64):
        index, view = rows // 162, rows % 162
        cached, expected = table.outputs(table.rows(index, view).float()), live(teacher, photos, index, view)
        assert (cached.logits - expected.logits).abs().max() <= bound
        assert (cached.pooled - expected.pooled).abs().max() <= bound
        if dtype == "float32":
            assert torch.equal(cached.logits.argmax(1), expected.logits.argmax(1))


def test_a_cache_by_image_alone_would_be_wrong(photos: Dataset, teacher: Network) -> None:
    """Why the table has 162 rows for an image: the teacher's outputs differ between its views."""
    index = torch.arange(25)
    one, other = (live(teacher, photos, index, torch.full((25,), v)).logits for v in (VIEWS.identity, 0))
    assert (one - other).abs().max() > 0.1


def test_a_table_in_bfloat16_differs_by_what_is_recorded(photos: Dataset, teacher: Network, tmp_path: Path) -> None:
    few = dataclasses.replace(photos, train_images=photos.train_images[:2], train_labels=photos.train_labels[:2])
    views, tables = Views(1, False, 32), {}
    for precision in ("float32", "bfloat16"):
        cache = Cache(precision=precision)
        record = build(teacher, few, views, cache, tmp_path / precision, precision)
        tables[precision] = ViewTable.open(tmp_path / precision, record).values
    gap = (tables["bfloat16"] - tables["float32"]).abs()
    found = effect(teacher, few, views, Cache(precision="bfloat16"), count=64)
    assert 0 < found["mean"] < found["largest"] <= gap.max().item() * 1.5
    assert gap.mean().item() / 2 < found["mean"] < gap.mean().item() * 2
    assert effect(teacher, few, views, Cache(), count=8) == {"largest": 0.0, "mean": 0.0, "top1_changed": 0.0}


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [(float("nan"), "float32", "not a finite number"), (1e5, "float16", "too large for float16: say `cache.dtype: fl")],
)
def test_what_the_table_cannot_hold_is_refused(
    photos: Dataset, teacher: Network, tmp_path: Path, value: float, dtype: str, said: str
) -> None:
    network = copy.deepcopy(teacher)
    with torch.no_grad():
        network.head.bias[3] = value
    with pytest.raises(DistilleryError, match=said):
        build(network, photos, Views(0, False, 32), Cache(dtype=dtype), tmp_path / "table.bin", "key")
    assert not (tmp_path / "table.bin").exists()


def test_the_precision_is_part_of_an_identity_only_where_it_acts() -> None:
    assert "precision" not in Cache().model_dump()
    assert Cache(precision="tf32").model_dump() == Cache().model_dump() | {"precision": "tf32"}


def test_a_row_is_measured_where_the_teacher_is(photos: Dataset) -> None:
    """The meta device stands for a GPU: data stay on one device while a teacher is on the other."""
    for place in ("cpu", "meta"):
        network = models.build("resnet8", 100).to(place)
        assert columns(network, photos, Cache()) == 100
        assert columns(network, photos, Cache(pooled=True)) == 164
