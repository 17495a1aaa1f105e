"""The reader of params.yaml: UTF-8 and YAML 1.2, by the library that DVC uses, so that both see the same values.

What cannot be meant is refused in one sentence that names the place: a key given twice, a tag, a date, an infinity.
"""

from __future__ import annotations

import codecs
import copy
import functools
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from distillery.records.io import DistilleryError

_PREFIX = "tag:yaml.org,2002:"
_PLAIN = {_PREFIX + kind for kind in ("map", "seq", "str", "int", "float", "bool", "null")}
_KEYS = {_PREFIX + "str", _PREFIX + "merge"}
_QUOTES = "write it in quotes if it is meant as text"
_HINTS = {  # what the parser says -> what to do about it
    "mapping values are not allowed here": "put a text that holds ': ' in quotes, and indent all keys of a block alike",
    "expected <block end>": "indent all keys of a block alike, and check the quotes and brackets before this place",
    "that cannot start any token": "put the text in quotes",
    "found undefined alias": "an alias (*name) needs its anchor (&name) before it",
    "found another document": "one file holds one study",
}


def read_params(path: Path | str) -> dict[str, Any]:
    """Read a mapping of plain values. Raises DistilleryError, one sentence with the place, if there is none."""
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise DistilleryError(
            f"there is no {path} here: go to the repository root, or begin a project here (`distillery init`)"
        ) from None
    except OSError as error:
        raise DistilleryError(f"{path} cannot be read: {error.strerror}") from None
    return copy.deepcopy(_parse(str(path), raw))


@functools.lru_cache(maxsize=4)  # most commands ask twice: once for the checked study, once for what was written
def _parse(path: str, raw: bytes) -> dict[str, Any]:
    text = _decode(path, raw)
    if directive := re.search(r"^%", text, re.MULTILINE):
        raise DistilleryError(f"{path}, {_place(text, directive.start())}: a line may not begin with %; remove it")
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
        if root is None:
            raise DistilleryError(f"{path} is empty: put a study in place (`distillery study NAME`)")
        _inspect(root, "", yaml.constructor, {})
        content = yaml.constructor.construct_document(root)
    except ReaderError as error:
        what = f"the character U+{error.character:04X} is not text; save the file as UTF-8 text"
        raise DistilleryError(f"{path}, {_place(text, error.position)}: {what}") from None
    except MarkedYAMLError as error:
        raise DistilleryError(f"{path}, {_explain(error, text)}") from None
    except RecursionError:
        raise DistilleryError(f"{path} is nested too deeply for a study: close its brackets") from None
    if not isinstance(content, dict):
        raise DistilleryError(f"{path} must be a mapping of sections (study, data, recipe, ...)")
    return content


def _decode(path: str, raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DistilleryError(f"{path}, line 1, column 1: a UTF-16 file begins like this; save it as UTF-8")
    raw = raw.removeprefix(codecs.BOM_UTF8)
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place, byte = _place(raw.decode("latin-1"), error.start), raw[error.start]
        raise DistilleryError(f"{path}, {place}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8") from None


def _place(text: str, position: int) -> str:
    before = text[:position]
    return f"line {before.count(chr(10)) + 1}, column {position - before.rfind(chr(10))}"


def _inspect(node: Node, where: str, constructor: Any, inside: dict[Node, bool]) -> None:
    """Refuse what construction would drop, or make anything else of than plain values.

    `inside` holds the collections seen so far, and whether the present node lies inside them.
    """
    if inside.get(node):
        _refuse(node, f"{where} contains itself; write its value out")
    if node.tag not in _PLAIN:
        kind = _kind(node)
        what = {"timestamp": "a date", "value": "'='", "merge": "'<<'"}.get(kind, f"tagged {kind}")
        _refuse(node, f"{where or 'the file'} is {what}, which no study needs; {_QUOTES}")
    if isinstance(node, ScalarNode):
        _inspect_scalar(node, where or "the file", constructor)
    elif node not in inside:
        inside[node] = True
        for key, value in _items(node, where):
            _inspect(value, f"{where}.{key}" if where else key, constructor, inside)
        inside[node] = False


def _items(node: Node, where: str) -> list[tuple[str, Node]]:
    """Return the items of a sequence or a mapping, the keys of which must be text and differ."""
    if isinstance(node, SequenceNode):
        return [(str(index), item) for index, item in enumerate(node.value)]
    found: dict[str, tuple[int, Node]] = {}
    for key, value in node.value if isinstance(node, MappingNode) else ():
        if not isinstance(key, ScalarNode) or key.tag not in _KEYS:
            name = f"the key {key.value}" if isinstance(key, ScalarNode) else "a key"
            _refuse(key, f"{name}{f' of {where}' if where else ''} is not text; {_QUOTES}")
        line, name = key.start_mark.line + 1, f"{where}.{key.value}" if where else key.value
        if key.value in found:
            _refuse(key, f"{name} is given twice, on lines {found[key.value][0]} and {line}; rename or remove one")
        found[key.value] = line, value
    return [(name, value) for name, (_, value) in found.items()]


def _inspect_scalar(node: ScalarNode, where: str, constructor: Any) -> None:
    try:
        value = constructor.construct_object(node)
    except (ValueError, LookupError):
        _refuse(node, f"{where} is not a proper {_kind(node)}; {_QUOTES}")
    if isinstance(value, float) and not math.isfinite(value):
        _refuse(node, f"{where} is {node.value}, not a finite number; {_QUOTES}")


def _kind(node: Node) -> str:
    return str(node.tag).removeprefix(_PREFIX)


def _refuse(node: Node, what: str) -> NoReturn:
    raise MarkedYAMLError(problem=what, problem_mark=node.start_mark)


def _explain(error: MarkedYAMLError, text: str) -> str:
    """Put a mistake into one sentence that begins with its line and column."""
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    problem, context = str(error.problem), str(error.context or "")
    line = next(iter(re.split(r"\r\n|[\r\n]", text)[mark.line :]), "")
    if "end of stream" in problem or "<stream end>" in problem:
        mark, problem = began or mark, f"what opens here is never closed ({context.removeprefix('while ')})"
    elif "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "the line is indented by a tab; use spaces"
    elif hint := next((hint for said, hint in _HINTS.items() if said in problem), ""):
        problem = f"{problem}; {hint}"
    elif context and began:
        problem = f"{problem} ({context}, begun on line {began.line + 1})"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
