"""What of a module's source counts: its syntax tree without what changes no result, and the files that it names.

How modules are followed from one to the next is in `fingerprint`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import distillery
from distillery.objectives.basis import BASES

DECIDES_RESULTS = False  # how jobs are run, not what they compute (see fingerprint.py)
API = "distillery.api"
PACKAGE = Path(distillery.__file__).parent
DATA = (".json", ".html", ".mplstyle", ".yaml")  # files that a module of this package names in a string
_ORIGINS = {f"basis = {word!r}" for word in BASES}


def parsed(path: Path, name: str) -> tuple[str, frozenset[str], list[Path]]:
    """Return the hash of a module's meaning, "" if it decides no result, the names of what it may import, and the files
    that it names."""
    ours, tree = path.is_relative_to(PACKAGE), ast.parse(path.read_bytes())
    if any(ast.unparse(node) == "DECIDES_RESULTS = False" for node in tree.body if isinstance(node, ast.Assign)):
        return "", frozenset(), []
    found = _Meaning(tree, ours)
    package = [] if name.endswith(".py") else name.split(".")[: None if path.name == "__init__.py" else -1]
    imported: set[str] = set()
    for node in found.imports:
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        else:
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = {alias.name for alias in node.names}
            if base == API:  # it only passes names on, and everything would be imported through it
                imported |= {_origins().get(name, API) for name in names}
            else:
                imported |= {base} | {f"{base}.{name}" for name in names}
    digest, named = hashlib.sha256(found.text.encode()), _named if ours else _named_by_user
    read = [file for string in found.strings for file in named(path, string)]
    for file in read:
        digest.update(file.read_bytes())
    return digest.hexdigest(), frozenset(imported), read


def _named(module: Path, name: str) -> list[Path]:
    """The files that a string in a module names: one beside it, or those of a pattern of paths in this package."""
    if not name.endswith(DATA) or name.startswith("/"):
        return []
    found = sorted(PACKAGE.glob(name)) if "/" in name else [module.with_name(name)]
    return [file for file in found if file != module and file.is_file()]


def _named_by_user(module: Path, name: str) -> list[Path]:
    """The file of any kind that a string in the user's code names: seen from the code, or from the project's folder."""
    with suppress(OSError, ValueError):  # a text that can be no name
        return next(([f] for f in (module.parent / name, Path(name)) if f != module and f.is_file()), [])
    return []


@cache
def _origins() -> dict[str, str]:
    """The module that each name of `distillery.api` comes from."""
    body = ast.parse((PACKAGE / "api.py").read_bytes()).body
    passed = [node for node in body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.asname or alias.name: str(node.module) for node in passed for alias in node.names}


class _Meaning:
    """A syntax tree as text, without what changes no result; read in one pass, since every plan reads some two hundred.

    `ours`: whether it is of this package, whose registries are known.

    Attributes:
        text: fields without content are left out: later versions of Python have more of them.
        imports: the import statements.
        strings: all strings.
    """

    def __init__(self, tree: ast.Module, ours: bool) -> None:
        self.ours, self.imports, self.strings = ours, list[ast.Import | ast.ImportFrom](), list[str]()
        self.text = self._node(tree)

    def _node(self, node: Any) -> str:
        if isinstance(node, list):
            return f"[{', '.join([self._node(each) for each in node])}]"
        if not isinstance(node, ast.AST):
            return repr(node)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.strings.append(node.value)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self.imports.append(node)
        elif isinstance(node, ast.ClassDef):  # the origin of its formula: a word in tables, whose job is told it
            node.body = [s for s in node.body if not (isinstance(s, ast.Assign) and ast.unparse(s) in _ORIGINS)]
        elif isinstance(node, ast.Call) and self.ours and _is_name(node.func, "Registry"):
            node.args, node.keywords = node.args[:2], []  # a job's own row is part of its identity; others load nothing
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = list(_meant(value))
            if value is not None and value != []:
                fields.append(f"{name}={self._node(value)}")
        return f"{type(node).__name__}({', '.join(fields)})"


def _meant(statements: list[Any]) -> Iterator[Any]:
    """Leave out docstrings, of modules, classes, functions and fields, and imports that only type checkers see."""
    for each in statements:
        said = each.value if isinstance(each, ast.Expr) else None
        if isinstance(each, ast.If) and _is_name(each.test, "TYPE_CHECKING"):
            yield from _meant(each.orelse)
        elif not (isinstance(said, ast.Constant) and isinstance(said.value, str)):
            yield each


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
