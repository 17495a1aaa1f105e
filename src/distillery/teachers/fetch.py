"""A released teacher: the first mirror's checkpoint that fits. Nothing in it is run, nothing is unpacked to disk."""

from __future__ import annotations

import hashlib
import io
import tarfile
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from distillery.data.archives import unsafe
from distillery.models.base import Network
from distillery.models.official import load_official
from distillery.records.io import DistilleryError
from distillery.teachers import repository
from distillery.teachers.download import Absent, Report, Unusable, kept, opened
from distillery.teachers.foreign import Damaged, read_weights
from distillery.teachers.released import Source, is_remote

SUFFIXES = (".pth", ".pt", ".safetensors", ".pth.tar", ".ckpt", ".bin")
SHOWN = 6  # members of an archive named in an error message


class NoMirror(DistilleryError):
    """No mirror gave a usable checkpoint. `failures` says why, by mirror."""

    def __init__(self, teacher: str, failures: dict[str, str]) -> None:
        self.failures = failures
        self.listed = "; ".join(f"{url} ({why})" for url, why in failures.items())
        super().__init__(
            f"teacher {teacher} cannot be fetched from any of its mirrors: {self.listed}; name another mirror or a "
            f"local copy in `teachers.{teacher}.urls`, or train it here by `fallback: train`"
        )


@dataclass(frozen=True, slots=True)
class Fetched:
    """Where a checkpoint came from: the mirror, the hash of its file, and where that is an archive the member's.

    `part` names what was taken of a checkpoint that holds more than weights: `model`, `state_dict_ema`, `0.student`.
    """

    url: str
    sha256: str
    member: str | None
    member_sha256: str | None
    part: str | None = None


def fetch(teacher: str, network: Network, source: Source, report: Report | None = None) -> Fetched:
    """Fill `network` from the first mirror of `source` whose checkpoint fits it.

    What already lies on this machine (local mirrors, earlier downloads) is tried first, then the network, each in the
    order of the study. A download that turns out not to be the checkpoint is not kept.

    Raises:
        NoMirror: if no mirror helps; the network is then as it was.
        DistilleryError: if the cache folder cannot be written.
    """
    here = [url for url in source.urls if not is_remote(url) or kept(url).exists()]
    failures: dict[str, str] = {}
    for url in [*here, *filter(is_remote, source.urls)]:
        try:
            with opened(_within(url, source.member), report) as file:
                content, found = _read(file, url, source)
            weights, part = read_weights(content, source.member)
            try:
                load_official(network, weights)
            except (ValueError, RuntimeError) as error:
                raise Unusable(_one_line(error)) from None
            return replace(found, part=part)
        except Unusable as error:
            failures[url] = str(error)
            if isinstance(error, Damaged) and is_remote(url):
                with suppress(OSError):  # a shared read-only cache stays as it is
                    kept(url).unlink()
    raise NoMirror(teacher, {url: failures[url] for url in source.urls})


def configuration(place: str) -> repository.Said | None:
    """What a repository's configuration says: a file, or an address, which is downloaded once and kept.

    None if there is none, or one of another program. Raises DistilleryError if it cannot be had or read.
    """
    try:
        with opened(place) as file:
            return repository.read(Path(file.name))
    except Absent:
        return None
    except Unusable as error:
        raise DistilleryError(
            f"{place} cannot be had ({error}), which says what the weights saw: say it by `preprocessing`"
        ) from None


def _within(url: str, member: str | None) -> str:
    """Point into a local mirror that is a folder: an unpacked archive."""
    if is_remote(url) or not Path(url).expanduser().is_dir():
        return url
    if member is None:
        raise Unusable("is a folder; name the checkpoint in it as `member`")
    return str(Path(url) / member)


def _read(file: io.BufferedReader, url: str, source: Source) -> tuple[bytes, Fetched]:
    """Return the bytes of the checkpoint and what they were taken from. Raises Unusable."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    try:
        archive = tarfile.is_tarfile(file)
        file.seek(0)
        member, content = _extract(file, source.member) if archive else (None, file.read())
    except Unusable as error:
        if source.sha256 and not digest.startswith(source.sha256.lower()):
            raise Damaged(str(error)) from None
        raise
    except Exception as error:  # whatever a damaged archive makes tarfile and its decompressors say
        raise Damaged(f"not a readable archive: {_one_line(error)}") from None
    inner = hashlib.sha256(content).hexdigest() if member else None
    if source.sha256 and not any(d and d.startswith(source.sha256.lower()) for d in (digest, inner)):
        raise Damaged(f"its sha256 is {digest[:12]}..., not {source.sha256[:12]}...")
    return content, Fetched(url, digest, member, inner)


def _extract(file: io.BufferedReader, wanted: str | None) -> tuple[str, bytes]:
    """Read one member of an archive into memory; no path of the archive ever reaches the disk."""
    with tarfile.open(fileobj=file) as archive:
        members = {info.name.removeprefix("./"): info for info in archive}
        if not members:  # a run of zeros, too, passes for an archive
            raise Damaged("an empty archive")
        offered = [name for name, info in members.items() if info.isreg() and name.endswith(SUFFIXES)]
        name = wanted or (offered[0] if len(offered) == 1 else "")
        if name not in members:
            shown = (offered or list(members))[: SHOWN + 1]
            listed = ", ".join(shown[:SHOWN]) + (", ..." if len(shown) > SHOWN else "")
            fault = f"has no member {wanted}" if wanted else "does not hold just one checkpoint, so name it as `member`"
            raise Unusable(f"{fault} (it holds {listed})")
        info = members[name]
        if why := unsafe(info):
            raise Damaged(f"its member {name} is unsafe: {why}")
        stream = archive.extractfile(info) if info.isreg() else None
        if stream is None:
            raise Unusable(f"its member {name} is not a plain file")
        return name, stream.read()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition("\n")[0].split())[:600].rstrip(".") or type(error).__name__
