"""What ImageNet takes: cores, disk, files and jobs, and what replay tables save; from numbers measured here.

    python benchmarks/scale.py [--study workflow/studies/imagenet_r50-mobilenet.yaml] [--photos FOLDER] [--markdown]

Measured: images a second that one core decodes, crops and resizes to 224 pixels, as a worker process of a stream does;
bytes of an index and of a laid-out epoch, by writing one; multiply-adds of both networks. All else is multiplied:
ImageNet has 1,281,167 + 50,000 images of 110 kB. An image is taken to need time by its bytes, which is rather too much:
half of the time goes by pixels. Accelerators are not measured here: what they sustain (`--tflops`) is an assumption.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import closing, redirect_stdout
from pathlib import Path

import torch
from side_by_side import now, parser, show, use_threads
from streaming import some_photos

from distillery import models
from distillery.data import cutting, open_source
from distillery.data.photo_set import PhotoSet
from distillery.data.stream import Stream
from distillery.data.streamed import prepare_blob
from distillery.data.workers import Here
from distillery.evaluation.macs import multiply_accumulates
from distillery.objectives.build import needs
from distillery.pipeline import check
from distillery.study.blocks import Recipe
from distillery.study.model import Study
from distillery.teachers.replay import size_in_bytes

TRAIN, TEST, CLASSES, BYTES = 1_281_167, 50_000, 1000, 110e3  # of ImageNet-1k
WANTED = 5_000  # images a second
METHODS, SEEDS = 12, 3
LIVE = frozenset({"maps", "preacts", "tokens", "strong"})  # what a replay table does not hold
STUDY = Path(__file__).parents[1] / "workflow" / "studies" / "imagenet_r50-mobilenet.yaml"


def rate_and_index(photos: Path | None, count: int, rounds: int) -> tuple[float, float, float, float]:
    """Images a second and core; bytes an image of the index and of a laid-out epoch; bytes of an encoded image."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = photos or some_photos(place / "photos", count)
        source = open_source("streamed_folder", {"root": str(folder), "size": 224})
        with redirect_stdout(sys.stderr):
            prepare_blob("streamed_folder", source, place / "index", place / "blob")
        data = PhotoSet.load(place / "index", place / "blob")
        stream = Stream(data, Recipe(batch_size=32), workers=0)
        stream._cutter = Here(data.blob, shorten=True)  # as a worker process does it
        seconds = []
        with closing(stream), cutting.silenced():
            for epoch in range(1, rounds + 2):
                laid_out, start = stream.epoch(0, epoch), now()
                for at in range(0, stream.count, 32):
                    stream.views(laid_out.cuts(data.rows[laid_out.index[at : at + 32].long()], laid_out.crops))
                seconds.append(now() - start)
        boxes, flips = laid_out.crops
        epoch_bytes = (boxes.nbytes + flips.nbytes + laid_out.index.nbytes) / len(data.train)
        images = len(data.train) + len(data.test)
        index = (place / "index").stat().st_size / images
        return stream.count / min(seconds[1:]), index, epoch_bytes, data.blob_bytes / images


def units(study: Study, methods: int, seeds: int) -> tuple[float, float, dict[str, float]]:
    """GMAC an image of a student's step and a teacher's pass; and of an epoch of all runs, by what is kept."""
    [pair] = study.pairs.values()
    [teacher] = pair.teachers
    image = torch.zeros(1, 3, 224, 224)
    networks = (models.build(name, CLASSES, 3) for name in (pair.student, study.teachers[teacher].architecture))
    one, theirs = (multiply_accumulates(network, image) / 1e9 for network in networks)
    step, runs = 3 * one, methods * seeds
    kept = {"live": runs, "a table for each seed": seeds, "one table, views shared": 1}
    return step, theirs, {how: runs * step + passes * theirs for how, passes in kept.items()}


def jobs(study: Study) -> int:
    """Of all stages."""
    teachers = {t for pair in study.pairs.values() for t in pair.teachers}
    return 2 + 2 * len(teachers) + len(study.pairs) + 2 * len(study.cells())


def main(argv: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3, images=32)
    options.add_argument("--photos", type=Path, help="a folder of class folders; default: pieces of two photographs")
    options.add_argument("--study", type=Path, default=STUDY)
    options.add_argument("--tflops", type=float, nargs="+", default=[20.0, 100.0], help="sustained by an accelerator")
    given = options.parse_args(argv)
    use_threads(1)
    rate, index, epoch, size = rate_and_index(given.photos, given.images, given.rounds)
    rate *= size / BYTES
    study = check.load(given.study)
    step, theirs, kept = units(study, METHODS, SEEDS)
    epochs = study.recipe.epochs
    replayed = sum(not needs(m) & LIVE and bool(needs(m)) for m in study.methods.values())
    rows = [
        ["one core: images/s of 110 kB, to 224 pixels", f"{rate:,.0f}"],
        [f"cores for {WANTED:,} images/s", f"{WANTED / rate:.0f}"],
        ["disk: reading for that", f"{WANTED * BYTES / 1e9:.2f} GB/s"],
        ["one pass over the training images", f"{TRAIN / rate / 3600:.1f} core-hours"],
        ["blob", f"{(TRAIN + TEST) * BYTES / 1e9:.0f} GB"],
        ["index", f"{(TRAIN + TEST) * index / 1e6:.0f} MB"],
        ["a laid-out epoch, in memory", f"{TRAIN * epoch / 1e6:.0f} MB"],
        ["files of the data", f"3, of {TRAIN + TEST:,} images"],
    ]
    for kind in ("float32", "int16"):
        one, run = (size_in_bytes(TRAIN, CLASSES, kind, n) / 1e9 for n in (1, epochs))
        rows.append([f"replay table, {kind}", f"{one:.2f} GB an epoch, {run:,.0f} GB a run of {epochs}"])
    rows += [
        ["files of a replay table", f"{2 * epochs} a teacher and seed"],
        ["student's step, teacher's pass", f"{step:.2f}, {theirs:.2f} GMAC an image"],
    ]
    for tflops in given.tflops:
        alone, both = (tflops * 1e12 / (2e9 * gmac) for gmac in (step, step + theirs))
        rows.append([f"an accelerator of {tflops:g} TFLOP/s: images/s", f"{alone:,.0f} replayed, {both:,.0f} live"])
    live = kept["live"]
    for how, gmac in kept.items():
        saved = f", {(gmac / live - 1):+.0%}" if gmac != live else ""
        rows.append([f"{METHODS} methods x {SEEDS} seeds: {how}", f"{gmac:.0f} GMAC an image and epoch{saved}"])
    rows += [
        [f"{study.study}: methods that a table (with pooled features) serves", f"{replayed} of {len(study.methods)}"],
        [f"{study.study}: jobs", f"{jobs(study)}, for {len(study.runs())} runs"],
    ]
    note = f"Of photos of {size / 1e3:.0f} kB, by {cutting.decoder()}, one thread. TFLOP/s are assumed."
    show("scale: what ImageNet takes", ["", study.study], rows, given.markdown, note)


if __name__ == "__main__":
    main()
