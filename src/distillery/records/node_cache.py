"""Large files that many jobs read: one verified copy per node, and no content hashed twice.

DISTILLERY_SCRATCH names a folder on the node's own disk ($TMPDIR, /local/$SLURM_JOB_ID). What a run opens is copied
there once, by one process while the others wait; a full or missing disk costs only the speed.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillery import settings
from distillery.records import io as artifacts
from distillery.records.io import DistilleryError, StaleInput

NOTED = 1 << 26  # bytes; smaller files are hashed in a blink
SETTLED = 2.0  # seconds; a file changed later than that before its hashing could change again within one clock tick
CHUNK = 1 << 24


def sha256_once(path: Path, note: Path) -> str:
    """Hash a file's content, or read the hash from `note` if this very file was hashed before.

    The same file: the same inode, size, and times of last change, of content (mtime) and of anything (ctime, which no
    program can set). A `note` that cannot be written is done without.
    """
    before = _identity(path)
    if before["bytes"] < NOTED:
        return artifacts.sha256_file(path)
    if (known := _noted(before, note)) is not None:
        return known
    digest = artifacts.sha256_file(path)
    if _identity(path) == before and time.time() - before["ctime_ns"] / 1e9 > SETTLED:
        with suppress(DistilleryError):
            artifacts.write_json(note, before | {"sha256": digest})
    return digest


def nearby(path: Path, sha256: str) -> Path | None:
    """Return this node's own copy of the file with this content; or None (the reason is printed).

    Copies are named by content: another study's, or an older file of the same name, is never taken. They are whole and
    verified when they get their name, and made again if they were changed since.
    """
    scratch = settings.scratch()
    if not scratch:
        return None
    copy = scratch / f"distillery-{os.getuid()}" / f"{sha256}-{path.name}"
    note = copy.with_name(f"{copy.name}.json")
    try:
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if copy.parent.stat().st_uid != os.getuid():
            raise PermissionError(None, f"{copy.parent} belongs to somebody else")
        if _is(copy, note, sha256):
            return copy
        with artifacts.lock(copy, wait=True):
            if not _is(copy, note, sha256):
                _copy(path, copy, sha256)
                artifacts.write_json(note, _identity(copy) | {"sha256": sha256})
        return copy
    except StaleInput:
        return None  # the caller verifies the file itself, and says what to do
    except (OSError, DistilleryError) as error:
        cause = error.__cause__ or error
        why = getattr(cause, "strerror", None) or cause
        print(f"no copy of {path} in DISTILLERY_SCRATCH ({why}): it is read from where it is", flush=True)
        return None


def _copy(path: Path, copy: Path, sha256: str) -> None:
    """Copy a file and verify on the way that it is the one wanted."""
    digest = hashlib.sha256()
    with artifacts.atomic_path(copy) as temporary:
        with path.open("rb") as source, temporary.open("wb") as target:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if digest.hexdigest() != sha256:
            raise StaleInput(f"{path} is not the file that its record describes")


def _is(path: Path, note: Path, sha256: str) -> bool:
    return path.exists() and _noted(_identity(path), note) == sha256


def _identity(path: Path) -> dict[str, Any]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DistilleryError(f"{path} is missing; run the stage that makes it first") from None
    times = {"mtime_ns": found.st_mtime_ns, "ctime_ns": found.st_ctime_ns}
    return {"inode": found.st_ino, "bytes": found.st_size} | times


def _noted(identity: dict[str, Any], note: Path) -> str | None:
    """Return the hash that `note` gives to the file of this identity."""
    with suppress(DistilleryError):
        noted = artifacts.read_json(note)
        if isinstance(noted, dict) and identity.items() <= noted.items():
            return noted["sha256"]
    return None
