"""The official CIFAR-100 archive: downloaded and verified by torchvision, unpickled without running anything."""

from __future__ import annotations

import codecs
import errno
import pickle
import socket
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar

import numpy as np
from torchvision.datasets import CIFAR100
from torchvision.datasets.utils import check_integrity, download_url, extract_archive

from distillery import settings
from distillery.data.archives import unsafe
from distillery.records.io import DistilleryError, scratch

FILES = ("train", "test", "meta")
TIMEOUT = 60.0  # seconds without a byte; torchvision itself would wait for ever


def read_archive(options: dict[str, Any]) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Return the splits (images NHWC, labels, coarse, filenames) in official order, and the class names.

    The archive is kept in `download_dir` for the next time; a failure leaves nothing behind.
    """
    cache = Path(options.get("download_dir") or settings.cache())
    archive = cache.expanduser() / CIFAR100.filename
    official = _with(options)
    with scratch(archive) as folder:
        folder.mkdir()
        if check_integrity(archive, official.tgz_md5):
            (folder / archive.name).symlink_to(archive.absolute())  # torchvision finds it and only extracts
        with _explained(official.url):
            root = official(folder).root
        content = {name: _unpickle(Path(root, official.base_folder, name)) for name in FILES}
        if not (folder / archive.name).is_symlink():
            (folder / archive.name).replace(archive)
    return _splits(content)


def find_local(path: Path) -> Path | None:
    """The archive or the folder with its files that `path` is, or holds; None if there is neither."""
    folder = CIFAR100.base_folder
    for place in (path, path / folder, path / CIFAR100.filename, path / folder / CIFAR100.filename):
        if place.is_file() or all((place / name).is_file() for name in FILES):
            return place
    return None


def read_local(place: Path) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """The same as `read_archive` from an archive or folder on this machine, which is not written to.

    No md5 is asked for: the caller compares the hashes of all that is read.
    """
    try:
        if place.is_dir():
            return _splits({name: _unpickle(place / name) for name in FILES})
        return _splits(_unpickle_members(place))
    except (OSError, EOFError, tarfile.TarError, zlib.error, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise DistilleryError(
            f"cannot read CIFAR-100 from {place} ({reason}): name the official cifar-100-python.tar.gz, whole, or the "
            "folder in it"
        ) from error


def _unpickle_members(archive: Path) -> dict[str, Any]:
    """Read the three files of an archive into memory; no path of it ever reaches the disk."""
    content = {}
    with tarfile.open(archive) as members:
        for info in members:
            name = PurePosixPath(info.name).name
            if name in FILES and info.isfile() and (stream := members.extractfile(info)):
                content[name] = _unpickled(stream, name)
    if missing := [name for name in FILES if name not in content]:
        raise ValueError(f"it holds no file {missing[0]}")
    return content


def _splits(content: dict[str, Any]) -> tuple[dict[str, dict[str, np.ndarray]], list[str]]:
    """Put the content of the three files into arrays."""
    splits = {
        split: {
            "images": np.asarray(rows["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1),
            "labels": np.array(rows["fine_labels"], dtype=np.uint8),
            "coarse": np.array(rows["coarse_labels"], dtype=np.uint8),
            "filenames": np.array(rows["filenames"], dtype="S"),
        }
        for split, rows in content.items()
        if split != "meta"
    }
    return splits, list(content["meta"]["fine_label_names"])


class _Verified(CIFAR100):  # type: ignore[misc]  # torchvision has no types
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


def _with(options: dict[str, Any]) -> type[_Verified]:
    """Set another address and other md5 sums, as the options say."""
    md5 = options.get("md5") or {}

    class Verified(_Verified):
        url = options.get("url") or CIFAR100.url
        tgz_md5 = md5.get("archive", CIFAR100.tgz_md5)
        train_list: ClassVar = [["train", md5.get("train", CIFAR100.train_list[0][1])]]
        test_list: ClassVar = [["test", md5.get("test", CIFAR100.test_list[0][1])]]
        meta: ClassVar = {**CIFAR100.meta, "md5": md5.get("meta", CIFAR100.meta["md5"])}

    return Verified


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Bound every wait on the network, and make one sentence of whatever goes wrong there."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    except (OSError, RuntimeError, ValueError, EOFError, HTTPException, tarfile.TarError, zlib.error) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            raise  # our disk, not the network: scratch() says what is wrong with the place
        raise DistilleryError(
            f"cannot download CIFAR-100 from {url} ({str(error).rstrip('.') or type(error).__name__}); try again, or "
            "name a local copy by `data.mirror` in params.yaml or by the environment variable DISTILLERY_CIFAR100"
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


def _unpickle(file: Path) -> dict[str, Any]:
    """Read one of the official pickles. Its md5 is verified; the restricted unpickler is defence in depth."""
    with file.open("rb") as stream:
        return _unpickled(stream, file.name)


def _unpickled(stream: IO[bytes], name: str) -> dict[str, Any]:
    try:
        return _Unpickler(stream, encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise DistilleryError(
            f"the file {name} in the CIFAR-100 archive is not the official one ({error}); download it again"
        ) from error
