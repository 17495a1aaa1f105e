"""Streamed views: torchvision's pixels, a pure function of (seed, epoch, image), whoever makes them."""

from __future__ import annotations

import io
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from own_images import drawn, photos, save
from PIL import Image
from test_blob import kinds
from torchvision.transforms import v2

from distillery.data import crops as drawing
from distillery.data import open_source, workers
from distillery.data.crops import Crops, centre_geometry, draw_crops, uniforms
from distillery.data.cutting import decode_part, decoder, shortened, silenced
from distillery.data.loader import Samples
from distillery.data.photo_set import PhotoSet
from distillery.data.stream import Stream
from distillery.data.streamed import Streamed, prepare_blob
from distillery.data.workers import AHEAD, CHUNK
from distillery.errors import DistilleryError, StaleInput
from distillery.study.blocks import Recipe
from distillery.training.parallel import Ranks

pytestmark = pytest.mark.slow

SIZE, BATCH = (24, 20), 8


def written(root: Path, folder: Path) -> tuple[Path, Path]:
    """Prepare the blob of a folder; return index and blob."""
    source = open_source("streamed_folder", {"root": str(root), "size": [*SIZE]})
    assert isinstance(source, Streamed)
    prepare_blob("streamed_folder", source, folder / "arrays.safetensors", folder / "x.blob")
    return folder / "arrays.safetensors", folder / "x.blob"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PhotoSet:
    """Forty training images of several sizes and kinds, and forty test images."""
    folder = tmp_path_factory.mktemp("stream")
    root = photos(folder / "photos", 20, ("train", "val"))
    kinds(root / "train" / "cool")
    return PhotoSet.load(*written(root, folder))


@pytest.fixture(scope="module")
def stream(data: PhotoSet) -> Iterator[Stream]:
    """Read by two processes, for all tests that only look."""
    loader = Stream(data, Recipe(batch_size=BATCH), workers=2)
    yield loader
    loader.close()


def epoch_of(loader: Stream, seed: int, epoch: int, start: int = 0) -> list[Samples]:
    """The batches of an epoch, from one on."""
    laid_out = loader.epoch(seed, epoch)
    starts = range(start * BATCH, loader.count, BATCH)
    return [laid_out.batch(slice(at, min(at + BATCH, loader.count))) for at in starts]


def equal(some: list[Samples], others: list[Samples]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets) and torch.equal(a.index, b.index)
        for a, b in zip(some, others, strict=True)
    )


# --- what is drawn


def test_the_draw_of_an_image_depends_on_nothing_but_seed_epoch_and_image() -> None:
    whole = uniforms(1, 2, 0, 100)
    assert np.array_equal(uniforms(1, 2, 37, 5), whole[37:42])
    assert not np.array_equal(uniforms(1, 3, 0, 100), whole) and not np.array_equal(uniforms(2, 2, 0, 100), whole)
    assert len(np.unique(whole)) == whole.size
    expected = [0.9729630576969618, 0.5819493470684864, 0.8559449772863246]
    assert whole[0, :3].tolist() == expected, "frozen: a run must see the same views tomorrow"


