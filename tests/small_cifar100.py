"""A small CIFAR-100 in both official formats: 300 training and 60 test images of 6 classes, in scrambled order."""

from __future__ import annotations

import hashlib
import io
import json
import pickletools
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

NAMES = ("apple", "bear", "castle", "dolphin", "elephant", "forest")


def _drawn(rng: np.random.Generator, each: int) -> dict[str, Any]:
    n = 6 * each
    return {
        "images": rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        "labels": rng.permutation(np.repeat(np.arange(6), each)),
        "coarse": rng.integers(0, 3, n),
        # Unequal lengths, capitals and digits: an order that only comparing bytes gets right.
        "filenames": [f"{rng.choice(['a', 'B', 'a_b', 'ab'])}_s_{i:06d}.png" for i in rng.permutation(n)],
    }


def _canonical_hashes() -> dict[str, str]:
    hashes = {}
    for split, rows in SPLITS.items():
        order = sorted(range(len(rows["labels"])), key=lambda i: (rows["labels"][i], rows["filenames"][i].encode()))
        for key in ("images", "labels", "coarse"):
            array = np.asarray(rows[key], dtype=np.uint8)[order]
            hashes[f"{split}_{key}"] = hashlib.sha256(array.tobytes()).hexdigest()
    return hashes


_RNG = np.random.default_rng(0)
SPLITS = {"train": _drawn(_RNG, 50), "test": _drawn(_RNG, 10)}
OPTIONS: dict[str, Any] = {"sha256": _canonical_hashes()}  # what describes it to the data source


def write_mirror(folder: Path) -> Path:
    folder.mkdir()
    for split, rows in SPLITS.items():
        for part in (0, 1) if split == "train" else (slice(None),):
            keep = part if isinstance(part, slice) else np.flatnonzero(rows["labels"] // 3 == part)
            name = "test.npz" if split == "test" else f"train_classes_{part}.npz"
            np.savez(
                folder / name,
                images=rows["images"][keep],
                fine_labels=rows["labels"][keep].astype(np.uint8),
                coarse_labels=rows["coarse"][keep].astype(np.uint8),
                filenames=np.array(rows["filenames"], dtype="S")[keep],
            )
    (folder / "cifar100_labels.json").write_text(json.dumps({"fine_label_names": NAMES}))
    return folder


def write_archive(file: Path, **replaced: bytes) -> dict[str, str]:
    """Write an archive in the official format; return the md5 sums."""
    content = files(SPLITS, NAMES) | replaced
    with tarfile.open(file, "w:gz") as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name if name.startswith("..") else f"cifar-100-python/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    md5 = {name: hashlib.md5(data).hexdigest() for name, data in content.items()}
    return md5 | {"archive": hashlib.md5(file.read_bytes()).hexdigest()}


def files(splits: dict[str, Any], names: Sequence[str]) -> dict[str, bytes]:
    """The three files of the official archive."""
    content = {
        split: python2_pickle(
            {
                "filenames": rows["filenames"],
                "batch_label": f"{split}ing batch 1 of 1",
                "fine_labels": rows["labels"].tolist(),
                "coarse_labels": rows["coarse"].tolist(),
                "data": rows["images"].transpose(0, 3, 1, 2).reshape(-1, 3072),
            }
        )
        for split, rows in splits.items()
    }
    return content | {"meta": python2_pickle({"fine_label_names": list(names), "coarse_label_names": list("xyz")})}


def write_folder(folder: Path, **replaced: bytes) -> Path:
    """Write the extracted folder of the official archive."""
    folder.mkdir(parents=True)
    for name, data in (files(SPLITS, NAMES) | replaced).items():
        (folder / name).write_bytes(data)
    return folder


def python2_pickle(obj: Any) -> bytes:
    """Pickle as Python 2 did for the official files: protocol 2, byte strings, numpy's old module names."""

    def emit(x: Any) -> bytes:
        if isinstance(x, str):
            return b"U" + bytes([len(x)]) + x.encode()
        if isinstance(x, int):
            return b"J" + struct.pack("<i", x)
        if isinstance(x, list):
            return b"](" + b"".join(map(emit, x)) + b"e"
        if isinstance(x, dict):
            return b"}(" + b"".join(emit(k) + emit(v) for k, v in x.items()) + b"u"
        dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        raw = b"T" + struct.pack("<i", x.nbytes) + x.tobytes()
        shape = b"".join(map(emit, x.shape))
        head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        return head + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + raw + b"tb"

    data = b"\x80\x02" + emit(obj) + b"."
    pickletools.dis(data, out=io.StringIO())  # raises if it is not a pickle
    return data


class Evil:
    """Touches a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("evil"),))
