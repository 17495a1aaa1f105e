"""What members of an archive from elsewhere may be taken out of it."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import PurePosixPath


def unsafe(info: tarfile.TarInfo) -> str:
    """Say why a member must not be extracted; "" if it may: the rules of tarfile's `data` filter.

    Python has that filter from 3.11.4 on. Before, no absolute path, no `..`, in names or in targets of links, and
    nothing but files, folders and links.
    """
    if hasattr(tarfile, "data_filter"):
        try:
            tarfile.data_filter(info, tempfile.gettempdir())
        except tarfile.FilterError as error:
            return str(error)
        return ""
    link = info.issym() or info.islnk()
    if not (info.isfile() or info.isdir() or link):
        return f"{info.name!r} is a special file"
    for path in map(PurePosixPath, [info.name, *([info.linkname] if link else [])]):
        if path.is_absolute() or ".." in path.parts:
            return f"{str(path)!r} is outside the destination"
    return ""
