"""Clips: moving digits by their rule, folders of frames, and one sentence for whatever is wrong with either."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_images import drawn, save
from PIL import Image

from distillery.data import open_source, prepare
from distillery.data.arrays import Arrays, Bytes, Shape
from distillery.data.clips import stacked
from distillery.data.dataset import Dataset
from distillery.data.digits import Digits
from distillery.data.frames import positions
from distillery.data.moving_digits import DIRECTIONS
from distillery.data.pictures import decode
from distillery.errors import DistilleryError
from distillery.pipeline import check
from distillery.records.io import sha256_array
from distillery.task import task_of

NOISY = {"train": 400, "test": 48, "noise": 0.4, "frames": 5}


@cache
def digits(**options: Any) -> Arrays:
    return open_source("moving_digits", NOISY | options).load()


def motion(clip: Bytes) -> int:
    """The direction that takes every frame of an (H, W, T) clip to the next one."""
    pairs = [(clip[..., t], clip[..., t + 1]) for t in range(clip.shape[2] - 1)]
    found = [
        i for i, step in enumerate(DIRECTIONS.values()) if all((np.roll(a, step, (0, 1)) == b).all() for a, b in pairs)
    ]
    assert len(found) == 1
    return found[0]


def glyphs(clip: Bytes) -> set[bytes]:
    """What 8 x 8 pixels the first frame may show, wherever on the ring they begin."""
    rolled = (np.roll(clip[..., 0], (-y, -x), (0, 1)) for y in range(16) for x in range(16))
    return {r[:8, :8].tobytes() for r in rolled if not r[8:].any() and not r[:, 8:].any()}


def test_digits_move_as_their_labels_say_but_for_the_noise() -> None:
    tensors = digits().tensors
    assert sorted(tensors) == ["test_images", "test_labels", "train_images", "train_labels"]
    truth = np.array([motion(clip) for clip in tensors["test_images"]])
    assert np.array_equal(truth, tensors["test_labels"]) and np.bincount(truth).tolist() == [6] * 8
    truth, given = np.array([motion(clip) for clip in tensors["train_images"]]), tensors["train_labels"].astype(int)
    assert np.bincount(truth).tolist() == [50] * 8
    wrong = truth != given
    assert wrong.sum() == 160
    assert np.bincount((given - truth)[wrong] % 8, minlength=8)[1:].min() > 10  # any other class alike
    # The order tells nothing about the truth: rows are sorted by the label they have, and wrong ones lie among them.
    assert (np.diff(given) >= 0).all() and np.diff(wrong.astype(int)).astype(bool).sum() > 100


def test_no_glyph_is_in_training_and_test() -> None:
    scans = Digits().load().tensors
    halves = {
        split: {np.rint(g[..., 0] * (255 / 16)).astype(np.uint8).tobytes() for g in scans[f"{split}_images"]}
        for split in ("train", "test")
    }
    assert not halves["train"] & halves["test"]
    for split, other in (("train", "test"), ("test", "train")):
        shown = [glyphs(clip) for clip in digits().tensors[f"{split}_images"][::6]]
        assert all(g & halves[split] and not g & halves[other] for g in shown)


def test_moving_digits_are_drawn_by_seed_and_keep_one_normalisation_for_all_frames() -> None:
    same = open_source("moving_digits", NOISY).load()
    hashes = [sha256_array(a.tensors["train_images"]) for a in (digits(), same, digits(seed=1))]
    assert hashes[0] == hashes[1] != hashes[2]
    clean = digits(noise=0.0)
    pixels = clean.tensors["train_images"] / 255
    assert clean.mean == [pytest.approx(pixels.mean(), abs=1e-4)] * 5
    assert clean.std == [pytest.approx(pixels.std(), abs=1e-4)] * 5
    grain = digits(grain=40.0).tensors["train_images"].astype(int) - digits().tensors["train_images"]
    assert 20 < grain.std() < 40 and grain.min() < -40 < 40 < grain.max()  # half of what falls on black is cut off
    assert open_source("moving_digits", NOISY).shape() == Shape(5, 16, 16, 8, 400, 48)


STUDY: dict[str, Any] = {
    "study": "clips",
    "data": {"source": "moving_digits", "train": 64, "test": 32},
    "recipe": {"epochs": 1, "batch_size": 32, "milestones": [], "augmentation": {"pad": 1, "flip": False}},
    "teachers": {"t": {"architecture": "resnet3d_8_w4"}},
    "pairs": {"t-s": {"teacher": "t", "student": "resnet3d_8_w2"}},
    "methods": {"alone": {"objective": "ce"}, "staged": {"objective": "staged"}},
    "seeds": [0],
    "tables": {"baseline": "alone"},
}


def problems(**changed: Any) -> list[str]:
    study = check.check(STUDY | changed)
    found: list[str] = task_of(study.task).part("rehearsal")(study, True)
    return found


def test_what_cannot_be_is_refused() -> None:
    assert problems() == []
    (said,) = problems(recipe=STUDY["recipe"] | {"augmentation": {"pad": 1, "flip": True}})
    assert "augmentation.flip: mirrored, moving_digits show another class" in said
    said = problems(teachers={"t": {"architecture": "resnet3d_8_w4_rgb"}})[0]
    assert "clips of 3 channels a frame, and the data has 8 channels" in said
    for options, why in (({"train": 4}, "8 clips or more"), ({"noise": 1}, "data.noise"), ({"frames": 1}, "frames")):
        with pytest.raises(DistilleryError, match=why):
            open_source("moving_digits", options)


# --- folders of frames


def clip(folder: Path, length: int, seed: int, warm: bool) -> None:
    for i in range(length):
        save(drawn(seed + i, 20, 24, warm), folder / f"frame_{i + 1}.png")


def clips(root: Path, each: int = 3, splits: tuple[str, ...] = ("",)) -> Path:
    """Clips of 3, 11, 8 frames, in classes `cool` and `warm`, in every split."""
    for s, split in enumerate(splits):
        for warm in (False, True):
            for i in range(each):
                folder = root / split / ("warm" if warm else "cool") / f"clip{i}"
                clip(folder, (3, 11, 8)[i % 3], 1000 * s + 100 * i, warm)
    return root


def made(root: Path, **options: Any) -> tuple[dict[str, Any], Dataset]:
    path = root.parent / "arrays.safetensors"
    facts = prepare("frames", {"root": str(root), "size": 12, "frames": 4} | options, path)
    return facts, Dataset.load(path, verify=True)


def test_positions_are_the_middles_of_equal_parts() -> None:
    assert positions(8, 8) == [*range(8)]
    assert positions(16, 8) == [1, 3, 5, 7, 9, 11, 13, 15]
    assert positions(11, 4) == [1, 4, 6, 9]
    assert positions(3, 4) == [0, 1, 1, 2]


def test_folders_of_frames_become_clips(tmp_path: Path) -> None:
    root = clips(tmp_path / "clips", splits=("train", "test"))
    facts, data = made(root)
    assert facts["counts"] == {"train": 6, "test": 6} and facts["shape"] == [12, 12, 12]
    assert facts["class_names"] == ["cool", "warm"] and facts["selection"]["tested"] == "the folder test"
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.mean == data.mean[:3] * 4 and data.std == data.std[:3] * 4
    for row, place in ((1, "train/cool/clip1"), (4, "train/warm/clip1")):  # eleven frames: 2 comes before 10
        for t, number in enumerate((2, 5, 7, 10)):
            frame = decode((root / place / f"frame_{number}.png").read_bytes(), (12, 12))
            assert np.array_equal(data.train_images[row, 3 * t : 3 * t + 3].permute(1, 2, 0), frame)
    grey = open_source("frames", {"root": str(root), "size": 12, "frames": 4, "channels": 1})
    assert grey.shape() == Shape(4, 12, 12, 2, 6, 6)
    assert grey.load().tensors["test_images"].shape == (6, 12, 12, 4)


def test_without_a_test_folder_whole_clips_are_tested(tmp_path: Path) -> None:
    root = clips(tmp_path / "clips", each=6)
    source = open_source("frames", {"root": str(root), "test_fraction": 0.5})
    listing = source.listing()  # type: ignore[attr-defined]
    names = [{photo.name for photo in split} for split in (listing.train, listing.test)]
    assert [len(n) for n in names] == [6, 6] and not names[0] & names[1]
    assert source.shape() == Shape(24, 64, 64, 2, 6, 6)


def test_whatever_is_wrong_with_frames_is_said(tmp_path: Path) -> None:
    root = clips(tmp_path / "clips")

    def refused(match: str, **options: Any) -> None:
        with pytest.raises(DistilleryError, match=match) as caught:
            made(root, **options)
        assert "\n" not in str(caught.value)

    (bad := root / "cool" / "clip2" / "frame_2.png").write_bytes(b"no picture")
    refused("1 of 24 files is no readable image: cool/clip2/frame_2.png", frames=4)
    facts, data = made(root, frames=4, skip_bad=True)
    assert facts["selection"]["left_out"] == 1 and len(data.train_labels) + len(data.test_labels) == 5
    bad.unlink()
    save(Image.new("RGB", (9, 9)), root / "warm" / "clip1" / "frame_2.bmp")
    refused("warm/clip1/frame_2 in .*clips: a frame is there in two formats", frames=4)
    (root / "warm" / "clip1" / "frame_2.bmp").unlink()
    save(Image.new("RGB", (9, 9)), root / "warm" / "loose.png")
    refused("warm in .*clips: its images lie in no clip")
    (root / "warm" / "loose.png").unlink()
    save(Image.new("RGB", (9, 9)), root / "warm" / "still" / "1.png")
    refused("warm/still in .*clips: a clip of one frame shows no motion")
    (root / "warm" / "still" / "1.png").unlink()
    (root / "warm" / "run.MP4").write_bytes(b"video")
    refused("holds video files, warm/run.MP4: make a folder of frames of each, for instance by `ffmpeg")
    (root / "warm" / "run.MP4").unlink()
    refused("frames", frames=1)
    refused("give 3 numbers each", mean=[0.5], std=[0.5])
    with pytest.raises(DistilleryError, match=r"the folder .*none does not exist"):
        open_source("frames", {"root": str(tmp_path / "none")}).shape()


def test_frames_lie_behind_one_another() -> None:
    frames = np.arange(2 * 3 * 4 * 5 * 2, dtype=np.uint8).reshape(2, 3, 4, 5, 2)
    assert np.array_equal(stacked(frames)[1, 2, 3], frames[1, :, 2, 3].ravel())
