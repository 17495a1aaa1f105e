"""Whether an output that exists is what params.yaml and the code would make now. Cheap, for thousands of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillery.pipeline.jobs import Task
from distillery.pipeline.layout import code_files, tracked
from distillery.records import io as artifacts
from distillery.study.model import Study

_LAST = b'\n "params_sha256": "'
_BLOCK = 1 << 15


def read_record(path: Path) -> dict[str, Any]:
    """Read what a record says about where its output comes from, without the bulk (histories, predictions) behind it.

    Records have sorted keys and one item per line, so the text up to the line `params_sha256` is a JSON object but for
    its last brace. It holds `code_sha256`, `inputs`, `params`, and for students `device`.
    """
    text = b""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            text += block
            at = text.find(_LAST)
            if at >= 0 and (end := text.find(b'"', at + len(_LAST))) >= 0:
                return json.loads(text[: end + 1] + b"}")
    content = json.loads(text)
    return content.get("record", content)


class Current:
    """Compares records with the study as it is. What many tasks share is computed once."""

    def __init__(self, study: Study, params: dict[str, Any]) -> None:
        self.study, self.params = study, params
        self._expected: dict[tuple[str, ...], tuple[dict[str, Any], str]] = {}
        self._code: dict[str, str] = {}
        self._files: dict[Path, str] = {}

    def fault(self, task: Task) -> str:
        """Say why the outputs of a task are not current; "" if they are, as far as its own record tells."""
        try:
            record = read_record(task.record)
            values, digest = self._values(task)
            if record["params_sha256"] != digest:
                return _changed_keys(record.get("params", {}), values)
            if record["code_sha256"] != self._code_of(task):
                return "its code changed"
            return self._changed_input(task, record["inputs"])
        except (OSError, ValueError, KeyError, AttributeError):
            return "its record is damaged"

    def _values(self, task: Task) -> tuple[dict[str, Any], str]:
        key = (task.stage, *(k for name, k in task.wildcards.items() if name != "seed"))
        if key not in self._expected:
            values = json.loads(tracked(task.stage, self.params, **task.wildcards))
            self._expected[key] = values, artifacts.sha256_json(values)
        return self._expected[key]

    def _code_of(self, task: Task) -> str:
        method, key = None, task.stage
        if task.stage == "distill":
            method = self.study.methods[task.wildcards["method"]].for_pair(task.wildcards["pair"])
            key = " ".join((method.objective, *sorted(method.plus), "with", *sorted(method.plugins)))
        if key not in self._code:
            self._code[key] = artifacts.sha256_tree(Path(f) for f in code_files(task.stage, method=method))
        return self._code[key]

    def _changed_input(self, task: Task, inputs: dict[str, str]) -> str:
        """Compare small inputs that are newer than the record; heavy ones each have a small one that holds their hash.

        An input that is missing is no fault here: the task that makes it is then not done, and that is told.
        """
        made = task.record.stat().st_mtime
        for path in map(Path, inputs):
            if path.suffix == ".json" and path.exists() and path.stat().st_mtime > made:
                if path not in self._files:
                    self._files[path] = artifacts.sha256_file(path)
                if self._files[path] != inputs[str(path)]:
                    return f"{path} changed"
        return ""


def _changed_keys(old: dict[str, Any], new: dict[str, Any]) -> str:
    before, after = _flat(old), _flat(new)
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return f"{', '.join(keys[:3]) or 'parameters'}{', ...' if len(keys) > 3 else ''} changed"


def _flat(values: Any, where: str = "") -> dict[str, str]:
    if not isinstance(values, dict):
        return {where: json.dumps(values)}
    return {k: v for key, value in values.items() for k, v in _flat(value, f"{where}.{key}".lstrip(".")).items()}
