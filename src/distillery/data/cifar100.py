"""CIFAR-100 (Krizhevsky, 2009): 50,000 + 10,000 colour images of 32x32, 100 classes, from an archive or a local mirror.

Either way the rows are sorted by (fine label, official file name), so both give the same bytes and the same hashes,
which are built in below.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from distillery import settings
from distillery.config import Config
from distillery.data.arrays import Arrays, Shape, Source
from distillery.records.io import DistilleryError, sha256_array

MIRROR_VARIABLE = settings.CIFAR100

# The field's protocol (mdistiller and RepDistiller lineages), in units of 255.
MEAN = [0.5071, 0.4867, 0.4408]
STD = [0.2675, 0.2565, 0.2761]

# sha256 of the raw bytes of the canonical arrays, in C order.
SHA256 = {
    "train_images": "2aa2e92a742ec0fbd361b0b1386394899dfac5a05c448330d3371fd9b63b3e87",
    "train_labels": "24e451cae1d0bb4af05bb556f43f7442043340bdc64d9e1896c2ad19efa810d1",
    "train_coarse": "0a1c20789b0ca58c74a571ab4b81032a177c0ad1dce9af08b818cb933aebfec3",
    "test_images": "2716d826d85ee9ca7f948fb4dc3b3d7515225d1a436d1c4b7e6975855da3d9ee",
    "test_labels": "7335f3ca04ad4876c5479947470a13b869b8fe2143b1077bb51b95a0c23892b1",
    "test_coarse": "ec767882fa772b8151c635fbc960deee46f5a8b971c422579fe770c28c70e8a0",
}

_FIELDS = {"images": "images", "fine_labels": "labels", "coarse_labels": "coarse"}  # names in a mirror -> canonical
Split = dict[str, np.ndarray]  # images, labels, coarse and filenames of one split


class Subset(Config):
    """A part for quick studies: the first classes of the alphabet, and of each the images whose names hash lowest."""

    classes: Annotated[int, Field(ge=2, le=100)] | None = None
    """So many of them."""
    train_per_class: Annotated[int, Field(ge=1, le=500)] | None = None
    test_per_class: Annotated[int, Field(ge=1, le=100)] | None = None


class CIFAR100(Source):
    """Read CIFAR-100 from where it lies, if that is named, else download the official archive."""

    class Config(Source.Config):
        mirror: str | None = None
        """Where it lies: the official archive cifar-100-python.tar.gz, the folder cifar-100-python in it, a folder that
        holds one of these, or a lossless mirror (train_classes_*.npz, test.npz and cifar100_labels.json). The
        environment variable DISTILLERY_CIFAR100 names it too."""
        download_dir: str | None = None
        """Where the archive is kept; default ~/.cache/distillery."""
        subset: Subset | None = None
        url: str | None = None
        """Another address of the archive."""
        md5: dict[str, str] | None = None
        """Sums of another archive: {archive, train, test, meta}."""
        sha256: dict[str, str] | None = None
        """Hashes of the canonical arrays, where they are not the official ones."""

    config: Config

    def selection(self) -> dict[str, Any]:
        return {key: value for key, value in self.config.effective().items() if key in ("subset", "sha256")}

    def files(self) -> list[Path]:
        return [Path(self.config.mirror).expanduser()] if self.config.mirror else []

    def shape(self) -> Shape | None:
        subset = self.config.subset or Subset()
        classes = subset.classes or 100
        return None if self.config.sha256 else Shape(3, 32, 32, classes, classes * (subset.train_per_class or 500))

    def load(self) -> Arrays:
        return load(self.config.model_dump(exclude_none=True))


def load(options: dict[str, Any]) -> Arrays:
    """Read CIFAR-100 by the options of `CIFAR100.Config`."""
    mirror = options.get("mirror") or settings.cifar100()
    if mirror:
        splits, names, origin = *_read_local(Path(mirror).expanduser()), str(mirror)
    else:
        from distillery.data import cifar_archive  # it needs torchvision

        splits, names, origin = *cifar_archive.read_archive(cifar_archive.CIFAR100, options), "the downloaded archive"
    splits = {split: _sort(rows) for split, rows in splits.items()}
    _check(_tensors(splits), {**SHA256, **(options.get("sha256") or {})}, origin)
    subset = options.get("subset") or {}
    if subset:
        splits, names = _take_subset(splits, names, subset)
    return Arrays(_tensors(splits), names, 255.0, MEAN, STD, {"subset": subset} if subset else {})


def _read_local(path: Path) -> tuple[dict[str, Split], list[str]]:
    if any(path.glob("train_classes_*.npz")):
        return _read_mirror(path)
    from distillery.data import cifar_archive

    if found := cifar_archive.find_local(cifar_archive.CIFAR100, path):
        return cifar_archive.read_local(cifar_archive.CIFAR100, found)
    problem = f"{path} does not exist"
    if path.exists():
        problem = (
            f"{path} holds no train_classes_*.npz: it is no CIFAR-100 mirror, nor is it the official "
            "cifar-100-python.tar.gz or its extracted folder"
        )
    raise DistilleryError(f"{problem}; correct `data.mirror` or the environment variable {MIRROR_VARIABLE}")


def _read_mirror(folder: Path) -> tuple[dict[str, Split], list[str]]:
    parts = {"train": sorted(folder.glob("train_classes_*.npz")), "test": [folder / "test.npz"]}
    labels = folder / "cifar100_labels.json"
    try:
        names = json.loads(labels.read_text())["fine_label_names"]
    except (OSError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _bad_mirror(labels, error) from error
    splits = {}
    for split, files in parts.items():
        pieces = [read_npz(file, (*_FIELDS, "filenames")) for file in files]
        splits[split] = {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
    return splits, names


def read_npz(file: Path, keys: Iterable[str], name: str = "CIFAR-100") -> Split:
    """Read the arrays of a mirror's file by our names. Raises DistilleryError if one is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return {_FIELDS.get(key, key): content[key] for key in keys}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, lzma.LZMAError) as error:
        raise _bad_mirror(file, error, name) from error


