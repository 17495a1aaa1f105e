"""The official CIFAR archives: downloaded and verified by torchvision, unpickled without running anything."""

from __future__ import annotations

import codecs
import errno
import hashlib
import io
import pickle
import socket
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

import numpy as np
import torchvision
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from distillery import settings
from distillery.data.archives import unsafe
from distillery.records.io import DistilleryError, scratch

TIMEOUT = 60.0  # seconds without a byte; torchvision itself would wait for ever
Rows = dict[str, np.ndarray]  # images, labels and filenames of one split, and what else the files say of it


@dataclass(frozen=True, slots=True)
class Archive:
    """One of the two official archives.

    Attributes:
        name: in sentences.
        official: torchvision's class, which knows the address, the files and their md5 sums.
        labels: the labels' names in the files, and ours.
        otherwise: how a local copy is named.
    """

    name: str
    official: type[torchvision.datasets.CIFAR10]
    labels: Mapping[str, str]
    otherwise: str

    @property
    def splits(self) -> dict[str, list[str]]:
        """The files of each split."""
        lists = {"train": self.official.train_list, "test": self.official.test_list}
        return {split: [name for name, _ in files] for split, files in lists.items()}

    @property
    def meta(self) -> str:
        """The file with the names of the classes."""
        return str(self.official.meta["filename"])

    @property
    def files(self) -> list[str]:
        return [*self.splits["train"], *self.splits["test"], self.meta]

    def sums(self, md5: Mapping[str, str]) -> dict[str, str]:
        """The md5 sum of every file, with those of another archive put in place."""
        listed = [*self.official.train_list, *self.official.test_list, [self.meta, self.official.meta["md5"]]]
        return {name: md5.get(name, known) for name, known in listed}


CIFAR100 = Archive(
    "CIFAR-100",
    torchvision.datasets.CIFAR100,
    {"fine_labels": "labels", "coarse_labels": "coarse"},
    "`data.mirror` or by the environment variable DISTILLERY_CIFAR100",
)
CIFAR10 = Archive("CIFAR-10", torchvision.datasets.CIFAR10, {"labels": "labels"}, "`data.mirror`")


def read_archive(archive: Archive, options: dict[str, Any]) -> tuple[dict[str, Rows], list[str]]:
    """Return the splits (images NHWC, labels, filenames) in official order, and the class names.

    The archive is kept in `download_dir` for the next time; a failure leaves nothing behind.
    """
    cache = Path(options.get("download_dir") or settings.cache())
    file = cache.expanduser() / archive.official.filename
    official = _with(archive, options)
    with scratch(file) as folder:
        folder.mkdir()
        if check_integrity(file, official.tgz_md5):
            (folder / file.name).symlink_to(file.absolute())  # torchvision finds it and only extracts
        with _explained(archive, official.url):
            root = official(folder).root
        content = {name: _unpickle(Path(root, official.base_folder, name), archive) for name in archive.files}
        if not (folder / file.name).is_symlink():
            (folder / file.name).replace(file)
    return _splits(archive, content)


def find_local(archive: Archive, path: Path) -> Path | None:
    """The archive or the folder with its files that `path` is, or holds; None if there is neither."""
    folder, file = archive.official.base_folder, archive.official.filename
    for place in (path, path / folder, path / file, path / folder / file):
        if place.is_file() or all((place / name).is_file() for name in archive.files):
            return place
    return None


