"""Own clips: a folder with a sub-folder for each class, and in it a folder of frames for each clip.

Which clips are tested is said or decided as for `folder`: by `train/` and a test folder, or by the hashes of the clips'
names, so that no clip is in both. The frames of a clip are its image files in the order of the numbers in their names.
Of a clip of n frames, T are taken: those at (i + 1/2) * n / T, rounded down, the middles of T equal parts; a shorter
clip repeats some. Every folder that holds images is a clip of the class that it lies in, however deep.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from distillery.data.arrays import Arrays, Bytes, Shape
from distillery.data.clips import constants_of, stacked
from distillery.data.folder import Folder
from distillery.data.listing import SUFFIXES, Listing, Photo, list_classes, list_folder, suffixes_of
from distillery.data.photos import judge
from distillery.data.pixels import as_labels, hash_image, repeated
from distillery.errors import DistilleryError
from distillery.errors.words import some
from distillery.records.named import walk

VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


class Frames(Folder):
    """Clips as images whose channels are the frames; each frame is read as the source `folder` reads an image."""

    class Config(Folder.Config):
        frames: Annotated[int, Field(ge=2, le=64)] = 8
        """That are taken of every clip."""

    config: Config

    def listing(self) -> Listing:
        """List the clips, each as the folder of its frames."""
        return list_folder(self.root, self.config.test, self.config.test_fraction, list_clips)

    def shape(self) -> Shape:
        still = super().shape()
        return Shape(
            still.channels * self.config.frames,
            *self.config.size,
            still.num_classes,
            still.train_images,
            still.test_images,
        )

    def load(self) -> Arrays:
        config, listing = self.config, self.listing()
        if listing.left_out:
            print(f"left out, because not images by their suffix: {suffixes_of(listing.left_out)}", flush=True)
        clips = {"train": listing.train, "test": listing.test}
        frames = {split: [f for clip in of for f in taken(clip, config.frames)] for split, of in clips.items()}
        tensors, bad, left = dict[str, Any](), list[str](), dict[str, list[Photo]]()
        for split, of in clips.items():
            images, whys = self._read(frames[split], split)
            bad += [f"{f.name} ({why})" for f, why in zip(frames[split], whys, strict=True) if isinstance(why, str)]
            whole = np.flatnonzero(np.array([isinstance(why, bytes) for why in whys]).reshape(len(of), -1).all(axis=1))
            tensors[f"{split}_images"] = stacked(images.reshape(len(of), -1, *images.shape[1:])[whole])
            left[split] = [of[i] for i in whole]
            tensors[f"{split}_labels"] = as_labels([clip.label for clip in left[split]], len(listing.class_names))
        judge(sorted({*bad}), Listing(listing.class_names, frames["train"], frames["test"], ""), left, config.skip_bad)
        count = repeated(*(map(hash_image, tensors[f"{split}_images"]) for split in ("train", "test")))
        if count:
            print(f"{count:,} of {len(left['test']):,} test clips also occur in training, pixel by pixel", flush=True)
        mean, std = self._constants(tensors["train_images"])
        selection = {k: v for k, v in self.selection().items() if k not in ("test", "test_fraction")}
        gone = sum(map(len, clips.values())) - sum(map(len, left.values()))
        selection |= {"tested": listing.tested, "left_out": gone, "repeated": count}
        return Arrays(tensors, listing.class_names, 255.0, mean, std, selection)

    def _constants(self, clips: Bytes) -> tuple[list[float], list[float]]:
        """What each channel is normalised with: what is given for each colour, else of the training clips."""
        mean, std, frames = self.config.mean, self.config.std, self.config.frames
        return constants_of(clips, frames) if mean is None or std is None else ([*mean] * frames, [*std] * frames)


def list_clips(folder: Path, root: Path) -> Listing:
    """List the clips of a folder of class folders; all count as training clips.

    Raises DistilleryError if there are video files, if a frame is there twice, if an image lies in no clip's folder or
    a clip has one frame only, and as `list_classes` does.
    """
    videos = [file.name for file in walk(folder, []) if Path(file.name).suffix.lower() in VIDEOS]
    if videos:
        raise DistilleryError(
            f"{folder} holds video files, {some(videos)}: make a folder of frames of each, for instance by "
            "`ffmpeg -i clip.mp4 clip/%05d.jpg`, and take the videos out"
        )
    found = list_classes(folder, root)
    lengths: dict[tuple[str, str, int], int] = defaultdict(int)
    stems = Counter(photo.name.rpartition(".")[0] for photo in found.train)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise DistilleryError(f"{some(twice)} in {root}: a frame is there in two formats: keep one of them")
    for photo in found.train:
        lengths[str(Path(photo.path).parent), photo.name.rpartition("/")[0], photo.label] += 1
    classes = len(folder.relative_to(root).parts) + 1
    if loose := [name for _, name, _ in lengths if len(name.split("/")) == classes]:
        raise DistilleryError(
            f"{some(loose)} in {root}: its images lie in no clip: make a folder for each clip's frames"
        )
    if short := [name for (_, name, _), length in lengths.items() if length < 2]:
        raise DistilleryError(f"{some(short)} in {root}: a clip of one frame shows no motion: add frames, or remove it")
    clips = sorted((Photo(*clip) for clip in lengths), key=lambda clip: (clip.label, clip.name, clip.path))
    return Listing(found.class_names, clips, [], "none", found.left_out)


def taken(clip: Photo, count: int) -> list[Photo]:
    """The frames of a clip that are read, in order; what lies in its sub-folders is of other clips."""
    with os.scandir(clip.path) as entries:
        names = [entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")]
    names = sorted((name for name in names if name.lower().endswith(SUFFIXES)), key=_by_number)
    files = [Photo(f"{clip.path}/{name}", f"{clip.name}/{name}", clip.label) for name in names]
    return [files[i] for i in positions(len(files), count)]


def positions(length: int, count: int) -> list[int]:
    """Where the middles of `count` equal parts of a clip of `length` frames are: floor((i + 1/2) * length / count)."""
    return [(2 * i + 1) * length // (2 * count) for i in range(count)]


def _by_number(name: str) -> tuple[list[str | int], str]:
    """A key that puts frame_2.png before frame_10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name
