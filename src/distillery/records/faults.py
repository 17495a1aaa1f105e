"""What is said of a file that cannot be read, and of what the operating system refuses: which one, why, what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from distillery.errors import DistilleryError
from distillery.records.files import PLACE

DECIDES_RESULTS = False  # sentences (see pipeline/fingerprint.py)
# Only what a stage makes is told to be deleted or made again; of anything else nobody here has a second copy.
_ABSENT = {"artifacts": "run the stage that makes it first", "results": "take it from git again"}
_AGAIN = {"artifacts": "delete it and run its stage again", "results": "take it from git again"}


def unreadable(path: Path, error: OSError) -> DistilleryError:
    if isinstance(error, FileNotFoundError):
        return DistilleryError(f"{path} is missing; {_ABSENT.get(_place(path), 'check the path')}")
    return DistilleryError(f"cannot read {path}: {error.strerror or error}; check the path and its permissions")


def damaged(path: Path, error: Exception, kind: str) -> DistilleryError:
    """`kind`: what the file should be."""
    if _place(path) in _AGAIN:
        return DistilleryError(f"{path} is damaged or cut short ({error}); {again(path)}")
    return DistilleryError(
        f"{path} is no {kind}, or is damaged or cut short ({error}): a {kind} is expected there, so check the path"
    )


def again(path: Path) -> str:
    """How to come by another copy of a file."""
    return _AGAIN.get(_place(path), "check the path")


def _place(path: Path) -> str:
    """The folder of this project in which a file lies; "" for what lies elsewhere."""
    here = Path.cwd()
    place = Path(os.path.normpath(here / path))  # links as they are: `artifacts` may be one
    return (*place.relative_to(here).parts, "")[0] if place.is_relative_to(here) else ""


def refused(error: OSError) -> str:
    """The sentence for an error of which nobody nearer knew what was being done."""
    name = error.filename
    where = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    if error.errno == errno.ENOENT:
        return f"{where}there is no such file or folder; check the path"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}permission denied; check who may read and write there"
    if said := PLACE.get(error.errno or 0):
        return f"{where}{said} and run the command again"
    return where + (" ".join((error.strerror or str(error)).split()) or type(error).__name__)
