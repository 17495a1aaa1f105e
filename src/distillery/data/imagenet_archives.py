"""The archives of ILSVRC 2012: where in them the bytes of every image are, and which class each belongs to.

The training archive is a tar of tars, one for each class; the validation archive is a tar of images, whose classes are
in the development kit. None is compressed but the last, so an image is a range of bytes of an archive: it is read from
there, and no member is ever written to the disk under a name that an archive chose.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distillery.data.listing import Listing, Photo
from distillery.errors import DistilleryError
from distillery.errors.words import some

TRAIN, VALIDATION, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_WNID = re.compile(r"n\d{8}")
_NUMBER = re.compile(r"_(\d{8})\.JPEG$")
_END = 1024  # bytes
_CHUNK = 1 << 20  # bytes that are looked through at once
_LARGEST = 1 << 26  # bytes of a file of the development kit


def list_train(archive: Path) -> Listing:
    """List the tar of tars. Raises DistilleryError if it is not one, or cut short."""
    photos, wnids = list[Photo](), set[str]()
    with _opened(archive) as (file, outer):
        for member in outer:
            if member.isdir():
                continue
            wnid = Path(member.name).name.removesuffix(".tar")
            if not (member.isfile() and member.name.endswith(".tar") and _WNID.fullmatch(wnid)):
                raise DistilleryError(f"{archive} holds {member.name!r}, which is no archive of a class: {_AGAIN}")
            if wnid in wnids:
                raise DistilleryError(f"{archive} holds the class {wnid} twice: {_AGAIN}")
            wnids.add(wnid)
            with tarfile.open(fileobj=_Part(file, member.offset_data, member.size), mode="r:") as inner:
                for image in _images(inner, archive):
                    at = member.offset_data + image.offset_data
                    photos.append(Photo(str(archive), f"train/{wnid}/{Path(image.name).name}", 0, at, image.size))
            start = member.offset_data + inner.offset
            _see_the_end(file, start, member.offset_data + member.size, f"{archive} (class {wnid})")
    names = sorted(wnids)
    labels = {wnid: i for i, wnid in enumerate(names)}
    photos = [photo._replace(label=labels[photo.name.split("/")[1]]) for photo in photos]
    if empty := sorted(wnids - {photo.name.split("/")[1] for photo in photos}):
        raise DistilleryError(f"{archive} holds no image of {some(empty)}: {_AGAIN}")
    return Listing(names, _ordered(photos), [], "")


def list_validation(archive: Path, devkit: Path, wnids: list[str]) -> Listing:
    """List the validation archive, with the classes of the development kit; only of those in `wnids`."""
    if not archive.exists():
        raise DistilleryError(f"{archive} is missing beside {TRAIN}: put it there")
    with _opened(archive) as (_, tar):
        photos = [
            Photo(str(archive), f"val/{Path(image.name).name}", 0, image.offset_data, image.size)
            for image in _images(tar, archive)
        ]
    return labelled(photos, devkit, wnids)


def labelled(photos: list[Photo], devkit: Path, wnids: list[str]) -> Listing:
    """Give validation images, which have a number in their names, the classes that the development kit says.

    Images of classes that are not in `wnids` are left out: the training images may be a part.
    """
    truth = _truth(devkit)
    labels, found = {wnid: i for i, wnid in enumerate(wnids)}, []
    for photo in photos:
        match = _NUMBER.search(photo.name)
        number = int(match[1]) if match else 0
        if not 1 <= number <= len(truth):
            raise DistilleryError(f"{photo.name} is none of the {len(truth):,} images that {devkit} knows: {_AGAIN}")
        if (wnid := truth[number - 1]) in labels:
            found.append(photo._replace(label=labels[wnid]))
    there = {photo.label for photo in found}
    return Listing([wnid for i, wnid in enumerate(wnids) if i in there], _ordered(found), [], "")


def _truth(devkit: Path) -> list[str]:
    """WordNet ids of the validation images, in the order of their numbers."""
    from scipy.io import loadmat

    if not devkit.exists():
        raise DistilleryError(f"{devkit} is missing: put the development kit there, which says the validation classes")
    files: dict[str, bytes] = {}
    with _reading(devkit), tarfile.open(devkit, "r:*") as tar:
        for member in tar:
            name = Path(member.name).name
            if name in (_TRUTH, _META) and member.isfile() and member.size <= _LARGEST:
                opened = tar.extractfile(member)
                files[name] = opened.read() if opened else b""
    if absent := [name for name in (_TRUTH, _META) if name not in files]:
        raise DistilleryError(f"{devkit} holds no {absent[0]}: {_AGAIN}")
    try:
        synsets: Any = loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
        ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        return [ids[int(line)] for line in files[_TRUTH].split()]
    except Exception as error:  # whatever scipy raises on damaged files
        raise DistilleryError(f"{devkit} is damaged ({type(error).__name__}: {error}): {_AGAIN}") from None


_AGAIN = "download it again"


class _Part(io.RawIOBase):
    """A range of bytes of an open file, as a file for tarfile to read."""

    def __init__(self, file: io.BufferedReader, start: int, size: int) -> None:
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def read(self, count: int = -1) -> bytes:
        left = max(0, self.size - self.at)
        self.file.seek(self.start + self.at)
        content = self.file.read(left if count < 0 else min(count, left))
        self.at += len(content)
        return content


def _images(tar: tarfile.TarFile, archive: Path) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if member.isdir():
            continue
        if not (member.isreg() and not member.issparse() and member.name.endswith(".JPEG")):
            raise DistilleryError(f"{archive} holds {member.name!r}, which is no image: {_AGAIN}")
        yield member


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[io.BufferedReader, tarfile.TarFile]]:
    """An uncompressed archive, as a file and as a tar to be read through; no whole tar is refused on leaving."""
    with _reading(archive), archive.open("rb") as file:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield file, tar
        _see_the_end(file, tar.offset, archive.stat().st_size, str(archive))


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, EOFError) as error:
        said = " ".join(str(error).split())
        raise DistilleryError(f"{archive} is no whole archive ({said}): {_AGAIN}") from None


def _see_the_end(file: io.BufferedReader, start: int, end: int, name: str) -> None:
    """Raise DistilleryError unless zeros alone, two blocks or more, follow the last member, which ends at `start`.

    tarfile does without them, and takes a damaged header or a hole of zeros for the end.
    """
    if end - start < _END:
        raise DistilleryError(f"{name} is cut short: {_AGAIN}")
    file.seek(start)
    for at in range(start, end, _CHUNK):
        if file.read(min(_CHUNK, end - at)).strip(b"\0"):
            raise DistilleryError(f"{name} is damaged at byte {start:,}, and more follows: {_AGAIN}")


def _ordered(photos: list[Photo]) -> list[Photo]:
    return sorted(photos, key=lambda photo: (photo.label, photo.name))
