"""Files from mirrors: local ones, and downloads kept in a cache folder that parallel jobs share."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException, InvalidURL
from io import BufferedReader
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from distillery import settings
from distillery.records.io import atomic_path, lock
from distillery.teachers.released import is_remote

CACHE_VARIABLE = settings.CACHE
TIMEOUT = 30.0  # seconds without a byte
TRIES = 3
PAUSE = 1.0  # seconds before the second try; twice that before the third
CHUNK = 1 << 20

Report = Callable[[int, int | None], None]  # bytes so far, bytes in all if the server says


class Unusable(Exception):
    """One mirror does not help; the message says why, for the sentence that lists all mirrors."""


class Absent(Unusable):
    """The server has no such file."""


class _Interrupted(Unusable):
    """A failure that the next try may not meet."""


def kept(url: str) -> Path:
    """Return where the download of `url` is kept: in DISTILLERY_CACHE, or ~/.cache/distillery."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", url.partition("?")[0].rpartition("/")[2])[-80:]
    return settings.cache() / "teachers" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"


def opened(url: str, report: Report | None = None) -> BufferedReader:
    """Open a mirror's file for reading; a web address is downloaded once and kept.

    Jobs that want the same address wait for the one that downloads it. A download that is cut short is tried again
    and, if that does not help, leaves nothing behind.

    Raises:
        Unusable: if the mirror does not give the file.
        DistilleryError: if the cache folder cannot be written.
    """
    if not is_remote(url):
        try:
            return Path(url).expanduser().open("rb")
        except OSError as error:
            raise Unusable(_reason(error)) from None
    path = kept(url)
    with suppress(OSError):  # without the lock, which a shared read-only cache does not allow
        return path.open("rb")
    with lock(path, wait=True):
        if not path.exists():
            with atomic_path(path) as temporary:
                _download(url, temporary, report)
        return path.open("rb")


def _download(url: str, target: Path, report: Report | None) -> None:
    """Write the content of `url` to `target`. Raises Unusable; errors of the local disk pass as OSError."""
    for attempt in range(1, TRIES + 1):
        try:
            with target.open("wb") as file:
                for chunk, done, total in _received(url):
                    file.write(chunk)
                    if report:
                        report(done, total)
            return
        except _Interrupted as error:
            if attempt == TRIES:
                raise Unusable(f"{error}, {TRIES} times") from None
            time.sleep(PAUSE * attempt)


def _received(url: str) -> Iterator[tuple[bytes, int, int | None]]:
    """Yield the chunks of a download, with the bytes so far and the bytes promised.

    Only errors of the network become `Unusable` here: what the consumer does with a chunk is its own affair.
    """
    try:
        with urlopen(Request(url, headers={"User-Agent": "distillery"}), timeout=TIMEOUT) as response:
            length = response.headers.get("Content-Length")
            done, total = 0, int(length) if length else None
            while chunk := response.read(CHUNK):
                done += len(chunk)
                yield chunk, done, total
    except HTTPError as error:
        error.close()
        passing = error.code >= 500 or error.code in (408, 429)
        kind = Absent if error.code == 404 else _Interrupted if passing else Unusable
        raise kind(f"HTTP {error.code} {error.reason}") from None
    except URLError as error:  # no connection: a host that refuses, or that no name server knows, is asked once
        reason = error.reason
        raise Unusable(_reason(reason) if isinstance(reason, OSError) else str(reason)) from None
    except (InvalidURL, ValueError) as error:
        raise Unusable(f"not a usable address: {error}") from None
    except (OSError, HTTPException) as error:
        raise _Interrupted(_reason(error)) from None
    if total is not None and done != total:
        raise _Interrupted(f"broke off after {done:,} of {total:,} bytes")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