def read_local(
    archive: Archive, place: Path, md5: Mapping[str, str] | None = None
) -> tuple[dict[str, Rows], list[str]]:
    """The same as `read_archive` from an archive or folder on this machine, which is not written to.

    Without `md5` sums of the files the caller compares the hashes of all that is read.
    """
    try:
        found = _members(archive, place) if place.is_file() else {n: (place / n).read_bytes() for n in archive.files}
        for name, content in found.items():
            if md5 and (seen := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5[name]:
                raise ValueError(f"its file {name} has md5 {seen[:12]}, not {md5[name][:12]}")
        return _splits(archive, {name: _unpickled(io.BytesIO(data), name, archive) for name, data in found.items()})
    except (OSError, EOFError, tarfile.TarError, zlib.error, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DistilleryError(
            f"cannot read {archive.name} from {place} ({reason}): name the official {archive.official.filename}, "
            "whole, or the folder in it"
        ) from error


def _members(archive: Archive, file: Path) -> dict[str, bytes]:
    """Read the files of an archive into memory; no path of it ever reaches the disk."""
    content = {}
    with tarfile.open(file) as members:
        for info in members:
            name = PurePosixPath(info.name).name
            if name in archive.files and info.isfile() and (stream := members.extractfile(info)):
                content[name] = stream.read()
    if missing := [name for name in archive.files if name not in content]:
        raise ValueError(f"it holds no file {missing[0]}")
    return content


def _splits(archive: Archive, content: dict[str, Any]) -> tuple[dict[str, Rows], list[str]]:
    """Put the content of the files into arrays."""
    splits: dict[str, Rows] = {}
    for split, names in archive.splits.items():
        parts = [content[name] for name in names]
        pixels = np.concatenate([np.asarray(part["data"]) for part in parts])
        splits[split] = {"images": pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)}
        for theirs, ours in archive.labels.items():
            splits[split][ours] = np.array([label for part in parts for label in part[theirs]], dtype=np.uint8)
        splits[split]["filenames"] = np.array([name for part in parts for name in part["filenames"]], dtype="S")
    return splits, list(content[archive.meta][archive.official.meta["key"]])


class _Verified(torchvision.datasets.CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """torchvision's download, md5 checks and extraction, without its unrestricted unpickling."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.download()
        if not self._check_integrity() or not check_integrity(
            str(root / self.base_folder / self.meta["filename"]), self.meta["md5"]
        ):
            raise RuntimeError("its content does not have the expected md5 sums")

    def download(self) -> None:
        download_url(self.url, self.root, self.filename, self.tgz_md5)
        archive = Path(self.root, self.filename)
        with tarfile.open(archive) as members:  # torchvision filters them itself only on Python 3.11.4 and later
            for info in members:
                if why := unsafe(info):
                    raise RuntimeError(f"its member {info.name} is unsafe: {why}")
        extract_archive(archive, self.root)


def _with(archive: Archive, options: dict[str, Any]) -> type[_Verified]:
    """Set another address and other md5 sums, as the options say."""
    md5, official = options.get("md5") or {}, archive.official
    sums = archive.sums(md5)

    class Verified(_Verified):
        base_folder, filename = official.base_folder, official.filename
        url = options.get("url") or official.url
        tgz_md5 = md5.get("archive", official.tgz_md5)
        train_list: ClassVar = [[name, sums[name]] for name in archive.splits["train"]]
        test_list: ClassVar = [[name, sums[name]] for name in archive.splits["test"]]
        meta: ClassVar = {**official.meta, "md5": sums[archive.meta]}

    return Verified


@contextmanager
def _explained(archive: Archive, url: str) -> Iterator[None]:
    """Bound every wait on the network, and make one sentence of whatever goes wrong there."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    except (OSError, RuntimeError, ValueError, EOFError, HTTPException, tarfile.TarError, zlib.error) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise  # our disk, not the network: scratch() says what is wrong with the place
        raise DistilleryError(
            f"cannot download {archive.name} from {url} ({str(error).rstrip('.') or type(error).__name__}); try again, "
            f"or name a local copy by {archive.otherwise}"
        ) from error
    finally:
        socket.setdefaulttimeout(before)


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries, lists, strings and plain numpy arrays; refuses to look up anything else."""

    _ALLOWED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes in the old pickle protocols
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in it") from None


def _unpickle(file: Path, archive: Archive) -> dict[str, Any]:
    """Read one of the official pickles. Its md5 is verified; the restricted unpickler is defence in depth."""
    with file.open("rb") as stream:
        return _unpickled(stream, file.name, archive)


def _unpickled(stream: IO[bytes], name: str, archive: Archive) -> dict[str, Any]:
    try:
        return _Unpickler(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DistilleryError(
            f"the file {name} in the {archive.name} archive is not the official one ({error}); download it again"
        ) from error
