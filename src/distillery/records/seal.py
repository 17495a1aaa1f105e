"""The seal of the final results: no later record holds the hashes of the last files of the pipeline, so they do.

`table.json` carries the hash of every other result and of itself, through git and into any copy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillery.records.io import sha256_file, sha256_json

_MARK = ".snakemake_timestamp"  # Snakemake's own, in an output folder


def sealed(document: dict[str, Any], results: list[Path]) -> dict[str, Any]:
    """Return the document with the hashes of `results` (folders: of the files in them) and of itself."""
    files = [file for path in results for file in (members(path) if path.is_dir() else [path])]
    document = document | {"files": {str(file): sha256_file(file) for file in files}}
    return document | {"sha256": seal(document)}


def seal(document: dict[str, Any]) -> str:
    """Hash of a document as JSON, without its own hash."""
    return sha256_json(json.loads(json.dumps({k: v for k, v in document.items() if k != "sha256"})))


def members(folder: Path) -> list[Path]:
    """The files in a folder of results."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != _MARK)