def test_many_images_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    heights, widths = np.arange(30, 130, dtype=np.int32), np.arange(130, 30, -1, dtype=np.int32)
    whole = draw_crops(Crops(), 0, 1, heights, widths)
    monkeypatch.setattr(drawing, "_AT_ONCE", 7)
    for one, other in zip(whole, draw_crops(Crops(), 0, 1, heights, widths), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("size", [(375, 500), (60, 500), (500, 90), (1, 1), (3, 2)])
@pytest.mark.parametrize("crops", [Crops(), Crops(scale=(0.5, 1.0), ratio=(1.0, 1.0), flip=False)])
def test_every_crop_is_torchvisions_for_the_same_random_numbers(
    size: tuple[int, int], crops: Crops, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own code, line by line, with its random numbers replaced by ours."""
    count, seed = 200, 5
    boxes, flips = draw_crops(crops, seed, 1, np.full(count, size[0], np.int32), np.full(count, size[1], np.int32))
    random = uniforms(seed, 1, 0, count)
    theirs = v2.RandomResizedCrop(8, crops.scale, crops.ratio, antialias=True)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    different = 0
    for row, box in zip(random, boxes.tolist(), strict=True):
        numbers, places = iter(row[:20]), iter(row[20:22])

        class One:
            """A tensor of one number, drawn as theirs is but in float64."""

            def uniform_(self, low: float, high: float, numbers: Iterator[float] = numbers) -> torch.Tensor:
                return torch.as_tensor(low + (high - low) * next(numbers), dtype=torch.float64)

        def randint(low: int, high: int, size: object, places: Iterator[float] = places) -> torch.Tensor:
            return torch.tensor(math.floor(low + (high - low) * next(places)))

        with monkeypatch.context() as patch:
            patch.setattr(torch, "empty", lambda *_: One())
            patch.setattr(torch, "randint", randint)
            expected = theirs.make_params([image])
        different += [expected[k] for k in ("top", "left", "height", "width")] != box
    assert different == 0  # their bounds of the ratio are float32, which could shift a box once in many thousands
    assert flips.any() == crops.flip


def test_boxes_are_within_images_and_fill_the_declared_range() -> None:
    count = 20_000
    heights, widths = np.full(count, 300, np.int32), np.full(count, 400, np.int32)
    boxes, flips = draw_crops(Crops(), 0, 1, heights, widths)
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 300).all() and (left + width <= 400).all()
    share = height * width / 120_000
    assert 0.079 < share.min() < 0.09 and share.max() > 0.97
    assert abs(flips.mean() - 0.5) < 0.02
    assert (width / height).min() > 0.74 and (width / height).max() < 1.35


def test_evaluation_sees_what_torchvision_sees() -> None:
    """Sizes and corners of Resize and CenterCrop, for all proportions."""
    for high, wide in [(375, 500), (500, 375), (300, 300), (301, 499), (257, 1000), (7, 9), (33, 32)]:
        resized, corner = centre_geometry(np.array([high], np.int32), np.array([wide], np.int32), 29, (24, 20))
        marked = torch.arange(high * wide, dtype=torch.float32).view(1, high, wide)
        whole = v2.functional.resize(marked, [29], antialias=True)
        assert list(whole.shape[1:]) == resized[0].tolist()
        top, left = corner[0].tolist()
        assert torch.equal(v2.functional.center_crop(whole, [24, 20]), whole[:, top : top + 24, left : left + 20])


# --- pixels


def test_views_are_torchvisions_pixels(data: PhotoSet, stream: Stream) -> None:
    """Decode by Pillow, `resized_crop` of transforms.v2, mirror, normalise; for every image of an epoch."""
    boxes, flips = draw_crops(Crops(), 7, 3, data.train.height, data.train.width)
    names = data.train.names.tobytes().decode().split("\0")
    plain = 0
    for batch in epoch_of(stream, 7, 3):
        for image, target, i in zip(batch.inputs, batch.targets, batch.index.tolist(), strict=True):
            assert target == data.train.labels[i]
            if not Path(names[i]).stem.isdigit():
                continue  # of another kind than plain JPEG: see below
            plain += 1
            with Image.open(data.blob.parent / "photos" / names[i]) as opened:
                pixels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)
            top, left, height, width = boxes[i].tolist()
            view = v2.functional.resized_crop(pixels, top, left, height, width, [*SIZE], antialias=True)
            view = view.flip(2) if flips[i] else view
            expected = v2.functional.normalize(view.double() / 255, [*data.mean], [*data.std])
            assert torch.allclose(image.double(), expected, rtol=0, atol=1e-5)
    assert plain == 40


def test_tests_are_torchvisions_pixels(data: PhotoSet, stream: Stream) -> None:
    batches = [*stream.splits()["test"].batches(BATCH)]
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    assert labels.tolist() == [0] * 20 + [1] * 20 and stream.splits()["test"].count == 40
    transform = v2.Compose([v2.Resize(data.short_side, antialias=True), v2.CenterCrop(SIZE)])
    for image, name in zip(images, data.test.names.tobytes().decode().split("\0"), strict=True):
        with Image.open(data.blob.parent / "photos" / name) as opened:
            view = transform(torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1))
        expected = v2.functional.normalize(view.double() / 255, [*data.mean], [*data.std])
        assert torch.allclose(image.double(), expected, rtol=0, atol=1e-5)


def test_other_kinds_are_decoded_as_the_resident_source_does(tmp_path: Path) -> None:
    from distillery.data.blob import UPRIGHT
    from distillery.data.pictures import decode

    for kind, path in kinds(tmp_path).items():
        size = (48, 40) if kind == "turned" else (40, 48)
        part = decode_part(path.read_bytes(), UPRIGHT, (0, 0, *size))
        assert np.array_equal(part.permute(1, 2, 0), decode(path.read_bytes(), size)), kind


@pytest.mark.skipif(decoder() != "torchcodec", reason="TorchCodec, the extra `stream`, is not installed")
def test_both_decoders_give_the_same_pixels(tmp_path: Path) -> None:
    from distillery.data.blob import PLAIN, UPRIGHT

    picture = drawn(3, 161, 83)
    for quality in (50, 75, 95):
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            for progressive in (False, True):
                options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
                for mode in ("RGB", "L"):
                    content = save(picture.convert(mode), tmp_path / "x.jpg", **options).read_bytes()
                    with silenced():
                        one, other = (decode_part(content, way, (3, 5, 20, 70), True) for way in (PLAIN, UPRIGHT))
                    assert torch.equal(one, other), options


@pytest.mark.parametrize("size", [(300, 200), (64, 41)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_the_rows_above_keep_their_values_when_a_file_is_shortened(
    size: tuple[int, int], subsampling: str, tmp_path: Path
) -> None:
    """To the bit, wherever it is cut; with and without restart markers; what is progressive stays whole."""
    picture = drawn(3, *size)
    for restarts in (0, 1):
        for mode in ("RGB", "L"):
            options = {"quality": 85, "subsampling": subsampling, "restart_marker_rows": restarts}
            content = save(picture.convert(mode), tmp_path / "x.jpg", **options).read_bytes()
            whole = pixels_of(content)
            unit = 16 if subsampling == "4:2:0" else 8
            for bottom in range(1, size[0] + 1, 3):
                short = shortened(content, bottom)
                assert len(short) == len(content)
                part = pixels_of(short)
                assert len(part) == min(size[0], ((bottom - 1) // unit + 2) * unit)
                assert np.array_equal(part[:bottom], whole[:bottom])
    progressive = save(picture, tmp_path / "x.jpg", progressive=True).read_bytes()
    for untouched in (progressive, b"", b"\xff\xd8\xff", save(picture, tmp_path / "x.png").read_bytes()):
        assert shortened(untouched, 1) == untouched


def pixels_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def test_only_what_c_libraries_print_is_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    with silenced():
        os.write(2, b"from a library")
        print("from Python", file=sys.stderr)
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "from Python\nafterwards"


# --- a pure function of seed and epoch


@pytest.mark.parametrize("workers", [0, 1])
def test_any_number_of_processes_gives_the_same(workers: int, data: PhotoSet, stream: Stream) -> None:
    loader = Stream(data, Recipe(batch_size=BATCH), workers=workers)
    assert equal(epoch_of(loader, 1, 1), epoch_of(stream, 1, 1))
    loader.close()


def test_all_who_read_by_one_recipe_share_its_processes(data: PhotoSet) -> None:
    recipe = Recipe(batch_size=BATCH)
    shared = data.loader(recipe)
    assert data.loader(recipe.model_copy()) is shared
    assert data.loader(recipe.updated({"batch_size": 2})) is not shared
    elsewhere = data.to("cpu")
    assert elsewhere.loader(recipe) is not shared and elsewhere.loader(recipe).data is elsewhere


def test_another_epoch_or_seed_is_another_view_of_the_same_images(stream: Stream) -> None:
    first = epoch_of(stream, 1, 1)
    for seed, epoch in ((1, 2), (2, 1)):
        other = epoch_of(stream, seed, epoch)
        assert not equal(first, other)
        for batches in (first, other):
            assert sorted(torch.cat([b.index for b in batches]).tolist()) == list(range(stream.count))
    assert equal(first, epoch_of(stream, 1, 1))


def test_views_of_a_seed_of_their_own_are_shared_by_runs(data: PhotoSet) -> None:
    loader = Stream(data, Recipe(batch_size=BATCH, augmentation={"view_seed": 9}), workers=0)
    one, other = (epoch_of(loader, seed, 1) for seed in (1, 2))
    indices = [torch.cat([batch.index for batch in batches]) for batches in (one, other)]
    assert not torch.equal(*indices)
    images = [
        torch.cat([b.inputs for b in batches])[i.argsort()] for batches, i in zip((one, other), indices, strict=True)
    ]
    assert torch.equal(*images)


def test_an_epoch_can_be_entered_anywhere(stream: Stream) -> None:
    """As after a resume; also by rows that do not follow on one another, and by single rows."""
    whole = epoch_of(stream, 4, 2)
    assert equal(epoch_of(stream, 4, 2, start=3), whole[3:])
    laid_out = stream.epoch(4, 2)
    for at in (5, 1, 4, 1):
        rows = slice(at * BATCH, min((at + 1) * BATCH, stream.count))
        assert equal([laid_out.batch(rows)], [whole[at]])
    some = torch.tensor([9, 2, 2, 30])
    picked = laid_out.batch(some)
    everything = torch.cat([batch.inputs for batch in whole])
    assert torch.equal(picked.inputs, everything[some])


def test_batches_larger_than_there_is_room_for(data: PhotoSet) -> None:
    """One slot after the other is used again; and what was prepared for another batch makes room."""
    small, large = (Stream(data, Recipe(batch_size=size), workers=1) for size in (1, 64))
    assert large.count > 2 * CHUNK
    laid_out = small.epoch(0, 1)
    laid_out.batch(slice(0, 1))
    everything = laid_out.batch(slice(0, small.count))
    assert torch.equal(everything.inputs, large.epoch(0, 1).batch(slice(0, large.count)).inputs)
    small.close(), large.close()


def test_batches_of_thousands_and_one_process(data: PhotoSet) -> None:
    """More than both directions of its socket hold: parent and process must not wait for each other."""
    loader, draw, size = Stream(data, Recipe(batch_size=4096), workers=1), np.random.default_rng(0), 4096
    some, other = (
        data.crops(
            draw.integers(0, len(data.train), size),
            np.stack([draw.integers(*of, size, np.int32) for of in ((0, 4), (0, 4), (3, 9), (3, 9))], 1),
            draw.integers(0, 2, size).astype(bool),
        )
        for _ in range(2)
    )
    for _ in range(2):
        made = loader.views(some, [other, some])
    alone = Stream(data, Recipe(batch_size=size), workers=0)
    assert torch.equal(made[-64:], alone.views(some[-64:]))
    loader.close(), alone.close()


def test_shares_of_several_processes_make_up_the_batch(stream: Stream) -> None:
    laid_out, whole = stream.epoch(0, 1), epoch_of(stream, 0, 1)
    for at, batch in enumerate(whole):
        end = at * BATCH + len(batch.index)
        shares = [slice(at * BATCH, at * BATCH + 3), slice(at * BATCH + 3, end)]
        parts = [laid_out.batch(share).inputs for share in shares]
        assert torch.equal(torch.cat(parts), batch.inputs)
    tested = stream.splits()["test"]
    parts = [dict(enumerate(tested.batches(BATCH, rank, 2))) for rank in (0, 1)]
    for i, (images, _) in enumerate(tested.batches(BATCH)):
        assert torch.equal(parts[i % 2][i // 2][0], images)


@pytest.mark.parametrize("ranks", [1, 2])
def test_students_in_turn_have_little_made_in_vain(data: PhotoSet, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for what was made ahead before it was known that there are others. No epoch is kept when it is over."""
    made: list[int] = []
    job = workers._Job
    monkeypatch.setattr(workers, "_Job", lambda *args: made.append(1) or job(*args))
    loader, rank = Stream(data, Recipe(batch_size=BATCH), workers=2), Ranks(0, ranks)
    epochs = [loader.epoch(seed, 1) for seed in range(3)]
    in_turn = [
        [epoch.batch(rank.share(slice(at, min(at + BATCH, loader.count)))) for epoch in epochs]
        for at in range(0, loader.count, BATCH)
    ]
    assert 18 <= len(made) <= 18 + AHEAD * 2, "each of the 18 batches is one chunk"
    assert not loader._read
    loader.close()
    if ranks == 1:
        alone = Stream(data, Recipe(batch_size=BATCH), workers=0)
        for seed, batches in enumerate(zip(*in_turn, strict=True)):
            assert equal([*batches], epoch_of(alone, seed, 1))


def test_held_out_images_are_tested_and_leave_the_views_of_others_alone(data: PhotoSet, stream: Stream) -> None:
    loader = Stream(data.hold_out(0.25), Recipe(batch_size=BATCH), workers=0)
    held = loader.data.val_rows.tolist()
    batches = epoch_of(loader, 1, 1)
    places = loader.data.rows[torch.cat([batch.index for batch in batches])]
    assert sorted([*held, *places.tolist()]) == list(range(len(data.train))) and 0 < len(held) < loader.count
    whole = epoch_of(stream, 1, 1)
    everything = torch.cat([b.inputs for b in whole])[torch.cat([b.index for b in whole]).argsort()]
    assert torch.equal(torch.cat([batch.inputs for batch in batches]), everything[places])
    ((images, labels),) = loader.splits()["val"].batches(100)
    assert len(images) == len(held) and labels.tolist() == data.train.labels[held].tolist()


def test_the_epoch_is_cheap() -> None:
    """Nothing that is kept for an image is wider than a box of int32."""
    count = 1000
    boxes, flips = draw_crops(Crops(), 0, 1, np.full(count, 300, np.int32), np.full(count, 400, np.int32))
    assert boxes.dtype == np.int32 and boxes.nbytes == 16 * count and flips.nbytes == count


def test_what_else_a_recipe_does_comes_after_the_view(data: PhotoSet, stream: Stream) -> None:
    """Mixing gives soft targets, other entries other images; the same for a seed and epoch, and tests see none."""
    entries = [{"name": "randaugment"}, {"name": "mixup"}]
    augmented = Stream(data, Recipe(batch_size=BATCH, augmentation={"then": entries}), workers=0)
    batches, plain = epoch_of(augmented, 1, 1), epoch_of(stream, 1, 1)
    assert equal(batches, epoch_of(augmented, 1, 1)) and not equal(batches, epoch_of(augmented, 1, 2))
    for one, other in zip(batches, plain, strict=True):
        assert one.targets.shape == (len(one.index), 2) and torch.equal(one.index, other.index)
        assert not torch.equal(one.inputs, other.inputs)
    tested = [next(iter(loader.splits()["test"].batches(BATCH)))[0] for loader in (augmented, stream)]
    assert torch.equal(*tested)


# --- strong views


@pytest.mark.parametrize("workers", [0, 2])
def test_strong_views_are_other_crops_of_the_same_images(workers: int, data: PhotoSet, stream: Stream) -> None:
    loader = Stream(data, Recipe(batch_size=BATCH), workers=workers)
    laid_out, plain = loader.epoch(1, 2, strong=True), stream.epoch(1, 2)
    assert laid_out.strong
    (boxes, flips), strengths = laid_out.strong
    for start in (0, BATCH, 2 * BATCH):
        rows = slice(start, start + BATCH)
        both, weak = laid_out.batch(rows), plain.batch(rows)
        assert torch.equal(both.inputs, weak.inputs) and torch.equal(both.index, weak.index) and weak.strong is None
        at = both.index.numpy()
        views = stream.views(data.crops(at, boxes[at], flips[at]))
        assert not torch.equal(stream.inputs(views), weak.inputs)
        assert torch.equal(both.strong, stream.normalise(strengths.apply(views, both.index)))
        assert not torch.equal(both.strong, stream.inputs(views))
    second = slice(BATCH, 2 * BATCH)
    again = loader.epoch(1, 2, strong=True).batch(second).strong
    assert torch.equal(again, laid_out.batch(second).strong)
    assert not torch.equal(again, loader.epoch(1, 3, strong=True).batch(second).strong)
    loader.close()


# --- what a recipe says


def test_a_recipe_says_how_much_of_an_image_is_seen(data: PhotoSet) -> None:
    said = {"scale": (0.9, 1.0), "ratio": (1.0, 1.0), "flip": False}
    loader = Stream(data, Recipe(augmentation=said), workers=0)
    assert loader.crops == Crops(**said) and Stream(data, Recipe(), workers=0).crops == Crops()
    boxes, flips = loader.epoch(0, 1).crops
    assert (boxes[:, 2] == boxes[:, 3]).all() and not flips.any()


# --- what goes wrong


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_decoded_is_named(workers: int, tmp_path: Path) -> None:
    index, blob = written(photos(tmp_path / "photos", 20, ("train", "val")), tmp_path)
    data = PhotoSet.load(index, blob)
    at = 33  # one whose hash is not compared when the blob is opened
    content = bytearray(blob.read_bytes())
    content[int(data.train.offset[at]) : int(data.train.offset[at]) + 20] = bytes(20)
    blob.write_bytes(content)
    loader = Stream(PhotoSet.load(index, blob), Recipe(batch_size=BATCH), workers=workers)
    with pytest.raises(
        StaleInput, match=r"train/warm/013\.jpg in .*x\.blob cannot be decoded \(.*\): run the data"
    ) as caught:
        epoch_of(loader, 0, 1)
    assert "\n" not in str(caught.value)
    loader.close()


def test_a_blob_that_is_cut_short_meanwhile_is_one_sentence(tmp_path: Path) -> None:
    index, blob = written(photos(tmp_path / "photos", 20, ("train", "val")), tmp_path)
    loader = Stream(PhotoSet.load(index, blob), Recipe(batch_size=BATCH), workers=1)
    laid_out = loader.epoch(0, 1)
    laid_out.batch(slice(0, BATCH))
    os.truncate(blob, 100)
    with pytest.raises(StaleInput, match="ends before byte"):
        for start in range(BATCH, loader.count, BATCH):
            laid_out.batch(slice(start, start + BATCH))
    loader.close()


def test_a_killed_process_is_one_sentence(data: PhotoSet) -> None:
    loader = Stream(data, Recipe(batch_size=BATCH), workers=2)
    laid_out = loader.epoch(0, 1)
    laid_out.batch(slice(0, BATCH))
    os.kill(loader._cutter._processes[0].pid, signal.SIGKILL)  # type: ignore[union-attr]
    with pytest.raises(DistilleryError, match=r"was killed \(signal 9\): .*DISTILLERY_WORKERS"):
        for epoch in range(2, 9):
            epoch_of(loader, 0, epoch)
    loader.close()


def test_signals_to_the_whole_job_do_not_end_the_processes(data: PhotoSet) -> None:
    """Slurm and terminals send them to all; the fit loop goes on to its checkpoint and needs views for that."""
    loader = Stream(data, Recipe(batch_size=BATCH), workers=1)
    laid_out = loader.epoch(0, 1)
    laid_out.batch(slice(0, BATCH))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(loader._cutter._processes[0].pid, number)  # type: ignore[union-attr]
    assert len(laid_out.batch(slice(BATCH, loader.count)).index) == loader.count - BATCH
    loader.close()


PROGRAM = """
import sys, time
from pathlib import Path
from distillery.data.photo_set import PhotoSet
from distillery.data.stream import Stream
from distillery.study.blocks import Recipe

loader = Stream(PhotoSet.load(Path(sys.argv[1]), Path(sys.argv[2])), Recipe(batch_size=8), workers=2)
loader.epoch(0, 1).batch(slice(0, 8))
print(*(process.pid for process in loader._cutter._processes), flush=True)
if sys.argv[3] == "stay":
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "end"])
def test_the_processes_end_with_their_parent(how: str, data: PhotoSet) -> None:
    """A script without `if __name__ == "__main__"`, that closes nothing."""
    index = data.blob.parent / "arrays.safetensors"
    command = [sys.executable, "-c", PROGRAM, str(index), str(data.blob), "leave" if how == "end" else "stay"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == 2
        if how != "end":
            mapped = Path(f"/proc/{parent.pid}/maps").read_text()
            assert "/memfd:distillery-views (deleted)" in mapped and "/dev/shm" not in mapped, "nothing can be left"
            parent.send_signal(signal.Signals[how])
        assert parent.wait(30) == (0 if how == "end" else -signal.Signals[how])
    until = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and not zombie(pid) for pid in pids):
        assert time.monotonic() < until, "a process outlives its parent"
        time.sleep(0.05)


def zombie(pid: int) -> bool:
    """Whether a process has ended and nobody has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
