"""Safe writing: errors in one sentence, scratch names, atomic replacement, locks. Used through `artifacts`."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distillery import settings
from distillery.errors import DistilleryError, StaleInput

__all__ = ["DistilleryError", "StaleInput", "atomic_path", "lock", "scratch", "void", "vouched"]

# What the operating system says when the place is the problem and not the program.
PLACE = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the disk quota is used up; free some space",
    errno.EFBIG: "the file grew over the allowed size; raise the limit",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "permission denied; make the folder writable",
    errno.EPERM: "permission denied; make the folder writable",
    errno.ENOTDIR: "a part of the path is a file; move it away",
    errno.EEXIST: "a part of the path is a file; move it away",
    errno.EISDIR: "a folder has this name; move it away",
    errno.ENAMETOOLONG: "the name is too long; choose shorter names",
}
_SCRATCH = re.compile(r"^\.(.+)\.\d+@.+\.tmp$")
_FOREIGN_AGE = 24 * 3600.0  # seconds; how long another machine's temporary file is taken for one still being written
_RECORDS: dict[Path, Path] = {}  # by output that is being made anew: the record that vouches for what lies there


def reserve(path: Path, size: int) -> None:
    """Make a file of `size` zeros whose space is on the disk. Raises OSError if that is full.

    A process that writes into a map of a file with holes is killed by SIGBUS then, and says nothing.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)


@contextmanager
def _blame(path: Path) -> Iterator[None]:
    """Turn an OSError about writing `path` into one sentence; an error about any other file passes unchanged."""
    try:
        yield
    except OSError as error:
        said = PLACE.get(error.errno or 0)
        file = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None  # None: a write()
        if said and (file is None or file == path or file in path.parents or _belongs(file, path)):
            raise DistilleryError(f"cannot write {_asked(path)}: {said} and run the command again") from error
        raise


def _asked(path: Path) -> Path:
    """The name that was asked for: of a file in a scratch folder, where it will lie."""
    return Path(*(_SCRATCH.sub(r"\1", part) for part in path.parts))


def _belongs(file: Path, path: Path) -> bool:
    return any(p.name.startswith(f".{path.name}.") for p in (file, *file.parents))


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as somebody else
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """Remove the temporary siblings of `path` whose makers died.

    On a shared file system the pid of another machine says nothing, so those go by age.
    """
    pattern = re.compile(re.escape(f".{path.name}.") + r"(\d+)@(.+)\.tmp")
    for sibling in path.parent.iterdir():
        if match := pattern.fullmatch(sibling.name):
            pid, host = int(match[1]), match[2]
            with suppress(OSError):
                if host == socket.gethostname():
                    dead = pid == os.getpid() or not _alive(pid)  # our own number: a dead process had it before us
                else:
                    dead = time.time() - sibling.stat().st_mtime > _FOREIGN_AGE
                if dead:
                    _remove(sibling)


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Yield an unused name beside `path`, for a file or a folder, and remove whatever is there at the end.

    Missing parent folders are made. What processes killed earlier left behind for the same `path` is removed first.
    """
    path = Path(path)
    with _blame(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}@{socket.gethostname()}.tmp")
        try:
            yield temporary
        finally:  # also on KeyboardInterrupt
            _remove(temporary)


@contextmanager
def atomic_path(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary file name beside `path`; on success the file is synced and renamed into place.

    After any failure `path` is what it was before. Without `sync` the machine's own may leave it empty. Missing folders
    are made.

    Raises:
        DistilleryError: if the place cannot be written (full, read-only, no permission).
    """
    path = Path(path)
    with scratch(path) as temporary:
        yield temporary
        if sync:
            _sync(temporary)
        void(path)
        temporary.replace(path)
        with suppress(OSError):  # some file systems cannot sync a folder; the rename has happened all the same
            if sync:
                _sync(path.parent)


@contextmanager
def vouched(record: Path, outputs: Iterable[Path]) -> Iterator[None]:
    """While outputs are made anew: the record of what lay there goes before the first of them is replaced.

    So whoever is killed between two of them leaves no record beside what it does not describe; and who is killed before
    leaves all as it was.
    """
    mine = {path: record for path in outputs if path != record}
    _RECORDS.update(mine)
    try:
        yield
    finally:
        for path in mine:
            del _RECORDS[path]


def void(path: Path) -> None:
    """Remove the record that vouches for what lies at `path`, which is about to be replaced."""
    if record := _RECORDS.get(path):
        record.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the making of `path` for this process alone. The kernel lets go when the process ends, however it ends.

    Yields whether another process had to be waited for. Two nodes exclude each other only where the file system carries
    `flock` between them (NFS does, Lustre if mounted with `flock`); elsewhere atomic writes keep both from harm.

    Raises:
        DistilleryError: if another process (or another thread) holds it, unless told to wait for that one; or if the
            folder cannot be written.
    """
    path = Path(path)
    name = path.with_name(f".{path.name}.lock")
    with _blame(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, waited = _acquire(name, path, wait)
    try:
        yield waited
    finally:
        name.unlink(missing_ok=True)  # still held, so that whoever opened this file meanwhile finds it gone and retries
        os.close(descriptor)


def _acquire(name: Path, path: Path, wait: bool) -> tuple[int, bool]:
    """Open and lock the file `name`; return its descriptor, and whether somebody else held it."""
    waited = False
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "unknown"
                if not wait:
                    raise DistilleryError(
                        f"another process is already making {path} ({holder}); wait for it or stop it"
                    ) from None
                print(f"waiting for another process ({holder}) that is making {path}", flush=True)
                waited = True
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                warnings.warn(f"{path.parent} cannot lock files: see that no two commands make {path}", stacklevel=5)
            with suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == name.stat().st_ino:
                    try:
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, _myself().encode(), 0)
                    except OSError:  # the disk is full; an empty file would look as if somebody were about to begin
                        name.unlink(missing_ok=True)
                        raise
                    return descriptor, waited
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed the file between our opening and our locking it


def _myself() -> str:
    job = settings.slurm_job()
    return f"process {os.getpid()} on {socket.gethostname()}" + (f", Slurm job {job}" if job else "")