def _bad_mirror(file: Path, error: Exception, name: str = "CIFAR-100") -> DistilleryError:
    reason = "it is missing" if isinstance(error, FileNotFoundError) else f"it is damaged or cut short: {error}"
    return DistilleryError(f"cannot read {file} of the {name} mirror ({reason}); copy the mirror again")


def _sort(rows: Split) -> Split:
    """Bring the rows into canonical order: by fine label, then by official file name (as bytes)."""
    order = np.lexsort((rows["filenames"], rows["labels"]))
    return {key: np.ascontiguousarray(array[order]) for key, array in rows.items()}


def _tensors(splits: dict[str, Split]) -> dict[str, np.ndarray]:
    return {f"{split}_{key}": rows[key] for split, rows in splits.items() for key in _FIELDS.values()}


def _check(tensors: dict[str, np.ndarray], expected: dict[str, str], origin: str) -> None:
    for name, array in tensors.items():
        found = sha256_array(array)
        if found != expected[name]:
            raise DistilleryError(
                f"{origin} is not the official CIFAR-100: {name} has {len(array)} rows and sha256 {found[:12]}..., "
                f"not {expected[name][:12]}...; fetch it again"
            )


def _take_subset(
    splits: dict[str, Split], names: list[str], subset: dict[str, int]
) -> tuple[dict[str, Split], list[str]]:
    known = ("classes", "train_per_class", "test_per_class")
    for key, value in subset.items() if isinstance(subset, dict) else [("", subset)]:
        if key not in known or not isinstance(value, int) or value < 1:
            raise DistilleryError(
                f"data.subset{key and '.'}{key} is {value!r}; give whole numbers for {', '.join(known)}"
            )
    if subset.get("classes", 1) > len(names):
        raise DistilleryError(f"data.subset.classes is {subset['classes']}, but there are {len(names)} classes")
    names = names[: subset.get("classes")]
    chosen = {}
    for split, rows in splits.items():
        wanted = subset.get(f"{split}_per_class")
        fewest = np.bincount(rows["labels"])[: len(names)].min()
        if wanted is not None and wanted > fewest:
            raise DistilleryError(
                f"data.subset.{split}_per_class is {wanted}, but there are {fewest} images of a class"
            )
        # Not the first file names: images found by the same search word sort together.
        rank = [hashlib.sha256(name).digest() for name in rows["filenames"].tolist()]
        keep: list[int] = []
        for label in range(len(names)):
            members = np.flatnonzero(rows["labels"] == label).tolist()
            keep += sorted(sorted(members, key=rank.__getitem__)[:wanted])
        chosen[split] = {key: array[keep] for key, array in rows.items()}
    return chosen, names
