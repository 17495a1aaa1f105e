"""A blob: the encoded image files of a data set, byte for byte, one after the other in one file; and the index to it.

Images are in canonical order: training images, then test images, each sorted by label and name. What is read at random
is then one file instead of a million. Every image is decoded once before it is let in, so that training
meets none that cannot be.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillery import settings
from distillery.data.arrays import Bytes
from distillery.data.listing import Photo
from distillery.errors import StaleInput
from distillery.records.io import atomic_path

PLAIN, UPRIGHT, AS_IS = 0, 1, 2  # ways to decode: as any decoder does; by `pictures.whole`, upright or as it is
AHEAD = 4  # images that each thread may be ahead of the writing: what bounds the memory
_PROBES = 16  # images whose hashes are compared when a blob is opened


class Examined(NamedTuple):
    """A readable image: its bytes, its size in pixels after decoding, how to decode it, its hash, its counted values.

    `counts` are those of `pixels.count_values` in the evaluation's view, for the constants of normalisation.
    """

    content: bytes
    height: int
    width: int
    way: int
    sha256: bytes
    counts: NDArray[np.int64] | None


@dataclass
class Written:
    """What is known about the images of one split that were written: index columns, the images, and the bad ones.

    Attributes:
        photos: the images that are in, in order.
        bad: "name (why)" of those that are not.
        counts: how often each value occurs, (3, 256); zeros if not counted.
    """

    offset: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    height: list[int] = field(default_factory=list)
    width: list[int] = field(default_factory=list)
    way: list[int] = field(default_factory=list)
    sha256: list[bytes] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), dtype=np.int64))

    def columns(self) -> dict[str, NDArray[Any]]:
        """The index but for the labels: offsets int64, (N, 32) uint8 hashes, names as UTF-8 text that NULs separate."""
        names = "\0".join(photo.name for photo in self.photos).encode()
        return {
            "offset": np.array(self.offset, dtype=np.int64),
            "length": np.array(self.length, dtype=np.int32),
            "height": np.array(self.height, dtype=np.int32),
            "width": np.array(self.width, dtype=np.int32),
            "way": np.array(self.way, dtype=np.uint8),
            "sha256": np.frombuffer(b"".join(self.sha256), dtype=np.uint8).reshape(-1, 32),
            "names": np.frombuffer(names, dtype=np.uint8),
        }


def read_photo(photo: Photo) -> bytes:
    """Read an image file, or the part of an archive that is one."""
    if photo.length is None:
        return Path(photo.path).read_bytes()
    with Path(photo.path).open("rb") as file:
        file.seek(photo.offset)
        content = file.read(photo.length)
    if len(content) < photo.length:
        raise OSError(0, "the archive is cut short")
    return content


def examine(
    photo: Photo,
    upright: bool,
    counted: tuple[int, int] | None = None,
    read: Callable[[Photo], bytes] = read_photo,
) -> Examined | str:
    """Read and decode one image; return what is known of it, or in one clause why it cannot be used.

    Args:
        upright: see `pictures.whole`.
        counted: the height and width in which its values are counted, if they are.
        read: what gives its bytes.
    """
    from distillery.data.pictures import MAX_RATIO, Unreadable, crop, is_plain, whole  # Pillow
    from distillery.data.pixels import count_values

    try:
        content = read(photo)
        image = whole(content, upright)
        if max(image.size) > MAX_RATIO * min(image.size):
            raise Unreadable(f"it is {image.width} x {image.height}, too narrow to be cropped")
        counts = count_values(np.asarray(crop(image, counted))) if counted else None
    except Unreadable as error:
        return str(error)
    except OSError as error:
        return "a link that leads nowhere" if Path(photo.path).is_symlink() else str(error.strerror)
    way = PLAIN if is_plain(content, upright) else UPRIGHT if upright else AS_IS
    return Examined(content, image.height, image.width, way, hashlib.sha256(content).digest(), counts)


def write_blob(
    path: Path,
    splits: dict[str, list[Photo]],
    upright: bool,
    counted: tuple[int, int] | None = None,
    report: Callable[[str, int, int], None] | None = None,
    judge: Callable[[dict[str, Written]], None] | None = None,
    read: Callable[[Photo], bytes] = read_photo,
) -> tuple[dict[str, Written], str, int]:
    """Write the images of some splits; return what each split holds, and the sha256 and size in bytes of the blob.

    Atomic: the blob gets its name when it is whole. Images that cannot be read are left out and named in `Written.bad`;
    `judge`, called before the blob gets its name, may raise because of them.

    Args:
        counted: count the values of the training images in a view of this height and width.
        report: is told (split, images done, images).
        read: what gives the bytes of an image.
    """
    from distillery.data.pictures import quietly

    digest, end, written = hashlib.sha256(), 0, {split: Written() for split in splits}
    threads = settings.threads()
    with atomic_path(path) as temporary, temporary.open("wb") as file, quietly(), ThreadPoolExecutor(threads) as pool:
        for split, photos in splits.items():
            into, size = written[split], counted if split == "train" else None

            def look(photo: Photo, size: tuple[int, int] | None = size) -> Examined | str:
                return examine(photo, upright, size, read)

            for done, (photo, found) in enumerate(in_order(pool, look, photos, AHEAD * threads), 1):
                if isinstance(found, str):
                    into.bad.append(f"{photo.name} ({found})")
                else:
                    file.write(found.content)
                    digest.update(found.content)
                    into.offset.append(end)
                    into.length.append(len(found.content))
                    into.height.append(found.height)
                    into.width.append(found.width)
                    into.way.append(found.way)
                    into.sha256.append(found.sha256)
                    into.photos.append(photo)
                    into.counts += 0 if found.counts is None else found.counts
                    end += len(found.content)
                if report:
                    report(split, done, len(photos))
        if judge:
            judge(written)
        file.flush()
    return written, digest.hexdigest(), end


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Photo], Examined | str], photos: Iterable[Photo], ahead: int
) -> Iterator[tuple[Photo, Examined | str]]:
    """Like `pool.map`, with the items, but at most `ahead` results wait: `map` would keep all of them in memory."""
    waiting: deque[tuple[Photo, Future[Examined | str]]] = deque()
    for photo in photos:
        waiting.append((photo, pool.submit(work, photo)))
        if len(waiting) > ahead:
            first, future = waiting.popleft()
            yield first, future.result()
    for first, future in waiting:
        yield first, future.result()


class Blob:
    """A blob open for reading at random.

    By `pread` and not from a memory map: one call reads a whole image, where a map faults in page after page; and a
    file that is cut short meanwhile is an error in one sentence, where a map ends the process by SIGBUS.
    """

    def __init__(self, path: Path, size: int | None = None) -> None:
        """Open the file. Raises StaleInput if it is missing or has not the `size` in bytes that its index describes."""
        self.path = Path(path)
        found = self.path.stat().st_size if self.path.exists() else None
        if found is None or (size is not None and found != size):
            said = "is missing" if found is None else f"has {found:,} of {size:,} bytes"
            raise StaleInput(f"the blob {path} {said}: delete it and run the data stage again")
        self._file = self.path.open("rb", buffering=0)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of one image. Raises StaleInput if the file ends before."""
        content = os.pread(self._file.fileno(), length, offset)
        if len(content) != length:
            raise StaleInput(f"{self.path} ends before byte {offset + length:,}: it is not the blob of this index")
        return content

    def close(self) -> None:
        self._file.close()

    def verify(self, offset: NDArray[np.int64], length: NDArray[np.int32], sha256: Bytes, every: bool = False) -> None:
        """Compare the hashes of some images, spread evenly, or of every one. Raises StaleInput if one differs."""
        count = len(offset)
        chosen = range(count) if every else sorted({count * i // _PROBES for i in range(_PROBES)} if count else ())
        for i in chosen:
            if hashlib.sha256(self.read(int(offset[i]), int(length[i]))).digest() != sha256[i].tobytes():
                raise StaleInput(
                    f"{self.path} is not the blob that its index describes (byte {int(offset[i]):,}): run the data "
                    "stage again"
                )
