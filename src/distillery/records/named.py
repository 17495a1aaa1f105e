"""Files and folders of the user's that a job reads: found by a walk, compared by size and times, hashed by content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from distillery.records.files import DistilleryError
from distillery.records.io import read_json, sha256_file, sha256_json, write_json

ABSENT = "absent: "  # begins what stands for the content of a path where nothing is


class Found(NamedTuple):
    """A file in a folder.

    Attributes:
        path: where it is.
        name: relative to the folder, with `/` on every system.
        facts: its size and times; none for a link that leads nowhere.
    """

    path: str
    name: str
    facts: tuple[int, ...]


def walk(folder: Path, problems: list[str]) -> list[Found]:
    """All files in a folder and its sub-folders, in the order of their names, links followed.

    Hidden files and folders are left out, and what is no file (a socket, a pipe). Folders that cannot be listed and
    links that lead round in a circle become `problems`, one clause each.
    """
    found: list[Found] = []
    _walk(os.fspath(folder), "", (), found, problems)
    return sorted(found, key=lambda file: file.name)


def _walk(
    folder: str, prefix: str, above: tuple[tuple[int, int], ...], found: list[Found], problems: list[str]
) -> None:
    try:
        facts = Path(folder).stat()
        if (facts.st_dev, facts.st_ino) in above:
            problems.append(f"{folder} is a link to a folder above it")
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    above_it = (*above, (facts.st_dev, facts.st_ino))
                    _walk(entry.path, f"{prefix}{entry.name}/", above_it, found, problems)
                elif entry.is_file():
                    found.append(Found(entry.path, prefix + entry.name, _facts(entry.stat())))
                elif entry.is_symlink():
                    found.append(Found(entry.path, prefix + entry.name, ()))
    except OSError as error:
        problems.append(f"{folder} cannot be listed ({error.strerror or error})")


def listing(paths: list[Path]) -> list[Any]:
    """Size and times of all files at some paths: cheap, and different after any change."""
    return [[file.path, file.name, *file.facts] for file in _everything(paths)]


def absent(paths: list[Path]) -> str:
    """Name the paths where nothing is, after ABSENT; "" if there is none."""
    lost = [str(path) for path in paths if not path.exists()]
    return ABSENT + ", ".join(lost) if lost else ""


def content(paths: list[Path], note: Path) -> str | None:
    """Hash what lies at some paths: names below folders, and bytes. None for no path at all.

    Files that have not been touched since are not read again: `note` holds the hash beside a hash of the listing.
    """
    if not paths:
        return None
    known = read_json(note) if note.exists() else {}
    key = sha256_json(listing(paths))
    if key not in known:
        known = dict(list(known.items())[-50:])
        known[key] = sha256_json([[file.name, _hash(file.path)] for file in _everything(paths)])
        write_json(note, known, sort=False)
    return str(known[key])


def _everything(paths: list[Path]) -> list[Found]:
    found: list[Found] = []
    for path in paths:
        if path.is_dir():
            found += walk(path, [])
        else:
            found.append(Found(os.fspath(path), path.name, _facts(path.stat()) if path.exists() else ()))
    return found


def _facts(facts: os.stat_result) -> tuple[int, ...]:
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns  # the last one: a copy may keep size and time


def _hash(path: str) -> str:
    """Hash a file. One that cannot be read is for the stage that reads it to complain about."""
    if not Path(path).exists():
        return "absent"
    try:
        return sha256_file(Path(path))
    except DistilleryError:
        return "unreadable"
