"""What of a module's source counts: its syntax tree without what changes no result, and the files that it names.

How modules are followed from one to the next is in `fingerprint`.
"""

from __future__ import annotations

import ast
import hashlib
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
    tree = _Meaning(path.is_relative_to(PACKAGE)).visit(ast.parse(path.read_bytes()))
    if any(ast.unparse(node) == "DECIDES_RESULTS = False" for node in tree.body if isinstance(node, ast.Assign)):
        return "", frozenset(), []
    package = [] if name.endswith(".py") else name.split(".")[: None if path.name == "__init__.py" else -1]
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = {alias.name for alias in node.names}
            if base == API:  # it only passes names on, and everything would be imported through it
                imported |= {_origins().get(name, API) for name in names}
            else:
                imported |= {base} | {f"{base}.{name}" for name in names}
    digest, read = hashlib.sha256(_text(tree).encode()), list[Path]()
    named = _named if path.is_relative_to(PACKAGE) else _named_by_user
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            read += named(path, node.value)
    for file in read:
        digest.update(file.read_bytes())
    return digest.hexdigest(), frozenset(imported), read


def _text(node: Any) -> str:
    """A syntax tree as text. Fields without content are left out: later versions of Python have more of them."""
    if isinstance(node, ast.AST):
        fields = [
            f"{name}={_text(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []
        ]
        return f"{type(node).__name__}({', '.join(fields)})"
    return f"[{', '.join(map(_text, node))}]" if isinstance(node, list) else repr(node)


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


class _Meaning(ast.NodeTransformer):
    """Takes out of a syntax tree what changes no result.

    `ours`: whether it is of this package, whose registries are known.
    """

    def __init__(self, ours: bool) -> None:
        self.ours = ours

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Docstrings, of modules, classes, functions and fields."""
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        """What a class says of the origin of its formula: a word in tables, whose job is told it."""
        node.body = [s for s in node.body if not (isinstance(s, ast.Assign) and ast.unparse(s) in _ORIGINS)]
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt] | None:
        """Imports that only type checkers see."""
        checking = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        if checking:
            return [self.visit(statement) for statement in node.orelse] or None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Rows of a registry: a job's own row is part of its identity, the others load nothing."""
        if self.ours and isinstance(node.func, ast.Name) and node.func.id == "Registry":
            node.args, node.keywords = node.args[:2], []
        return self.generic_visit(node)
