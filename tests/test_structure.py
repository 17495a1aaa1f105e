"""The house plan in docs/design.md holds: who imports whom, and no circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

SOURCE = ROOT / "src" / "distillery"


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCE.rglob("*.py")}


def imports(path: Path) -> Iterator[str]:
    """Modules of this project that a file imports, anywhere in it (but not those that only type checkers see)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if found := name if name in MODULES else node.module if node.module in MODULES else "":
                    yield found
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def package_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@cache
def graph_of_modules() -> dict[str, set[str]]:
    return {module: {name for name in imports(path) if name != module} for module, path in MODULES.items()}


def table() -> dict[str, set[str]]:
    text = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(
        r"^\| (\w+) \| [^|]+ \| ([\w, ]*)\|$",
        text.partition("## Who may import whom")[2].partition("| --- |")[2],
        re.MULTILINE,
    )
    return {package: {name for name in re.split(r"[,\s]+", allowed) if name} for package, allowed in rows}


def test_every_package_is_in_the_plan() -> None:
    assert set(table()) == {package_of(m) for m in MODULES} - {"", "__main__"}


@pytest.mark.parametrize("package", sorted(table()))
def test_a_package_imports_what_the_plan_says(package: str) -> None:
    for module, found in graph_of_modules().items():
        if package_of(module) == package:
            strange = {name for name in found if package_of(name) not in table()[package] | {package, ""}}
            assert not strange, f"{module} imports {sorted(strange)}"


def test_there_is_no_circle() -> None:
    """Neither of files, imports within functions included, nor of packages."""
    packages: dict[str, set[str]] = {}
    for module, found in graph_of_modules().items():
        names = {package_of(name) for name in found} - {package_of(module), ""}
        packages.setdefault(package_of(module), set()).update(names)
    for graph in (graph_of_modules(), packages):
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
