"""Reading the user's JSON and YAML: a key that is given twice is refused; their usual readers let the last one win."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError

from distillery.errors import DistilleryError
from distillery.records.faults import damaged, unreadable


def given_json(path: Path) -> Any:
    """Read a JSON file. Raises DistilleryError if it is missing, damaged, or has a key twice in one object."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise DistilleryError(f"{path}: the key {twice!r} is given twice in one object: keep one")
        return found

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8; brackets that never close
        raise damaged(path, error, "JSON file") from None


def given_yaml(path: Path) -> Any:
    """Read a YAML file as YOLO's programs do (YAML 1.1). Raises DistilleryError if a mapping has a key twice.

    Whatever else the library says about a damaged file passes: ValueError, RecursionError, its YAMLError.
    """
    reader = YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    try:
        return reader.load(path.read_text(encoding="utf-8"))
    except DuplicateKeyError as error:
        key = str(error.problem).partition(" with value ")[0].removeprefix("found duplicate key ")
        line = error.problem_mark.line + 1
        raise DistilleryError(f"{path}, line {line}: the key {key} is given twice: keep one") from None
