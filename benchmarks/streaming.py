"""Streamed images against torchvision's ImageFolder and DataLoader; the replay table against the live teacher.

    python benchmarks/streaming.py [--photos FOLDER] [--size 224] [--batch 64] [--rounds 5] [--workers 0] [--markdown]

The classic side is what the released ImageNet trainers do: ImageFolder, RandomResizedCrop, RandomHorizontalFlip,
ToTensor, Normalize on PIL images, batches of float32. Ours is a `Stream` of the same files in one blob: the same
distribution of crops, batches of normalised float32 on the device. Both sides run with the same number of processes;
with none, the default, images a second are images a second and core. Ours is timed by Pillow and, where it is
installed, by TorchCodec. The resident side holds the same photos as arrays of the same size.

The table's rows are those of the very batches that the live teacher gets. FOLDER has a folder for each class; without
one, pieces of scikit-learn's two photographs are written as JPEGs of the usual size.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from side_by_side import Side, alternate, device, parser, ratio, show, use_threads
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from distillery import models
from distillery.data import cutting, open_source, prepare
from distillery.data.dataset import Dataset
from distillery.data.loader import Loader
from distillery.data.photo_set import PhotoSet
from distillery.data.stream import Stream
from distillery.data.streamed import prepare_blob
from distillery.data.workers import Here
from distillery.study.blocks import Recipe
from distillery.teachers.replay import Plan, ReplayTable, ReplayTeachers, build
from distillery.teachers.source import LiveTeachers
from distillery.training.device import set_up
from distillery.training.teaching import TeacherSource


def some_photos(folder: Path, count: int) -> Path:
    """Write `count` JPEGs of about 500x375 pixels in two class folders: pieces of two photographs, some mirrored."""
    for i in range(count):
        whole = Image.fromarray(load_sample_images().images[i % 2])
        step = i // 2
        left, top = step * 37 % (whole.width - 500), step * 23 % (whole.height - 375)
        piece = whole.crop((left, top, left + 500, top + 375 - step % 40))
        piece = piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if step % 3 == 0 else piece
        into = folder / ("ab"[i % 2])
        into.mkdir(parents=True, exist_ok=True)
        piece.save(into / f"{i:05d}.jpg", quality=93)
    return folder


def classic(folder: Path, files: list[str], size: int, batch: int, workers: int) -> Side:
    """An epoch of the classic loader over the given files."""
    steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    chosen = {str(folder / name) for name in files}
    images = datasets.ImageFolder(str(folder), transform, is_valid_file=lambda path: path in chosen, allow_empty=True)
    loader = DataLoader(images, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def epoch() -> None:
        for inputs, labels in loader:
            inputs.to(device()), labels.to(device())

    return epoch


def epochs(loader: Loader, batch: int) -> Side:
    """One epoch after the other of a loader of ours."""
    number = iter(range(1, 10**6))

    def epoch() -> None:
        laid_out = loader.epoch(0, next(number))
        for start in range(0, loader.count, batch):
            laid_out.batch(slice(start, min(start + batch, loader.count)))

    return epoch


def teaching(source: TeacherSource, loader: Loader, batch: int) -> Side:
    """All teacher outputs of one epoch, whose images are there already; only the teacher is timed."""
    laid_out = loader.epoch(0, 1, cached=lambda index, view, _: [torch.stack([index, view], 1)])
    slices = [slice(s, min(s + batch, loader.count)) for s in range(0, loader.count, batch)]
    batches = [laid_out.batch(rows) for rows in slices]

    def epoch() -> None:
        for samples in batches:
            index, view = samples.cached[0].cpu().unbind(1)
            rows = [row.to(loader.device) for row in source.rows(index, view, 1)]
            source.teach(samples.inputs, rows)

    return epoch


@contextmanager
def by_pillow() -> Iterator[None]:
    """Within, plain JPEGs are decoded by Pillow, in this process."""
    fast: Callable[[], Any] = cutting._torchcodec
    cutting._torchcodec = lambda: None
    yield
    cutting._torchcodec = fast


def within(manager: Callable[[], Any], side: Side) -> Side:
    def run() -> object:
        with manager():
            return side()

    return run


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=5, images=128, batch=64, size=224, workers=0)
    options.add_argument("--photos", type=Path, help="a folder of class folders; default: pieces of two photographs")
    options.add_argument("--teacher", default="resnet8", help="architecture of the live teacher; default resnet8")
    given = options.parse_args(argv)
    use_threads(1)
    recipe, rows = Recipe(batch_size=given.batch), []
    set_up(recipe)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = given.photos or some_photos(place / "photos", given.images)
        keys = {"root": str(folder), "size": given.size}
        source = open_source("streamed_folder", keys)
        with redirect_stdout(sys.stderr):
            prepare_blob("streamed_folder", source, place / "index", place / "blob")
            prepare("folder", keys, place / "arrays")
        data = PhotoSet.load(place / "index", place / "blob").to(device())
        arrays = Dataset.load(place / "arrays").to(device())
        files = data.train.names.tobytes().decode().split("\0")
        stream = Stream(data, recipe, workers=given.workers)
        sides = {"classic": classic(folder, files, given.size, given.batch, given.workers)}
        fast = cutting.decoder() == "torchcodec"
        if not given.workers:
            stream._cutter = Here(data.blob, shorten=True)  # as a worker process does it
        if fast or given.workers:  # by whatever the processes find installed
            sides[f"stream, {cutting.decoder()}"] = within(cutting.silenced, epochs(stream, given.batch))
        if not given.workers:
            sides["stream, pillow"] = within(by_pillow, epochs(stream, given.batch))
        sides["resident"] = epochs(arrays.loader(recipe), given.batch)
        with closing(stream):
            times = alternate(sides, given.rounds)
        for side in list(sides)[1:]:
            rows.append(row(side, "classic", times, stream.count))
        network = models.build(given.teacher, 1000).to(device()).eval()
        loader = Stream(data, recipe, workers=0)
        teachers: dict[str, TeacherSource] = {"live": LiveTeachers([network], recipe)}
        for kind in ("float32", "int16"):
            plan = Plan("benchmark", len(data.train), 1000, kind)
            build(network, loader, 0, 1, recipe, plan, place / kind)
            teachers[f"replay, {kind}"] = ReplayTeachers([ReplayTable(place / kind, plan)])
        times = alternate({side: teaching(t, loader, given.batch) for side, t in teachers.items()}, given.rounds)
        for side in list(teachers)[1:]:
            rows.append(row(side, "live", times, stream.count))
        size = data.blob_bytes / (len(data.train) + len(data.test)) / 1e3
        side_length = math.sqrt((data.train.height * data.train.width).mean())
    note = f"{stream.count} training photos of {size:.0f} kB and {side_length:.0f} pixels a side on average, "
    note += f"{given.size} pixels, batches of {given.batch}, {given.workers} worker processes, one thread, live "
    note += f"teacher {given.teacher}, {given.rounds} rounds; in brackets the middle half of the rounds."
    heads = ["side", "images/s", "against", "its images/s", "times as fast"]
    show(f"streaming: images a second on {device().type}", heads, rows, given.markdown, note)


def row(side: str, against: str, times: dict[str, list[float]], images: int) -> list[str]:
    rates = [f"{images / statistics.median(times[of]):,.0f}" for of in (side, against)]
    return [side, rates[0], against, rates[1], ratio(times[against], times[side])]


if __name__ == "__main__":
    main()
