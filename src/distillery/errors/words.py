"""What is said of wrong names and values: the nearest name, the first of many, what pydantic found in plain words.

`WORDS` is the one table from pydantic's types of errors to what is wanted; what is not in it keeps pydantic's words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

DECIDES_RESULTS = False  # sentences (see pipeline/fingerprint.py)
NEAR = 0.65  # the least likeness of two names of which one may be meant by the other
LONGEST = 80  # letters of a wrong value that are shown
WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a mapping (key: value)",
    "sequence_str": "a list",
    "string_type": "text",
    "string_too_long": "text of at most {max_length} characters",
    "string_too_short": "text of at least {min_length} characters",
    "too_long": "{max_length} or fewer entries",
    "too_short": "{min_length} or more entries",
    "tuple_type": "a list",
}
_PLAIN = {"None": "an empty value (null)", "True": "true", "False": "false"}
_NAME = "[key]"  # what pydantic puts behind a key that is wrong itself
_Place = tuple[Any, ...]  # keys of mappings and places in lists, from the outermost one


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint to append to "unknown name" sentences: the nearest known name, or all of them."""
    known = list(known)
    folded = {each.casefold(): each for each in reversed(known)}
    close = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=NEAR)
    return f"did you mean {folded[close[0]]!r}?" if close else f"known: {', '.join(known) or 'none'}"


def some(things: Sequence[str], most: int = 3) -> str:
    """The first few of many things, and how many more there are."""
    return ", ".join(things[:most]) + (f" and {len(things) - most:,} more" if len(things) > most else "")


def explain(model: type[BaseModel], error: ValidationError, given: Any, where: str = "") -> list[str]:
    """One sentence for each wrong value among those `given` to a model: which key, what it should be, what it is.

    Where a value may be of several kinds, pydantic tells of each: they make one sentence, and what is said of a part of
    the value counts for more.
    """
    found: dict[_Place, list[Any]] = {}
    for each in error.errors(include_url=False):
        found.setdefault(_place(each, given), []).append(each)
    whole = {place[:end] for place in found if place[-1:] != (_NAME,) for end in range(len(place))}
    return [_sentence(model, place, each, where) for place, each in found.items() if place not in whole]


def _place(error: Any, given: Any) -> _Place:
    """Where an error is, by keys alone: pydantic also names the kinds that it tried."""
    place = []
    for part in error["loc"]:
        known = isinstance(given, Mapping) and part in given
        known = known or (isinstance(given, list | tuple) and isinstance(part, int) and part < len(given))
        if known:
            given = given[part]
        if known or part == _NAME or (error["type"] == "missing" and part is error["loc"][-1]):
            place.append(part)
    return tuple(place)


def _sentence(model: type[BaseModel], place: _Place, errors: list[Any], where: str) -> str:
    named = place[-1:] == (_NAME,)
    path = where + ".".join(map(str, place[:-2] if named else place))
    error, value = errors[0], errors[0]["input"]
    if error["type"] == "extra_forbidden":
        return f"unknown key {path!r}: {nearest(str(place[-1]), _block(model, place[:-1]))}"
    if error["type"] == "missing":
        return f"{path} is missing"
    near = [each for each in errors if not each["type"].endswith(("_type", "_parsing", "literal_error"))] or errors
    wanted = " or ".join(dict.fromkeys(map(_wanted, near)))
    if not place:
        return f"{where}{wanted}"
    if error["type"] == "value_error" and isinstance(value, Mapping):
        return f"{path}: {wanted}"  # of several keys, which the sentence names
    said = f"{path}: {wanted}, not {_shown(value)}"
    if named:
        return said
    return said + next(filter(None, (_advice(each["type"], value, _block(model, place)) for each in near)), "")


def _wanted(error: Any) -> str:
    words = WORDS.get(error["type"])
    said = error["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return words.format(**error.get("ctx", {})) if words else f"{said[:1].lower()}{said[1:]}"


def _shown(value: Any) -> str:
    said = _PLAIN.get(repr(value)) or repr(value)
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}..."


def _advice(kind: str, value: Any, fields: Mapping[str, Any]) -> str:
    """What a researcher may have meant, and how that is written."""
    needed = [key for key, field in fields.items() if field.is_required()]
    if value is None:
        return ": give it a value, or leave the key out"
    if kind == "string_type" and isinstance(value, int | float):
        return ": write it in quotes if it is meant as text"
    if kind in ("float_type", "int_type") and isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?", value):
        return ": leave out the quotes"
    if kind in ("list_type", "tuple_type") and isinstance(value, str | int | float) and not isinstance(value, bool):
        return f": write [{value!r}] if it is the only entry"
    if kind == "model_type" and isinstance(value, str) and value and len(needed) == 1:
        return f": write {{{needed[0]}: {value}}}"
    return ""


def _block(model: Any, place: _Place) -> Mapping[str, Any]:
    """The fields of the block that is at a place within a model, or of the blocks in a mapping that is there."""
    for part in place:
        kind = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else model
        model = next((each for each in getattr(kind, "__args__", ()) if hasattr(each, "model_fields")), kind)
    return getattr(model, "model_fields", {})
