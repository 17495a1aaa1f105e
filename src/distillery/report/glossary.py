"""What each method of a study is: its parts, the paper of each, and where its formula comes from.

Papers are read from the docstrings of the components' modules or, where one file holds several, of their classes. Where
a formula comes from is said by a component's class (`basis`), or by `methods.json` here; a method is what its weakest
part is.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from distillery.objectives import OBJECTIVES
from distillery.objectives.plugins import PLUGINS
from distillery.registry import Component
from distillery.study.blocks import Method

BASES = ("reproduced", "third-party reading", "declared design")
SIGNS = {"third-party reading": "†", "declared design": "‡"}  # after a label; a reproduced method needs none
MEANINGS = {
    "third-party reading": "as a later code base or paper reads the method, not the authors' own code",
    "declared design": "the sources leave the formula open; the docstring declares what was chosen",
}
FILE = Path(__file__).with_name("methods.json")
_ARXIV = re.compile(r"arXiv[: ]\s*(\d{4}\.\d{4,5})")


@dataclass(frozen=True)
class Part:
    """An objective or plug-in as a reader meets it: what its docstring says first, its paper's address, its basis."""

    name: str
    about: str
    link: str
    basis: str


def parts(method: Method) -> list[Part]:
    """The objective of a method, the objectives added to it, and its plug-ins."""
    losses = [OBJECTIVES[name] for name in (method.objective, *method.plus)]
    return [_part(c) for c in (*losses, *(PLUGINS[name] for name in method.plugins))]


def basis(method: Method) -> str:
    """The weakest of its parts' bases; "" if one does not say."""
    found = [part.basis for part in parts(method)]
    return max(found, key=BASES.index) if all(found) else ""


def arxiv(text: str) -> str:
    """The address of the first paper that a text names by its arXiv number; "" if it names none."""
    found = _ARXIV.search(text)
    return f"https://arxiv.org/abs/{found[1]}" if found else ""


@cache
def _table() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return {"links": content["links"], "basis": {n: b for b, names in content["basis"].items() for n in names}}


def _part(component: Component) -> Part:
    about, link, said = _source(component.module, component.attribute)
    basis = said or _table()["basis"].get(component.name, "")
    return Part(component.name, about, _table()["links"].get(component.name, link), basis if basis in BASES else "")


@cache
def _source(module: str, name: str) -> tuple[str, str, str]:
    """Read a class where it stands, without importing it: that takes seconds, and a gigabyte with torch.

    Returns what it is, the address of its paper, and the class's own `basis`, "" without one. The first two are the
    first paragraph and the first arXiv number of the module's docstring or, if only the class's names a paper, of that.
    """
    found = None if module.endswith(".py") else importlib.util.find_spec(module)
    tree = ast.parse(Path(found.origin if found and found.origin else module).read_bytes())
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    texts = [ast.get_docstring(tree) or "", (node and ast.get_docstring(node)) or ""]
    text = next(filter(arxiv, texts), texts[0])
    said = [ast.unparse(line) for line in node.body if isinstance(line, ast.Assign | ast.AnnAssign)] if node else []
    basis = next(
        (line.partition(" = ")[2].strip("'\"") for line in said if line.partition(" ")[0] in ("basis", "basis:")), ""
    )
    return " ".join(text.partition("\n\n")[0].split()), arxiv(text), basis
